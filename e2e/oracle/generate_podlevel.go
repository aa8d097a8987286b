package oracle

import (
	v1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/component-helpers/resource"
)

// podLevel gives the pod resources as a whole. Its containers share them or
// have a part of their own; together they ask for no more than the pod, as the
// API holds.
func (m *podMaker) podLevel(p *v1.Pod, all []*v1.Container) {
	m.parts = 1
	cpus := max(1, m.edge(m.room.cpus, 1))
	memory := max(64*mib, m.memoryAmount())
	whole := &v1.ResourceRequirements{Requests: v1.ResourceList{}, Limits: v1.ResourceList{}}
	p.Spec.Resources = whole
	milli := 1000 * cpus
	if m.chance(8) {
		milli += 500
	}
	set(whole, v1.ResourceCPU, *apiresource.NewMilliQuantity(milli, apiresource.DecimalSI))
	set(whole, v1.ResourceMemory, bytesOf(memory))
	switch m.weighted(84, 8, 8) {
	case 1: // burstable as a whole
		whole.Limits[v1.ResourceCPU] = *apiresource.NewMilliQuantity(milli+1000, apiresource.DecimalSI)
	case 2:
		delete(whole.Requests, v1.ResourceMemory)
		delete(whole.Limits, v1.ResourceMemory)
	}
	// What is left of the pod's share, for containers that run together.
	leftCPUs, leftMemory := cpus, memory
	for i, c := range all {
		lasting := i >= len(p.Spec.InitContainers) || isSidecar(c)
		mine := int64(m.between(1, int(max(1, leftCPUs))))
		if m.chance(20) {
			mine = leftCPUs
		}
		own := max(mib, leftMemory/int64(m.between(1, 4)))
		if leftCPUs < 1 || leftMemory < mib || m.chance(40) {
			continue // it shares
		}
		switch m.weighted(75, 15, 10) {
		case 0:
			set(&c.Resources, v1.ResourceCPU, *apiresource.NewQuantity(mine, apiresource.DecimalSI))
			set(&c.Resources, v1.ResourceMemory, bytesOf(own))
		case 1: // of its own only the CPUs
			set(&c.Resources, v1.ResourceCPU, *apiresource.NewQuantity(mine, apiresource.DecimalSI))
			own = 0
		default: // burstable
			c.Resources.Requests[v1.ResourceCPU] = *apiresource.NewMilliQuantity(500, apiresource.DecimalSI)
			c.Resources.Requests[v1.ResourceMemory] = bytesOf(own)
			mine = 1
		}
		if lasting {
			leftCPUs, leftMemory = leftCPUs-mine, leftMemory-own
		}
	}
	m.podHugepages(whole, all)
	// What the API fills in (apis/core/v1 defaultPodRequests).
	for name, q := range resource.AggregateContainerRequests(p, resource.PodResourcesOptions{}) {
		if _, set := whole.Requests[name]; !set && (name == v1.ResourceCPU || name == v1.ResourceMemory) {
			whole.Requests[name] = q
		}
	}
}

// podHugepages are the pod's, of which a container may have a part.
func (m *podMaker) podHugepages(whole *v1.ResourceRequirements, all []*v1.Container) {
	for _, name := range m.memory {
		size := m.hugepages(name)
		set(whole, v1.ResourceName(name), bytesOf(size))
		c := all[m.IntN(len(all))]
		if _, compute := c.Resources.Requests[v1.ResourceMemory]; compute && m.chance(60) {
			set(&c.Resources, v1.ResourceName(name), bytesOf(size))
		}
	}
}

func isSidecar(c *v1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == v1.ContainerRestartPolicyAlways
}

// status is what the API, and DRA's scheduler, write of a pod before the
// kubelet meets it.
func (m *podMaker) status(p *v1.Pod, all []*v1.Container) {
	switch m.weighted(72, 26, 2) {
	case 0:
		p.Status.QOSClass = qosClass(p, all)
	case 2: // not the one that its resources say
		p.Status.QOSClass = pick(m.dice, v1.PodQOSGuaranteed, v1.PodQOSBurstable)
	}
	if !m.chance(5) {
		return
	}
	for _, c := range all {
		for _, name := range m.devices {
			if _, asks := c.Resources.Limits[v1.ResourceName(name)]; !asks || !m.chance(60) {
				continue
			}
			claims := p.Status.ExtendedResourceClaimStatus
			if claims == nil {
				claims = &v1.PodExtendedResourceClaimStatus{ResourceClaimName: p.Name + "-claim"}
				p.Status.ExtendedResourceClaimStatus = claims
			}
			claims.RequestMappings = append(claims.RequestMappings, v1.ContainerExtendedResourceRequest{
				ContainerName: c.Name, ResourceName: name, RequestName: "request-0",
			})
		}
	}
}

// qosClass is the class that the API computes (apis/core/helper/qos).
func qosClass(p *v1.Pod, all []*v1.Container) v1.PodQOSClass {
	if p.Spec.Resources != nil {
		return classOf(p.Spec.Resources)
	}
	class := classOf(&all[0].Resources)
	for _, c := range all[1:] {
		if classOf(&c.Resources) != class {
			return v1.PodQOSBurstable
		}
	}
	return class
}

func classOf(rr *v1.ResourceRequirements) v1.PodQOSClass {
	guaranteed, nothing := true, true
	for _, name := range []v1.ResourceName{v1.ResourceCPU, v1.ResourceMemory} {
		request, limit := rr.Requests[name], rr.Limits[name]
		nothing = nothing && request.IsZero() && limit.IsZero()
		guaranteed = guaranteed && !request.IsZero() && request.Equal(limit)
	}
	switch {
	case guaranteed:
		return v1.PodQOSGuaranteed
	case nothing:
		return v1.PodQOSBestEffort
	default:
		return v1.PodQOSBurstable
	}
}
