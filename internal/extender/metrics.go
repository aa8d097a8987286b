package extender

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/numalane/numalane/pkg/allocator"
)

type metrics struct {
	requests   *prometheus.CounterVec
	duration   *prometheus.HistogramVec
	refused    *prometheus.CounterVec
	candidates *prometheus.CounterVec
	notLeading *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "numalane_extender_requests_total",
			Help: "Calls by verb and HTTP status code.",
		}, []string{"verb", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "numalane_extender_request_duration_seconds",
			Help:    "Time from the first byte read to the last byte written, by verb.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2, 16), // 0.1 ms to 3.3 s
		}, []string{"verb"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "numalane_extender_nodes_filtered_total",
			Help: "Nodes that filter refused, by reason.",
		}, []string{"reason"}),
		candidates: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "numalane_extender_preemption_candidates_total",
			Help: "Nodes on which kube-scheduler would evict pods, by what became of its choice of victims.",
		}, []string{"victims"}),
		notLeading: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "numalane_extender_not_leading_total",
			Help: "Calls refused because another extender leads, or none does, by verb.",
		}, []string{"verb"}),
	}
	for _, outcome := range []string{keptVictims, changedVictims, droppedNode} {
		m.candidates.WithLabelValues(outcome)
	}
	for _, verb := range []string{"filter", "prioritize", "preempt", "bind"} {
		m.requests.WithLabelValues(verb, strconv.Itoa(http.StatusOK))
		m.duration.WithLabelValues(verb)
		m.notLeading.WithLabelValues(verb)
	}
	for r := allocator.Admitted + 1; r <= lastReason; r++ {
		m.refused.WithLabelValues(r.Code())
	}
	var errs []error
	for _, c := range []prometheus.Collector{m.requests, m.duration, m.refused, m.candidates, m.notLeading} {
		errs = append(errs, reg.Register(c))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("register the extender's metrics: %w", err)
	}
	return m, nil
}

func (m *metrics) called(verb string, code int, took time.Duration) {
	m.requests.WithLabelValues(verb, strconv.Itoa(code)).Inc()
	m.duration.WithLabelValues(verb).Observe(took.Seconds())
}

func (m *metrics) filtered(t *tally) {
	for r, n := range t {
		if n > 0 {
			m.refused.WithLabelValues(allocator.Reason(r).Code()).Add(float64(n))
		}
	}
}

// lastReason is the last that there is a counter for from the start.
const lastReason = allocator.Unknown

// tally counts nodes by reason, so that a call of 5,000 nodes touches each
// counter once.
type tally [math.MaxUint8 + 1]int

func (t *tally) add(r allocator.Reason) { t[r]++ }
