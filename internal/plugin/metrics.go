package plugin

import "github.com/prometheus/client_golang/prometheus"

// Describe makes Servers a [prometheus.Collector].
func (s *Servers) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(s, ch) }

// Collect tells how the pools are at this moment.
func (s *Servers) Collect(ch chan<- prometheus.Metric) {
	gauge := func(name, help string, value int, labels ...string) {
		names := []string{"pool", "health"}[:len(labels)]
		ch <- prometheus.MustNewConstMetric(prometheus.NewDesc(name, help, names, nil), prometheus.GaugeValue, float64(value), labels...)
	}
	for _, p := range s.Status() {
		const devices, of = "numalane_plugin_devices", "Devices advertised to the kubelet, by pool and health."
		gauge(devices, of, p.Healthy, p.Resource, "healthy")
		gauge(devices, of, p.Devices-p.Healthy, p.Resource, "unhealthy")
		live := 0
		if p.Phase == Live {
			live = 1
		}
		gauge("numalane_plugin_pool_live", "1 while the kubelet watches the pool and no newer instance of the plugin has taken it over.", live, p.Resource)
		ch <- prometheus.MustNewConstMetric(prometheus.NewDesc("numalane_plugin_registrations_total",
			"Times that the kubelet opened ListAndWatch for the pool.", []string{"pool"}, nil), prometheus.CounterValue, float64(p.Registrations), p.Resource)
	}
}
