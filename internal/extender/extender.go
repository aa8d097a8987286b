package extender

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	extenderv1 "k8s.io/kube-scheduler/extender/v1"

	"github.com/numalane/numalane/pkg/allocator"
)

// Cluster is what is known of the nodes. The pod of a question is named, so
// that what was promised to it before does not stand in its own way.
type Cluster interface {
	// Admit foretells what the nodes' kubelets would say to the pod: say is told
	// of each.
	Admit(nodes []string, pod types.UID, r *allocator.Request, say func(node string, v allocator.Verdict))
	// Score says how well the pod would sit on the node, from 0 to most.
	Score(node string, pod types.UID, r *allocator.Request, most int64) int64
	// Bind binds the pod if the node would still admit it.
	Bind(ctx context.Context, b *v1.Binding) error
}

// Leadership says whether this extender may answer, of several that could.
type Leadership interface {
	// Leading returns nil, or why this one does not lead.
	Leading() error
	// Hold is the same for a binding: it must be over when the context ends,
	// and done is called when it is.
	Hold(ctx context.Context) (held context.Context, done func(), err error)
}

// Extender is the http.Handler of the verbs.
type Extender struct {
	cluster   Cluster
	evictions Evictions
	lead      Leadership
	ready     func() error
	log       *slog.Logger
	metrics   *metrics
	mux       *http.ServeMux
}

// Options are what an Extender asks.
type Options struct {
	Cluster   Cluster
	Evictions Evictions
	Lead      Leadership
	// Ready returns nil, or why no answer would mean anything yet. Every call
	// is then answered with it: an extender beside its scheduler is called
	// whether it is ready or not.
	Ready   func() error
	Log     *slog.Logger
	Metrics prometheus.Registerer
}

// New makes the handler.
func New(o Options) (*Extender, error) {
	m, err := newMetrics(o.Metrics)
	if err != nil {
		return nil, err
	}
	e := &Extender{cluster: o.Cluster, evictions: o.Evictions, lead: o.Lead, ready: o.Ready, log: o.Log, metrics: m, mux: http.NewServeMux()}
	e.mux.Handle("/filter", verb(e, "filter", e.filter, func(err error) (*filtered, error) {
		return &filtered{fault: err.Error()}, nil
	}))
	e.mux.Handle("/prioritize", verb(e, "prioritize", e.prioritize, func(err error) (extenderv1.HostPriorityList, error) {
		return nil, unavailable(err)
	}))
	e.mux.Handle("/preempt", verb(e, "preempt", e.preempt, func(err error) (*extenderv1.ExtenderPreemptionResult, error) {
		return nil, unavailable(err)
	}))
	e.mux.Handle("/bind", verb(e, "bind", e.bind, func(err error) (*extenderv1.ExtenderBindingResult, error) {
		return &extenderv1.ExtenderBindingResult{Error: err.Error()}, nil
	}))
	return e, nil
}

func (e *Extender) ServeHTTP(w http.ResponseWriter, r *http.Request) { e.mux.ServeHTTP(w, r) }

// verb is the handler of one verb: it reads In, and writes what answer makes of
// it, or refuse of the reason why nothing can be answered.
func verb[In, Out any](e *Extender, name string, answer func(context.Context, *In) (Out, error), refuse func(error) (Out, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		code := serve(w, r, func(ctx context.Context, in *In) (Out, error) {
			if err := e.ready(); err != nil {
				return refuse(err)
			}
			if err := e.lead.Leading(); err != nil {
				e.metrics.notLeading.WithLabelValues(name).Inc()
				// A Service chose this one when it led. The next connection is
				// to the one that does; this would stay here for good.
				w.Header().Set("Connection", "close")
				return refuse(err)
			}
			return answer(ctx, in)
		})
		e.metrics.called(name, code, time.Since(start))
		if code != http.StatusOK {
			e.log.Warn("call refused", "verb", name, "code", code, "from", r.RemoteAddr)
		}
	})
}

// unavailable is for an answer that has no place for an error.
func unavailable(err error) error { return &fault{http.StatusServiceUnavailable, err} }
