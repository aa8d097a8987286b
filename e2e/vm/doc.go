// Package vm checks numalane on a real kernel: a virtual machine of hack/lab is
// a node, with real VFs on two NUMA nodes, a real kubelet, containerd and our
// plugin as the DaemonSet's container. The control plane, our extender among it,
// is a cluster.Cluster outside.
//
// In go the binaries and images that the Makefile makes, out comes a line for
// each check. What the guest sees it is asked over the lab's agent (cmd/vmguest);
// what the API sees, the API.
package vm
