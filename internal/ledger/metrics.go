package ledger

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/numalane/numalane/pkg/allocator"
)

// Why an allocation annotation is not believed.
const (
	causeUnreadable = "unreadable"
	causeDisagrees  = "disagrees"
)

// How a binding ended.
const (
	bindDone    = "bound"
	bindRefused = "refused" // the node was promised to others meanwhile
	bindFailed  = "failed"  // the API did not bind
	bindUnknown = "unknown" // the API may have bound
)

type metrics struct {
	disbelieved  *prometheus.CounterVec
	bindings     *prometheus.CounterVec
	acknowledged prometheus.Histogram
	mispredicted prometheus.Counter
	overtaken    prometheus.Counter
}

func newMetrics() *metrics {
	m := &metrics{
		disbelieved: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "numalane_ledger_disbelieved_allocations_total",
			Help: "Allocation annotations of pods that could not be read, or that disagree with the pod's requests or its node's inventory.",
		}, []string{"cause"}),
		bindings: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "numalane_ledger_bindings_total",
			Help: "Bindings asked for, by how they ended.",
		}, []string{"result"}),
		acknowledged: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "numalane_ledger_bind_to_acknowledged_seconds",
			Help:    "Time from the promise of a node to a pod until the node was seen to say what the pod holds.",
			Buckets: prometheus.ExponentialBuckets(0.01, 2, 14), // 10 ms to 82 s
		}),
		mispredicted: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "numalane_ledger_mispredictions_total",
			Help: "Pods that hold something on other NUMA nodes than was foretold, in any order of events.",
		}),
		overtaken: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "numalane_ledger_overtaken_total",
			Help: "Pods that hold what was foretold for when another pod had ended, of which their kubelet knew before the API.",
		}),
	}
	for _, cause := range []string{causeUnreadable, causeDisagrees} {
		m.disbelieved.WithLabelValues(cause)
	}
	for _, result := range []string{bindDone, bindRefused, bindFailed, bindUnknown} {
		m.bindings.WithLabelValues(result)
	}
	return m
}

func (m *metrics) register(reg prometheus.Registerer) error {
	return errors.Join(reg.Register(m.disbelieved), reg.Register(m.bindings),
		reg.Register(m.acknowledged), reg.Register(m.mispredicted), reg.Register(m.overtaken))
}

// census counts nodes and pods when it is asked.
type census struct{ ledger *Ledger }

var (
	nodesDesc = prometheus.NewDesc("numalane_ledger_nodes", "Nodes by what is known of their state.", []string{"state"}, nil)
	fluxDesc  = prometheus.NewDesc("numalane_ledger_nodes_in_flux", "Nodes with pods on their way, by whether all orders of events can be followed.", []string{"followed"}, nil)
	podsDesc  = prometheus.NewDesc("numalane_ledger_pods", "Pods that hold something exclusive, by whether their node has acknowledged them.", []string{"state"}, nil)
)

// Describe implements prometheus.Collector.
func (census) Describe(ch chan<- *prometheus.Desc) {
	ch <- nodesDesc
	ch <- podsDesc
	ch <- fluxDesc
}

// Collect implements prometheus.Collector.
func (c census) Collect(ch chan<- prometheus.Metric) {
	nodes := map[allocator.Reason]int{}
	var acknowledged, unacknowledged, promised int
	flux := map[bool]int{}
	c.ledger.read.RLock()
	for _, n := range c.ledger.nodes {
		s := n.now.Load()
		nodes[s.reason]++
		acknowledged += s.acknowledged
		unacknowledged += s.unacknowledged
		promised += s.promised
		if s.traffic != nil && s.traffic.Unsettled() > 0 {
			flux[s.traffic.Followed()]++
		}
	}
	c.ledger.read.RUnlock()
	gauge := func(d *prometheus.Desc, n int, state string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n), state)
	}
	gauge(nodesDesc, nodes[allocator.Admitted], "known")
	gauge(nodesDesc, nodes[allocator.NoState], "absent")
	gauge(nodesDesc, nodes[allocator.UnreadableState], "unreadable")
	gauge(nodesDesc, nodes[allocator.NewerState], "newer")
	gauge(nodesDesc, nodes[allocator.Unknown], "unknown")
	gauge(fluxDesc, flux[true], "true")
	gauge(fluxDesc, flux[false], "false")
	gauge(podsDesc, acknowledged, "acknowledged")
	gauge(podsDesc, unacknowledged, "unacknowledged")
	gauge(podsDesc, promised, "promised")
}
