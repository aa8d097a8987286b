package oracle

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"

	"github.com/numalane/numalane/e2e/kubelets/wire"
	"github.com/numalane/numalane/pkg/topology"
)

// Mismatch is a case that was not foretold, with the scenario up to it.
type Mismatch struct {
	Difference difference `json:"difference"`
	Foretold   []string   `json:"foretold,omitempty"`
	// State, Pod and Got are a row for a table of the allocator's tests. They
	// are empty where the scenario could not go on.
	State *topology.NodeState `json:"state,omitempty"`
	Pod   *v1.Pod             `json:"pod,omitempty"`
	Got   *wire.Admission     `json:"got,omitempty"`
	// After is the state that the kubelet's answer led to.
	After *topology.NodeState `json:"after,omitempty"`
	// Shrunk says how far the scenario was made smaller.
	Shrunk   string    `json:"shrunk,omitempty"`
	Scenario *Scenario `json:"scenario"`
}

func newMismatch(f *foretold, h *happened, d difference) *Mismatch {
	m := &Mismatch{Difference: d, State: h.before.NodeState, Pod: h.pod, Got: &h.admission, After: h.after.NodeState}
	for i := range f.outcomes {
		o := &f.outcomes[i]
		if text := answer(o.Verdict.OK(), o.Verdict.KubeletReason()); len(m.Foretold) < 8 {
			m.Foretold = append(m.Foretold, text)
		}
	}
	return m
}

// class is the same for mismatches that may well have one cause.
func (m *Mismatch) class() string {
	text := string(m.Difference.Kind)
	if m.Got == nil {
		line, _, _ := strings.Cut(m.Difference.Text, "\n")
		return text + ": " + digits().ReplaceAllString(line, "N")
	}
	text += ": " + answer(m.Got.Admit, m.Got.Reason)
	if m.Difference.Kind == isVerdict {
		text += ", foretold " + strings.Join(slices.Compact(slices.Sorted(slices.Values(m.Foretold))), " or ")
	}
	// What the lines that differ are about.
	for _, word := range []string{"CPUs", "hugepages", "memory", "Size", "given away", "PF", "NUMANodes", "Count", "Resource"} {
		if slices.ContainsFunc(lines(m.Difference.Text), func(l string) bool {
			return (strings.HasPrefix(l, "-") || strings.HasPrefix(l, "+")) && strings.Contains(l, word)
		}) {
			text += ", " + word
		}
	}
	return text
}

// Print writes the mismatch for a person, with the row of a test table.
func (m *Mismatch) Print(w io.Writer) {
	s := m.Scenario
	fmt.Fprintf(w, "mismatch (%s): kubelet 1.%d, seed %d, scenario %d", m.Difference.Kind, s.Minor, s.Seed, s.Index)
	if m.Shrunk != "" {
		fmt.Fprintf(w, "; %s", m.Shrunk)
	}
	fmt.Fprintf(w, "\n%s\n", strings.TrimSpace(m.Difference.Text))
	if row, err := m.row(); err == nil && row != "" {
		fmt.Fprintf(w, "as a row of a table:\n%s\n", row)
	}
}

// row is a Go literal for the table of pkg/allocator/oracle_test.go.
func (m *Mismatch) row() (string, error) {
	if m.State == nil || m.Got == nil {
		return "", nil
	}
	state, err := json.Marshal(m.State)
	if err != nil {
		return "", err
	}
	pod, err := json.Marshal(m.Pod)
	if err != nil {
		return "", err
	}
	holds := ""
	for _, a := range slices.Concat(m.After.Held, m.After.Pools.Unowned) {
		if a.UID == string(m.Pod.UID) {
			text, err := topology.Encode(a)
			if err != nil {
				return "", err
			}
			holds = fmt.Sprintf("\tholds: `%s`,\n", text)
		}
	}
	return fmt.Sprintf("{\n\tname:  %q,\n\tstate: `%s`,\n\tpod:   `%s`,\n\twant:  %q,\n%s},",
		fmt.Sprintf("oracle: kubelet 1.%d, seed %d, scenario %d", m.Scenario.Minor, m.Scenario.Seed, m.Scenario.Index),
		state, pod, m.Got.Reason, holds), nil
}

// Write saves the mismatch, to be replayed.
func (m *Mismatch) Write(path string) error {
	text, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		return fmt.Errorf("write mismatch: %w", err)
	}
	if err := writeFile(path, append(text, '\n')); err != nil {
		return fmt.Errorf("write mismatch: %w", err)
	}
	return nil
}
