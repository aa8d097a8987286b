package ledger

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"

	"github.com/numalane/numalane/pkg/allocator"
	"github.com/numalane/numalane/pkg/topology"
)

// share is what one container is entitled to on one node.
type share struct{ allocator.Due }

// shares are what the claim's containers are entitled to on a node, by name. A
// container that asks for nothing that this node binds to NUMA nodes is not in it:
// its node will say nothing about it, so there is nothing to wait for.
func (c *claim) shares(t *topology.NodeTopology, p *topology.NodePools) map[string]*share {
	due := c.request.Due(t, p)
	out := make(map[string]*share, len(due))
	for i := range due {
		s := &share{due[i]}
		if s.CPUs > 0 {
			s.CPUs = c.cpusNow(s)
		}
		out[s.Container] = s
	}
	return out
}

// cpusNow is the number of exclusive CPUs of a container. While a resize
// waits, the kubelet's word goes before the spec.
func (c *claim) cpusNow(s *share) int64 {
	for _, statuses := range [][]v1.ContainerStatus{c.pod.Status.InitContainerStatuses, c.pod.Status.ContainerStatuses} {
		for i := range statuses {
			if allocated, ok := statuses[i].AllocatedResources[v1.ResourceCPU]; ok && statuses[i].Name == s.Container {
				return allocator.WholeCPUs(allocated)
			}
		}
	}
	return s.CPUs
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
		if !listed[name] && !s.Ends {
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
	return s.check("CPUs", got, s.CPUs)
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
		if _, ok := s.Devices[name]; !ok {
			return fmt.Errorf("devices of %s, which it does not ask for", name)
		}
	}
	for name, want := range s.Devices {
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
		if _, ok := s.Memory[m.Type]; !ok {
			return fmt.Errorf("%s, which it does not ask for", m.Type)
		}
		got[m.Type] += int64(m.Size)
	}
	for name, want := range s.Memory {
		if err := s.check(name, got[name], want); err != nil {
			return err
		}
	}
	return nil
}

func (s *share) check(what string, got, want int64) error {
	if got == want || s.Ends && got < want {
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
