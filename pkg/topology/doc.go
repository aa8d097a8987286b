// Package topology says what a machine is and what a node publishes.
//
// In flows a sysfs root: [Read] turns it into a [Host], the machine's NUMA
// nodes, CPUs, memory and PCI network devices with their SR-IOV links. A Host
// is immutable, and a device that cannot be read whole is marked, not dropped.
//
// Out flows the contract between the two binaries: [NodeState] is what a
// node's kubelet is, has and has given away, in a form that the allocator
// computes on and that travels as annotations. The codec is deterministic, so
// that a state that has not changed has the same bytes.
package topology
