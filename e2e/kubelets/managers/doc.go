// Package managers drives the resource managers of a real kubelet, in a process
// of its own, so that what they decide can be compared with what was foretold.
//
// In flow wire.Command lines: start a kubelet over a folder, bring it pods, take
// them away. Out flows one wire.Answer for each. Beside that a kubelet is met
// where a node's is: device plugins register at device-plugins/kubelet.sock,
// pod-resources/kubelet.sock serves the PodResources API, and the state files
// are written where the kubelet writes them.
//
// The topology, device, CPU and memory manager are the kubelet's own, as are the
// reading and validation of its configuration, the feature gates, the general
// predicates and the PodResources server. What its container manager does to
// wire them differs from version to version: each has a module beside this one
// with a package that does it, a Wiring. This package has the rest, which is the
// same for all, and compiles with every one of them.
//
// Of the admit handlers those are here that decide by resources, in the
// kubelet's order: the topology manager, the general predicates, the features of
// the pod. Left out are eviction, sysctls, AppArmor, declared features, node
// shutdown and, as no pod is ever resized, the handler of resizes. A critical
// pod preempts no other. No container runs: nothing calls AddContainer or
// RemoveContainer of a manager, as the container lifecycle does.
package managers
