// Package oracle holds what the allocator foretells against what the kubelet
// does, on machines, pools and pods that nobody chose.
//
// In flow a seed and the kubelets' resource managers, each version a process
// of its own (e2e/kubelets). A [Scenario] is one kubelet's life: a machine, a
// configuration, pools, and pods that come and end, devices that fail, and
// restarts. The machine is written as a sysfs tree; cAdvisor's code reads it
// for the kubelet, ours for the plugin. Our pools are served by the product's
// plugin servers, and what the allocator is given is what the product would
// have published: read by internal/kubelet from the kubelet's folder and
// sockets, and carried by the annotations' codec. Out flow the cases, one an
// admission, what they covered, and mismatches, shrunk to the smallest scenario
// that still shows them.
package oracle
