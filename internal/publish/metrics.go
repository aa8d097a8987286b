package publish

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/numalane/numalane/pkg/topology"
)

type metrics struct {
	latency   prometheus.Histogram
	writes    *prometheus.CounterVec
	corrected *prometheus.CounterVec
	inexact   prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "numalane_plugin_admission_to_published_seconds",
			Help: "Time from the kubelet's write of its state files that a pod first showed in to the API's word that the pod's annotation is written. " +
				"Pods that were held before the plugin started are not in it.",
			Buckets: []float64{.005, .01, .02, .03, .05, .075, .1, .15, .25, .5, 1, 2.5, 5, 10, 30, 60, 300},
		}),
		writes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "numalane_plugin_writes_total",
			Help: "Writes to the Node and to pods by result.",
		}, []string{"object", "result"}),
		corrected: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "numalane_plugin_corrections_total",
			Help: "Writes that put right what somebody else wrote in the plugin's annotations and labels.",
		}, []string{"object"}),
		inexact: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "numalane_plugin_state_inexact",
			Help: "1 while the kubelet's state files cannot be read in full and PodResources stands in for them.",
		}),
	}
	for _, object := range []string{"node", "pod"} {
		m.corrected.WithLabelValues(object)
		for _, result := range results() {
			m.writes.WithLabelValues(object, result)
		}
	}
	if reg == nil {
		return m, nil
	}
	if err := errors.Join(reg.Register(m.latency), reg.Register(m.writes), reg.Register(m.corrected), reg.Register(m.inexact)); err != nil {
		return nil, fmt.Errorf("register the publisher's metrics: %w", err)
	}
	return m, nil
}

func (m *metrics) read(state *topology.NodeState) {
	if state.Topology.Inexact != "" {
		m.inexact.Set(1)
	} else {
		m.inexact.Set(0)
	}
}

func (m *metrics) wrote(out *outcome) {
	m.writes.WithLabelValues(out.kind, out.result).Inc()
	if out.result == written && !out.began.IsZero() {
		m.latency.Observe(time.Since(out.began).Seconds())
	}
}
