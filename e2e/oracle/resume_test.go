package oracle_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/numalane/numalane/e2e/oracle"
)

// TestResume: a run that is interrupted goes on with what is left.
func TestResume(t *testing.T) {
	o := oracle.Options{
		Binaries: binaries, Cache: t.TempDir(), Kubelets: []int{37}, Cases: 400, Seed: 3, Workers: 1,
		State: filepath.Join(t.TempDir(), "state.json"), Every: time.Millisecond,
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	o.Progress = onceDone(cancel)
	cut, err := oracle.Run(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	if cut.Done || cut.Cases == 0 || cut.Cases >= o.Cases {
		t.Fatalf("interrupted after %d of %d cases, done: %t", cut.Cases, o.Cases, cut.Done)
	}
	o.Progress = nil
	other := o
	other.Seed, other.Resume = 4, true
	if _, err := oracle.Run(t.Context(), other); err == nil {
		t.Error("a run of another seed resumes this one")
	}
	o.Resume = true
	resumed, err := oracle.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if !resumed.Done || resumed.Cases != o.Cases || resumed.Scenarios <= cut.Scenarios {
		t.Errorf("resumed, done: %t, %d of %d cases, %d scenarios after %d", resumed.Done, resumed.Cases, o.Cases, resumed.Scenarios, cut.Scenarios)
	}
	if want := "oracle: 400 cases, 0 mismatches, kubelets 1.37"; resumed.Line() != want {
		t.Errorf("%q, want %q", resumed.Line(), want)
	}
}

// onceDone cancels when the first cases are done.
type onceDone context.CancelFunc

func (cancel onceDone) Write(b []byte) (int, error) {
	if string(b[:len("oracle: 0 ")]) != "oracle: 0 " {
		cancel()
	}
	return len(b), nil
}
