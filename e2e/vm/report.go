package vm

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// check is one thing that must hold. It returns what it found, to be printed.
type check struct {
	name string
	run  func(context.Context) (found string, err error)
}

// act is what is done one after the other; checks of one step only look, or wait
// for things that do not touch each other, and run side by side.
type act [][]check

// outcome is a check that has been run.
type outcome struct {
	found string
	err   error
	took  time.Duration
}

// report runs checks and counts. A check that fails does not keep the later ones
// from telling what they find.
type report struct {
	out            io.Writer
	passed, failed int
}

// most is the longest time for one check.
const most = 5 * time.Minute

func (r *report) run(ctx context.Context, a act) {
	for _, step := range a {
		if ctx.Err() != nil {
			return
		}
		outcomes := make([]outcome, len(step))
		var all sync.WaitGroup
		for i, c := range step {
			all.Go(func() {
				limited, cancel := context.WithTimeout(ctx, most)
				defer cancel()
				start := time.Now()
				found, err := c.run(limited)
				outcomes[i] = outcome{found, err, time.Since(start)}
			})
		}
		all.Wait()
		for i, o := range outcomes {
			r.tell(step[i].name, o)
		}
	}
}

func (r *report) tell(name string, o outcome) {
	n := r.passed + r.failed + 1
	if o.err != nil {
		r.failed++
		fmt.Fprintf(r.out, "%3d FAILED  %s (%.1f s)\n            %s\n", n, name, o.took.Seconds(), strings.ReplaceAll(o.err.Error(), "\n", "\n            "))
		return
	}
	r.passed++
	if o.found != "" {
		o.found = ": " + o.found
	}
	fmt.Fprintf(r.out, "%3d ok      %s%s (%.1f s)\n", n, name, o.found, o.took.Seconds())
}

// line is the last one of the run.
func (r *report) line() string {
	return fmt.Sprintf("e2e-vm: %d checks passed, %d failed", r.passed, r.failed)
}
