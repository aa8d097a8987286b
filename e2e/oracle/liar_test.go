package oracle_test

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/numalane/numalane/e2e/kubelets/wire"
	"github.com/numalane/numalane/e2e/oracle"
)

// liarVariable makes the test's program a kubelet that lies, over the real one
// that the variable names.
const liarVariable = "ORACLE_LIAR_OVER"

// TestLiar: a kubelet that gives another answer than what was foretold is found
// out, and the case shrunk until nothing but the lie is left.
func TestLiar(t *testing.T) {
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	real, err := filepath.Abs(filepath.Join(binaries, "managers-1.37"))
	if err != nil {
		t.Fatal(err)
	}
	liars, cache := t.TempDir(), t.TempDir()
	if err := os.Symlink(program, filepath.Join(liars, "managers-1.37")); err != nil {
		t.Fatal(err)
	}
	t.Setenv(liarVariable, real)
	report, err := oracle.Run(t.Context(), oracle.Options{Binaries: liars, Cache: cache, Kubelets: []int{37}, Cases: 100, Seed: 1, Workers: 2})
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Mismatches) == 0 {
		t.Fatal("no lie was found out")
	}
	shrunk := 0
	for i := range report.Mismatches {
		m := &report.Mismatches[i]
		if m.Difference.Kind != "verdict" || m.Got.Reason != lieAbout {
			t.Errorf("found %s: %s", m.Difference.Kind, m.Difference.Text)
		}
		var text strings.Builder
		m.Print(&text)
		if !strings.Contains(text.String(), `want:  "`+lieAbout+`"`) {
			t.Errorf("no row for a table:\n%s", text.String())
		}
		if m.Shrunk != "" {
			shrunk++
			if n := len(m.Scenario.Steps); n > 5 {
				t.Errorf("shrunk to %d steps", n)
			}
		}
	}
	if shrunk == 0 {
		t.Error("nothing was shrunk")
	}

	// The real kubelet does what was foretold.
	t.Setenv(liarVariable, "")
	files, err := filepath.Glob(filepath.Join(cache, "mismatch-*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no mismatch was written: %v", err)
	}
	s, err := oracle.LoadScenario(files[0])
	if err != nil {
		t.Fatal(err)
	}
	if m, err := oracle.Shrink(t.Context(), binaries, s); err != nil || m != nil {
		t.Errorf("the real kubelet: %v, %v", m, err)
	}
}

const lieAbout = "NoSuchReason"

// lie hands commands to the real kubelet, and its answers back, but for the
// reason of each refusal by the topology manager.
func lie(real string) error {
	cmd := exec.Command(real)
	cmd.Stdin, cmd.Stderr = os.Stdin, os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	lines, answers := bufio.NewReader(out), json.NewEncoder(os.Stdout)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return cmd.Wait()
		}
		var a wire.Answer
		if err := json.Unmarshal(line, &a); err != nil {
			return err
		}
		if a.Admission != nil && a.Admission.Reason == "TopologyAffinityError" {
			a.Admission.Reason = lieAbout
		}
		if err := answers.Encode(a); err != nil {
			return err
		}
	}
}
