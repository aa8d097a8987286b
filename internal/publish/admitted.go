package publish

import (
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
	e := expectation{pod: pod, state: state, exclusive: exclusive(pod)}
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		sidecar := allocator.IsSidecar(c)
		if !sidecar && state.Topology.Inexact != "" {
			continue // PodResources does not tell of these
		}
		if !e.met(c, held[c.Name], sidecar) {
			return false
		}
	}
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		if !e.met(c, held[c.Name], true) {
			return false
		}
	}
	return true
}

type expectation struct {
	pod       *v1.Pod
	state     *topology.NodeState
	exclusive bool // its containers get CPUs and memory of their own
}

// exclusive leaves pods with pod-level resources out: they get nothing, or as
// a whole (topology.WholePod), which the containers' requests do not tell.
func exclusive(pod *v1.Pod) bool {
	return pod.Status.QOSClass == v1.PodQOSGuaranteed && pod.Spec.Resources == nil
}

// met compares what a container asks for with what it holds. Memory of a
// regular init container is taken over by the app containers, to the last byte.
func (e *expectation) met(c *v1.Container, held *topology.ContainerAllocation, keepsMemory bool) bool {
	if held == nil {
		held = &topology.ContainerAllocation{}
	}
	for name, q := range c.Resources.Limits {
		if q.Sign() > 0 && e.isDevice(string(name)) && !e.byDRA(c.Name, string(name)) && !holdsDevice(held, string(name)) {
			return false
		}
	}
	if !e.exclusive {
		return true
	}
	k := &e.state.Topology.Kubelet
	if k.CPUPolicy == topology.CPUManagerStatic && allocator.WholeCPUs(*c.Resources.Requests.Cpu()) > 0 && len(held.CPUs) == 0 {
		return false
	}
	memory := c.Resources.Requests.Memory()
	return k.MemoryPolicy != topology.MemoryManagerStatic || !keepsMemory || memory.Sign() == 0 || len(held.Memory) > 0
}

func (e *expectation) isDevice(resource string) bool {
	for i := range e.state.Pools.Pools {
		if e.state.Pools.Pools[i].Resource == resource {
			return true
		}
	}
	return false
}

// byDRA tells extended resources that a DRA driver serves instead of a device
// plugin (devicemanager isDRAExtendedResource).
func (e *expectation) byDRA(container, resource string) bool {
	s := e.pod.Status.ExtendedResourceClaimStatus
	if s == nil {
		return false
	}
	for _, m := range s.RequestMappings {
		if m.ContainerName == container && m.ResourceName == resource {
			return true
		}
	}
	return false
}

func holdsDevice(held *topology.ContainerAllocation, resource string) bool {
	for i := range held.Devices {
		if held.Devices[i].Resource == resource {
			return true
		}
	}
	return false
}
