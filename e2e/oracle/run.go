package oracle

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/numalane/numalane/e2e/kubelets/wire/client"
)

// Options say what to run.
type Options struct {
	Binaries string // folder of the kubelets' programs
	Cache    string // folder for mismatches and the saved state
	Kubelets []int  // minor versions
	Cases    int    // in all
	Seed     uint64
	Workers  int
	// State is the file in which finished scenarios are saved; empty for none.
	State string
	// Resume goes on from State rather than anew.
	Resume bool
	// Progress is told every so often (ten seconds) how far it is; nil: nobody.
	Progress io.Writer
	Every    time.Duration
}

// Report is what came of a run.
type Report struct {
	Seed       uint64
	Cases      int
	Kubelets   []int
	Coverage   Coverage
	Mismatches []Mismatch
	// Unstarted counts the scenarios in which a kubelet refused to start, by
	// what it said.
	Unstarted map[string]int
	Scenarios int
	Took      time.Duration
	Done      bool // else it was interrupted
}

// progressEvery is how often progress is told and saved where nothing else is said.
const progressEvery = 10 * time.Second

// Run lives scenarios until there have been so many cases, or ctx ends. The
// error tells what kept it from working; mismatches are in the report.
func Run(ctx context.Context, o Options) (*Report, error) {
	for _, minor := range o.Kubelets {
		if _, err := os.Stat(client.Program(o.Binaries, minor)); err != nil {
			return nil, fmt.Errorf("there is no program of kubelet 1.%d (make oracle builds it): %w", minor, err)
		}
	}
	r := &run{o: o, begun: time.Now(), book: newBook(&o)}
	if o.Resume {
		if err := r.book.load(o.State); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// Whoever waits for cases that others may give back must hear of the end.
	defer context.AfterFunc(ctx, r.book.wake)()
	var workers sync.WaitGroup
	for range o.Workers {
		workers.Go(func() {
			if err := r.work(ctx); err != nil && ctx.Err() == nil {
				cancel(err)
			}
		})
	}
	ended := make(chan struct{})
	go func() {
		workers.Wait()
		close(ended)
	}()
	r.watch(ended)
	err := context.Cause(ctx)
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	if o.State != "" {
		err = errors.Join(err, r.book.save(o.State))
	}
	report := r.book.report()
	report.Took = time.Since(r.begun)
	return report, err
}

type run struct {
	o     Options
	begun time.Time
	book  *book
}

// watch tells and saves progress until the workers have ended.
func (r *run) watch(ended <-chan struct{}) {
	tick := time.NewTicker(cmp.Or(r.o.Every, progressEvery))
	defer tick.Stop()
	first := r.book.cases()
	for {
		select {
		case <-ended:
			return
		case <-tick.C:
		}
		if r.o.State != "" {
			if err := r.book.save(r.o.State); err != nil && r.o.Progress != nil {
				fmt.Fprintln(r.o.Progress, "oracle:", err)
			}
		}
		if r.o.Progress != nil {
			done, mismatches := r.book.cases(), r.book.mismatches()
			rate := float64(done-first) / time.Since(r.begun).Seconds()
			fmt.Fprintf(r.o.Progress, "oracle: %d of %d cases, %.0f a second, %d mismatches\n", done, r.o.Cases, rate, mismatches)
		}
	}
}

// work lives scenarios until none is left.
func (r *run) work(ctx context.Context) (err error) {
	dir, err := newDir()
	if err != nil {
		return err
	}
	w := newWorker(r.o.Binaries, dir)
	defer func() { err = errors.Join(err, w.close()) }()
	var t ticket
	for {
		var ok bool
		if t, ok = r.book.take(ctx, t); !ok {
			return nil
		}
		result, err := r.live(ctx, w, t)
		if ctx.Err() != nil {
			return nil // half a scenario is lived again another time
		}
		if err != nil {
			return err
		}
		r.book.enter(t, result)
	}
}

// result is what came of one scenario.
type result struct {
	cases     int
	tally     tally
	mismatch  *Mismatch
	unstarted string
}

// counter is the watcher of an ordinary run.
type counter struct {
	scenario *Scenario
	result   *result
	last     *Mismatch
}

func (c *counter) stepped(*Step) {}

func (c *counter) admitted(f *foretold, h *happened, d difference) {
	c.result.cases++
	c.result.tally.add(c.scenario, f, h)
	if d.Kind != "" {
		c.last = newMismatch(f, h, d)
	}
}

func (r *run) live(ctx context.Context, w *worker, t ticket) (*result, error) {
	s, g := newScenario(r.o.Seed, t.index, t.minor)
	res := &result{tally: tally{}}
	watch := &counter{scenario: s, result: res}
	steps, err := w.live(ctx, s, g, t.cases, watch)
	s.Steps = steps
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err == nil:
		return res, nil
	case errors.Is(err, errRefusesToStart):
		res.unstarted = err.Error()
		return res, nil
	case errors.Is(err, errMismatch):
		res.mismatch = watch.last
	default:
		res.mismatch = &Mismatch{Difference: difference{isFault, err.Error()}}
	}
	res.mismatch.Scenario = s
	if r.book.worthShrinking(res.mismatch) {
		shrink(ctx, w, res.mismatch)
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return res, res.mismatch.Write(filepath.Join(r.o.Cache, fmt.Sprintf("mismatch-%d-1.%d-%d.json", s.Seed, s.Minor, s.Index)))
}
