package inventory

import (
	"context"
	"log/slog"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/numalane/numalane/pkg/topology"
)

const (
	// Without events the timer is all there is.
	defaultInterval           = 10 * time.Second
	defaultIntervalWithEvents = 60 * time.Second
	defaultMinInterval        = 100 * time.Millisecond

	// scanBurst scans may follow one another at once after a calm: a change
	// seldom comes as one event, and the last one should not have to wait.
	scanBurst = 3

	firstRetry = 250 * time.Millisecond
)

// Snapshot is the machine at one moment. It is not changed once published.
type Snapshot struct {
	Host       *topology.Host
	Generation uint64 // from 1, one more with each change
}

// Options are what a Loop works with. Only Scan has to be given.
type Options struct {
	// Scan reads the machine: topology.Read of a root. The Host is a new one
	// each time, and the Loop's from then on.
	Scan func() (*topology.Host, error)
	// Events listens to the kernel's events, and adds its Facts to what Scan
	// has read. They tell of the running machine and of this process's network
	// namespace, so a simulated root has none.
	Events bool
	// Interval is the longest time between two scans: 10 s, with Events 60 s.
	Interval time.Duration
	// MinInterval is the time between scans while events keep coming: 100 ms.
	MinInterval time.Duration
	Logger      *slog.Logger // default: discard
}

// Stats counts what a Loop has done.
type Stats struct {
	Scans       uint64    // all of them
	Failures    uint64    // those that failed
	LastSuccess time.Time // zero before the first
}

// Loop watches a machine. Its methods may be called from any goroutine.
type Loop struct {
	o       Options
	sources []source
	facts   *Facts        // nil: none
	wake    chan struct{} // holds at most one request

	latest atomic.Pointer[Snapshot]

	mu          sync.Mutex
	subscribers []chan *Snapshot
	stats       Stats
}

// New is a Loop that Run starts.
func New(o Options) *Loop {
	if o.Interval == 0 {
		o.Interval = defaultInterval
		if o.Events {
			o.Interval = defaultIntervalWithEvents
		}
	}
	if o.MinInterval == 0 {
		o.MinInterval = defaultMinInterval
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	l := &Loop{o: o, wake: make(chan struct{}, 1)}
	if o.Events {
		l.sources = []source{{"links", watchLinks}, {"routes", watchRoutes}, {"uevents", watchUevents}}
		l.facts = NewFacts(o.Logger)
	}
	return l
}

// Latest is the newest snapshot, nil before the first scan that worked.
func (l *Loop) Latest() *Snapshot { return l.latest.Load() }

// Rescan asks for a scan soon. It never waits.
func (l *Loop) Rescan() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Subscribe is a channel of snapshots that begins with the latest, if there is
// one. It holds the newest that has not been taken; older ones are gone. It
// stays open for the life of the Loop.
func (l *Loop) Subscribe() <-chan *Snapshot {
	ch := make(chan *Snapshot, 1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.latest.Load(); s != nil {
		ch <- s
	}
	l.subscribers = append(l.subscribers, ch)
	return ch
}

// Stats is the account up to now.
func (l *Loop) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stats
}

// Run scans until the context ends, and then returns nil. It is called once.
func (l *Loop) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, s := range l.sources {
		g.Go(func() error {
			l.keep(ctx, s)
			return nil
		})
	}
	g.Go(func() error {
		l.scan(ctx)
		return nil
	})
	return g.Wait()
}

// scan is the loop itself: the one goroutine that reads the machine.
func (l *Loop) scan(ctx context.Context) {
	limit := rate.NewLimiter(rate.Every(l.o.MinInterval), scanBurst)
	told := novelty{}
	retry := firstRetry
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-l.wake:
		}
		if limit.Wait(ctx) != nil {
			return
		}
		// What was asked for up to here, this scan will see.
		select {
		case <-l.wake:
		default:
		}
		host, err := l.look()
		l.count(err)
		if err == nil {
			if len(told) > 0 {
				l.o.Logger.Info("scan works again")
			}
			told, retry = novelty{}, firstRetry
			l.publish(host)
			timer.Reset(l.o.Interval)
			continue
		}
		retry = min(retry, l.o.Interval)
		l.o.Logger.Log(ctx, told.level(err), "scan failed, the last good one stands", "err", err, "retry", retry)
		timer.Reset(retry)
		retry *= 2
	}
}

// look reads the machine and adds what the kernel alone tells.
func (l *Loop) look() (*topology.Host, error) {
	host, err := l.o.Scan()
	if err != nil || l.facts == nil {
		return host, err
	}
	return host, l.facts.Add(host)
}

func (l *Loop) count(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stats.Scans++
	if err != nil {
		l.stats.Failures++
	} else {
		l.stats.LastSuccess = time.Now()
	}
}

// publish gives a host to all subscribers if it differs from the latest.
func (l *Loop) publish(host *topology.Host) {
	s := &Snapshot{Host: host, Generation: 1}
	if old := l.latest.Load(); old != nil {
		if reflect.DeepEqual(old.Host, host) {
			return
		}
		s.Generation = old.Generation + 1
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.latest.Store(s)
	for _, ch := range l.subscribers {
		select {
		case <-ch: // not taken yet, and old now
		default:
		}
		ch <- s // never waits: this is the only sender, under the lock
	}
	l.o.Logger.Debug("machine changed", "generation", s.Generation, "devices", len(host.Devices), "problems", len(host.Problems))
}

// novelty is what has been logged since it last went well.
type novelty map[string]bool

// level is that of a warning for an error that is new, and of a debug line for
// one that has been told.
func (n novelty) level(err error) slog.Level {
	if n[err.Error()] {
		return slog.LevelDebug
	}
	n[err.Error()] = true
	return slog.LevelWarn
}
