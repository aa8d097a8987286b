package vm

import (
	"context"
	"fmt"
	"io"
	"time"
)

// check is one thing that must hold. It returns what it found, to be printed.
type check struct {
	name string
	run  func(context.Context) (found string, err error)
}

// report runs checks one after another and counts. A check that fails does not
// keep the later ones from telling what they find.
type report struct {
	out            io.Writer
	passed, failed int
}

// most is the longest time for one check.
const most = 3 * time.Minute

func (r *report) run(ctx context.Context, checks []check) {
	for _, c := range checks {
		if ctx.Err() != nil {
			return
		}
		start := time.Now()
		limited, cancel := context.WithTimeout(ctx, most)
		found, err := c.run(limited)
		cancel()
		took := time.Since(start).Seconds()
		n := r.passed + r.failed + 1
		if err != nil {
			r.failed++
			fmt.Fprintf(r.out, "%3d FAILED  %s (%.1f s)\n            %v\n", n, c.name, took, err)
			continue
		}
		r.passed++
		if found != "" {
			found = ": " + found
		}
		fmt.Fprintf(r.out, "%3d ok      %s%s (%.1f s)\n", n, c.name, found, took)
	}
}

// line is the last one of the run.
func (r *report) line() string {
	return fmt.Sprintf("e2e-vm: %d checks passed, %d failed", r.passed, r.failed)
}
