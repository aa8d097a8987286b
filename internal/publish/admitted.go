package publish

import (
	"slices"

	v1 "k8s.io/api/core/v1"

	"github.com/numalane/numalane/pkg/allocator"
	"github.com/numalane/numalane/pkg/topology"
)

// admitted tells whether the kubelet is through with a pod. It allocates
// container by container, devices before CPUs before memory, and writes its
// files after each step (topologymanager allocateAlignedResources), so a
// reading in between shows a part, and a pod that is refused half-way shows no
// more than that. The pod is acknowledged when all that its spec makes the
// kubelet allocate is there. How much is not asked: a resize changes it.
func admitted(pod *v1.Pod, a *topology.Allocation, state *topology.NodeState) bool {
	held := make(map[string]*topology.ContainerAllocation, len(a.Containers))
	for i := range a.Containers {
		held[a.Containers[i].Name] = &a.Containers[i]
	}
	for _, due := range allocator.NewRequest(pod).Due(&state.Topology, &state.Pools) {
		if due.Ends && state.Topology.Inexact != "" {
			continue // PodResources does not tell of these
		}
		if !met(&due, held[due.Container]) {
			return false
		}
	}
	return true
}

// met compares what a container is due with what it holds. Memory of a regular
// init container is taken over by the app containers, to the last byte.
func met(due *allocator.Due, held *topology.ContainerAllocation) bool {
	if held == nil {
		held = &topology.ContainerAllocation{}
	}
	for resource := range due.Devices {
		if !slices.ContainsFunc(held.Devices, func(d topology.DeviceAllocation) bool { return d.Resource == resource }) {
			return false
		}
	}
	return (due.CPUs == 0 || len(held.CPUs) > 0) && (len(due.Memory) == 0 || due.Ends || len(held.Memory) > 0)
}
