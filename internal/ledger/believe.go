package ledger

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/resource"

	"github.com/numalane/numalane/pkg/allocator"
	"github.com/numalane/numalane/pkg/topology"
)

// share is what one container is entitled to on one node.
type share struct {
	// ends marks a regular init container: what it held passes to those after
	// it, so that the kubelet may list it with less, or no longer.
	ends    bool
	cpus    int64 // exclusive ones
	devices map[string]int64
	memory  map[string]int64 // bytes, by type
}

func (s *share) empty() bool { return s.cpus == 0 && len(s.devices) == 0 && len(s.memory) == 0 }

// shares are what the claim's containers are entitled to on a node, by name. A
// container that asks for nothing that this node binds to NUMA nodes is not in it:
// its node will say nothing about it, so there is nothing to wait for.
func (c *claim) shares(t *topology.NodeTopology, p *topology.NodePools) map[string]*share {
	// The static managers serve Guaranteed pods without pod-level resources
	// (cpumanager guaranteedCPUs, memorymanager Allocate). The API server
	// writes the QoS class of every pod.
	static := c.pod.Status.QOSClass == v1.PodQOSGuaranteed && !resource.IsPodLevelResourcesSet(c.pod)
	out := map[string]*share{}
	add := func(ct *v1.Container, statuses []v1.ContainerStatus, ends bool) {
		s := &share{ends: ends, devices: map[string]int64{}, memory: map[string]int64{}}
		for i := range p.Pools {
			if q, ok := ct.Resources.Limits[v1.ResourceName(p.Pools[i].Resource)]; ok && !q.IsZero() {
				s.devices[p.Pools[i].Resource] = q.Value()
			}
		}
		if static && t.Kubelet.CPUPolicy == topology.CPUManagerStatic {
			s.cpus = wholeCPUs(ct, statuses)
		}
		if static && t.Kubelet.MemoryPolicy == topology.MemoryManagerStatic {
			for name, q := range ct.Resources.Requests {
				if allocator.IsMemory(name) && !q.IsZero() {
					s.memory[string(name)] = q.Value()
				}
			}
		}
		if !s.empty() {
			out[ct.Name] = s
		}
	}
	for i := range c.pod.Spec.InitContainers {
		ct := &c.pod.Spec.InitContainers[i]
		add(ct, c.pod.Status.InitContainerStatuses, !allocator.IsSidecar(ct))
	}
	for i := range c.pod.Spec.Containers {
		add(&c.pod.Spec.Containers[i], c.pod.Status.ContainerStatuses, false)
	}
	return out
}

// wholeCPUs is the number of exclusive CPUs of a container. While a resize waits, the kubelet's word goes before the spec.
func wholeCPUs(c *v1.Container, statuses []v1.ContainerStatus) int64 {
	q := c.Resources.Requests[v1.ResourceCPU]
	for i := range statuses {
		if allocated, ok := statuses[i].AllocatedResources[v1.ResourceCPU]; ok && statuses[i].Name == c.Name {
			q = allocated
		}
	}
	return allocator.WholeCPUs(q)
}

// disagreement tells where an allocation contradicts what the pod asks for or
// what the node has; nil when it is to be believed. Who may write the
// annotation is settled by admission policy, but a ledger that overlooks what
// a pod holds would promise it twice.
func disagreement(shares map[string]*share, a *topology.Allocation, t *topology.NodeTopology, p *topology.NodePools) error {
	var errs []error
	listed := map[string]bool{}
	for i := range a.Containers {
		c := &a.Containers[i]
		listed[c.Name] = true
		s := shares[c.Name]
		if s == nil {
			s = &share{}
		}
		for _, err := range []error{s.checkCPUs(c, t), s.checkDevices(c, p), s.checkMemory(c, t)} {
			if err != nil {
				errs = append(errs, fmt.Errorf("container %q: %w", c.Name, err))
			}
		}
	}
	for name, s := range shares {
		if !listed[name] && !s.ends {
			errs = append(errs, fmt.Errorf("container %q is not listed", name))
		}
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(errs...)
}

func (s *share) checkCPUs(c *topology.ContainerAllocation, t *topology.NodeTopology) error {
	var got int64
	for id, set := range c.CPUs {
		numa := numaNode(t, id)
		if numa == nil {
			return fmt.Errorf("CPUs on NUMA node %d, which the node does not have", id)
		}
		if !set.IsSubsetOf(numa.CPUs().Difference(numa.Reserved.CPUSet)) {
			return fmt.Errorf("CPUs %s are not NUMA node %d's to give", set, id)
		}
		got += int64(set.Size())
	}
	return s.check("CPUs", got, s.cpus)
}

func (s *share) checkDevices(c *topology.ContainerAllocation, p *topology.NodePools) error {
	ids := map[string]map[string]bool{}
	for i := range c.Devices {
		d := &c.Devices[i]
		if !hasGroup(p, d) {
			return fmt.Errorf("devices of %s on NUMA nodes %v and PF %q, which the node does not have", d.Resource, d.NUMANodes, d.PF)
		}
		if ids[d.Resource] == nil {
			ids[d.Resource] = map[string]bool{}
		}
		for _, id := range d.IDs {
			ids[d.Resource][id] = true
		}
	}
	for name := range ids {
		if _, ok := s.devices[name]; !ok {
			return fmt.Errorf("devices of %s, which it does not ask for", name)
		}
	}
	for name, want := range s.devices {
		if err := s.check(name, int64(len(ids[name])), want); err != nil {
			return err
		}
	}
	return nil
}

func (s *share) checkMemory(c *topology.ContainerAllocation, t *topology.NodeTopology) error {
	got := map[string]int64{}
	for i := range c.Memory {
		m := &c.Memory[i]
		for _, id := range m.NUMANodes {
			if numaNode(t, id) == nil {
				return fmt.Errorf("%s on NUMA node %d, which the node does not have", m.Type, id)
			}
		}
		if _, ok := s.memory[m.Type]; !ok {
			return fmt.Errorf("%s, which it does not ask for", m.Type)
		}
		got[m.Type] += int64(m.Size)
	}
	for name, want := range s.memory {
		if err := s.check(name, got[name], want); err != nil {
			return err
		}
	}
	return nil
}

func (s *share) check(what string, got, want int64) error {
	if got == want || s.ends && got < want {
		return nil
	}
	return fmt.Errorf("holds %d of %s and asks for %d", got, what, want)
}

func numaNode(t *topology.NodeTopology, id int) *topology.NodeNUMA {
	for i := range t.NUMANodes {
		if t.NUMANodes[i].ID == id {
			return &t.NUMANodes[i]
		}
	}
	return nil
}

func hasGroup(p *topology.NodePools, d *topology.DeviceAllocation) bool {
	for i := range p.Pools {
		if p.Pools[i].Resource != d.Resource {
			continue
		}
		for j := range p.Pools[i].Groups {
			if d.Of(&p.Pools[i].Groups[j]) {
				return true
			}
		}
	}
	return false
}
