// Package storm is a load test that lies in wait: on real kubelets it has more
// pods come and go than fit, kills all that can be killed, and counts what a
// kubelet refused, what is held twice, what spans NUMA nodes and what is stuck.
package storm
