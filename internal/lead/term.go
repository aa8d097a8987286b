package lead

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Bindings is what must be known before the first answer of a term.
type Bindings interface {
	// CatchUp returns once all that was bound before the call is known,
	// whoever bound it.
	CatchUp(ctx context.Context) error
}

const (
	catchUpFor  = 10 * time.Second // one try
	firstRetry  = 100 * time.Millisecond
	longestWait = 5 * time.Second
)

// usable is the part of a lease's time in which to do what only its holder may.
func usable(lease time.Duration) time.Duration { return lease * 2 / 3 }

var (
	errLapsed = errors.New("not leading: the lease has not been renewed for so long that another may soon hold it")
	errEnding = errors.New("not leading: the lease is being given up")
)

// Term is the time for which this process is known to lead. Its methods may be
// called from any goroutine.
type Term struct {
	bindings Bindings
	log      *slog.Logger

	catching sync.WaitGroup

	mu      sync.Mutex
	name    string // of the lease's term; empty while there is none
	until   time.Time
	over    context.CancelCauseFunc
	ctx     context.Context // ends with the term
	why     error           // why not leading; nil while leading
	ending  bool
	holders int
	idle    chan struct{} // closed when ending and the last holder is done
}

// NewTerm makes a Term that has not begun.
func NewTerm(bindings Bindings, log *slog.Logger, reg prometheus.Registerer) (*Term, error) {
	t := &Term{bindings: bindings, log: log, why: errors.New("not leading: nothing is known of the lease yet")}
	gauge := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "numalane_extender_leading",
		Help: "1 while this extender may bind pods, else 0.",
	}, func() float64 {
		if t.Leading() != nil {
			return 0
		}
		return 1
	})
	if err := reg.Register(gauge); err != nil {
		return nil, fmt.Errorf("register the metric of leadership: %w", err)
	}
	return t, nil
}

// Leading returns nil while this process leads, or why it does not.
func (t *Term) Leading() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.leading()
}

func (t *Term) leading() error {
	switch {
	case t.why != nil:
		return t.why
	case t.ending:
		return errEnding
	case t.lapsed():
		return errLapsed
	}
	return nil
}

func (t *Term) lapsed() bool { return !t.until.IsZero() && !time.Now().Before(t.until) }

// Hold returns a context for something that only a leader may do, or why this
// process is none. The context ends when the term does. The caller says with
// done that it is over.
func (t *Term) Hold(ctx context.Context) (held context.Context, done func(), err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.leading(); err != nil {
		return nil, nil, err
	}
	t.holders++
	ctx, cancel := context.WithCancelCause(ctx)
	term := t.ctx
	stop := context.AfterFunc(term, func() { cancel(context.Cause(term)) })
	free := func() {}
	if !t.until.IsZero() {
		ctx, free = context.WithDeadlineCause(ctx, t.until, errLapsed)
	}
	return ctx, sync.OnceFunc(func() {
		stop()
		free()
		cancel(nil)
		t.mu.Lock()
		defer t.mu.Unlock()
		t.holders--
		t.tellIdle()
	}), nil
}

func (t *Term) tellIdle() {
	if t.ending && t.holders == 0 && t.idle != nil {
		close(t.idle)
		t.idle = nil
	}
}

// hold begins the term of this name, or prolongs it if it has begun. The zero
// time is for a term without an end. What was bound before is looked up after
// a while of settling, in which whoever led before notices that it no longer
// does.
func (t *Term) hold(name string, until time.Time, settle time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.name == name {
		t.until = until
		return
	}
	t.stop(errors.New("another has begun"))
	ctx, over := context.WithCancelCause(context.Background())
	t.name, t.until, t.ctx, t.over, t.ending = name, until, ctx, over, false
	t.why = errors.New("not leading yet: catching up with what was bound before")
	t.log.Info("a term has begun", "term", name)
	t.catching.Go(func() { t.catchUp(ctx, settle) })
}

// live tells whether a term goes on, be it too early to answer.
func (t *Term) live() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.name != "" && !t.lapsed()
}

// end ends the term, and with it all that is done within it; or says anew why
// there is none.
func (t *Term) end(why error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stop(why)
	before := t.why
	if t.why = fmt.Errorf("not leading: %w", why); before == nil || before.Error() != t.why.Error() {
		t.log.Info("not leading", "because", why)
	}
}

func (t *Term) stop(why error) {
	if t.name != "" {
		t.over(fmt.Errorf("the term has ended: %w", why))
		t.name = ""
	}
}

// drain lets nothing more begin, and waits until what has begun is over. The
// error is not nil if that took longer than the term.
func (t *Term) drain(ctx context.Context) error {
	idle := make(chan struct{})
	t.mu.Lock()
	t.ending, t.idle = true, idle
	t.tellIdle()
	t.mu.Unlock()
	select {
	case <-idle:
	case <-ctx.Done():
		return fmt.Errorf("wait for the bindings under way: %w", context.Cause(ctx))
	}
	if !t.live() {
		return errLapsed
	}
	return nil
}

func (t *Term) catchUp(ctx context.Context, settle time.Duration) {
	wait, retry := settle, firstRetry
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		try, cancel := context.WithTimeout(ctx, catchUpFor)
		err := t.bindings.CatchUp(try)
		cancel()
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			break
		}
		t.log.Warn("cannot catch up with what was bound before; trying again", "err", err)
		t.mu.Lock()
		if t.ctx == ctx {
			t.why = fmt.Errorf("not leading yet: catch up with what was bound before: %w", err)
		}
		t.mu.Unlock()
		wait, retry = retry, min(2*retry, longestWait)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ctx == ctx && t.name != "" {
		t.why = nil
		t.log.Info("leading", "term", t.name)
	}
}

// close ends the term and waits for what goes on beside it.
func (t *Term) close() {
	t.end(errors.New("this process is ending"))
	t.catching.Wait()
}
