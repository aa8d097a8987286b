// Package kubelet tells what this node's kubelet holds and how it is
// configured.
//
// In flow the kubelet's three state files, its PodResources socket and its
// configuration (/configz, else its files), together with what only the caller
// knows: the machine, the plugin's own pools and the node's pods of the API.
// Out comes a [topology.NodeState]. The Parse functions and [Assemble] are
// pure; [Reader] adds the I/O and tells of changes. It needs no client of the
// API.
//
// The state files are keyed by pod UID and hold what PodResources leaves out:
// what init containers hold until their pod goes. They also keep pods that
// ended until the kubelet's next admission (devicemanager
// UpdateAllocatedDevices, cpumanager and memorymanager removeStaleState), so
// they only mean something beside the list of the node's pods.
package kubelet
