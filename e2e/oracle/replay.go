package oracle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/numalane/numalane/pkg/allocator"
)

// ErrMismatch tells that a replayed scenario has a case that is not foretold.
var ErrMismatch = errMismatch

// Replay lives one scenario and tells step by step what was foretold and what
// the kubelet did.
func Replay(ctx context.Context, binaries string, s *Scenario, out io.Writer) (err error) {
	dir, err := newDir()
	if err != nil {
		return err
	}
	w := newWorker(binaries, dir)
	defer func() { err = errors.Join(err, w.close()) }()
	config, err := json.Marshal(s.Kubelet)
	if err != nil {
		return err
	}
	machine, err := json.Marshal(s.Machine)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "kubelet 1.%d %s\nmachine %s\n", s.Minor, config, machine)
	todo := script(s.Steps)
	_, err = w.live(ctx, s, &todo, len(s.Steps), &narrator{out: out})
	return err
}

// Shrink makes a scenario with a mismatch as small as it can. It is nil when
// the scenario has none.
func Shrink(ctx context.Context, binaries string, s *Scenario) (found *Mismatch, err error) {
	dir, err := newDir()
	if err != nil {
		return nil, err
	}
	w := newWorker(binaries, dir)
	defer func() { err = errors.Join(err, w.close()) }()
	sh := shrinker{ctx: ctx, worker: w, until: time.Now().Add(shrinkTime)}
	for i := 0; i < confirmations && found == nil; i++ {
		if found, err = sh.find(s); err != nil {
			return nil, err
		}
	}
	if found != nil {
		shrink(ctx, w, found)
	}
	return found, nil
}

// narrator is the watcher that tells everything.
type narrator struct {
	out  io.Writer
	step int
}

func (n *narrator) head(text string, args ...any) {
	n.step++
	fmt.Fprintf(n.out, "\nstep %d: %s\n", n.step, fmt.Sprintf(text, args...))
}

func (n *narrator) stepped(step *Step) {
	text, err := json.Marshal(step)
	if err != nil {
		text = []byte(err.Error())
	}
	n.head("%s", text)
}

func (n *narrator) admitted(f *foretold, h *happened, d difference) {
	n.head("admit %s %s", h.pod.Name, h.pod.Status.QOSClass)
	if rr := h.pod.Spec.Resources; rr != nil {
		n.tell("pod asks %s", compact(rr))
	}
	inits := len(h.pod.Spec.InitContainers)
	for i, c := range containersOf(h.pod) {
		what := ""
		if i < inits {
			what = " (init)"
			if isSidecar(c) {
				what = " (sidecar)"
			}
		}
		n.tell("%s%s asks %s", c.Name, what, compact(c.Resources))
	}
	if f.node != nil {
		n.tell("room %s", strings.ReplaceAll(strings.TrimSpace(f.node.String()), "\n", "\n       "))
	}
	for i := range f.outcomes {
		o := &f.outcomes[i]
		n.tell("foretold %s %s", verdictText(o.Verdict), compact(holders(o.Containers)))
		if i == 3 && len(f.outcomes) > 4 {
			n.tell("… and %d other outcomes", len(f.outcomes)-4)
			break
		}
	}
	n.tell("kubelet  %s %s %s", answer(h.admission.Admit, h.admission.Reason), h.admission.Message, compact(landed(h.after.NodeState, string(h.pod.UID))))
	if d.Kind != "" {
		n.tell("after    %s", compact(h.after.NodeState))
		n.tell("MISMATCH (%s): %s", d.Kind, d.Text)
	}
}

func (n *narrator) tell(text string, args ...any) { fmt.Fprintf(n.out, "  "+text+"\n", args...) }

func verdictText(v allocator.Verdict) string {
	return fmt.Sprintf("%s (%s)", answer(v.OK(), v.KubeletReason()), v.Reason.Code())
}

func compact(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}
