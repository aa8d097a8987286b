package ledger

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/cache"
)

// failsAgainWithin is when a watch that still fails has failed again: the
// longest that an informer waits between two tries, with room (client-go's
// reflector: up to 60 s).
const failsAgainWithin = 2 * time.Minute

// Ready returns nil once the watches have shown everything that there was at
// the start, or what they lack. Before that no answer means anything; and none
// does while the API forbids to watch, for the rest of what happens goes unseen.
//
// A watch that breaks for another reason later, as all do while the API is
// away, does not show here. What is missed then is mostly room that has come
// free. What others bind is missed too; but nothing is bound by us either
// without the API, and a watch that is back tells all before it tells more.
func (l *Ledger) Ready() error {
	var errs []error
	if !l.HasSynced() {
		errs = append(errs, errors.New("the watches of Nodes and Pods have not caught up yet"))
	}
	for _, w := range l.watches {
		if err := w.failure(); err != nil && (!l.HasSynced() || isDenied(err)) {
			errs = append(errs, fmt.Errorf("watch %s: %w", w.resource, err))
		}
	}
	return errors.Join(errs...)
}

func isDenied(err error) bool { return apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) }

// watch is how one informer fares.
type watch struct {
	resource string
	informer cache.SharedIndexInformer
	log      *slog.Logger
	failed   prometheus.Counter

	mu      sync.Mutex
	err     error
	at      time.Time
	version string // of what was known when it failed
}

// minded are the informers, each with an eye on its failures.
func minded(l *Ledger, reg prometheus.Registerer) ([]*watch, error) {
	failed := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "numalane_ledger_watch_failures_total",
		Help: "Failed tries to list or watch, by resource. The end of a watch in the ordinary way is none.",
	}, []string{"resource"})
	if err := reg.Register(failed); err != nil {
		return nil, fmt.Errorf("register the metric of watches: %w", err)
	}
	var out []*watch
	for _, w := range []*watch{{resource: "nodes", informer: l.informed.nodes}, {resource: "pods", informer: l.informed.pods}} {
		w.log, w.failed = l.log, failed.WithLabelValues(w.resource)
		if err := w.informer.SetWatchErrorHandlerWithContext(w.note); err != nil {
			return nil, fmt.Errorf("mind the watch of %s: %w", w.resource, err)
		}
		out = append(out, w)
	}
	return out, nil
}

// note is told of every end of the watch. It logs what is new.
func (w *watch) note(ctx context.Context, _ *cache.Reflector, err error) {
	if ctx.Err() != nil || errors.Is(err, io.EOF) || apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
		return // client-go begins anew
	}
	w.failed.Inc()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil || w.err.Error() != err.Error() || time.Since(w.at) > failsAgainWithin {
		w.log.Error("cannot watch; what changes in the cluster goes unseen", "resource", w.resource, "err", err)
	}
	w.err, w.at, w.version = err, time.Now(), w.informer.LastSyncResourceVersion()
}

// failure is why the watch does not work now.
func (w *watch) failure() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil || time.Since(w.at) > failsAgainWithin || w.informer.LastSyncResourceVersion() != w.version {
		return nil
	}
	return w.err
}
