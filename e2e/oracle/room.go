package oracle

import (
	"slices"

	"github.com/numalane/numalane/pkg/topology"
)

// amounts are how much of one resource there is, on the whole node and on each
// NUMA node: the edges that requests are put on.
type amounts struct {
	free, all int64
	numaFree  []int64
	numaAll   []int64
}

// room is what a node has of each resource.
type room struct {
	threads int // a core's, at most
	cpus    amounts
	memory  map[string]amounts // by type; empty unless the memory manager is static
	devices map[string]amounts // by resource
}

func roomOf(s *topology.NodeState) room {
	r := room{memory: map[string]amounts{}, devices: map[string]amounts{}, threads: 1}
	held := slices.Concat(s.Held, s.Pools.Unowned)
	r.readCPUs(s.Topology.NUMANodes, held)
	r.readMemory(s.Topology.NUMANodes, held)
	for i := range s.Pools.Pools {
		p := &s.Pools.Pools[i]
		r.devices[p.Resource] = devicesOf(p, s.Topology.NUMANodes, held)
	}
	return r
}

func (r *room) readCPUs(nodes []topology.NodeNUMA, held []topology.Allocation) {
	for i := range nodes {
		n := &nodes[i]
		for _, g := range n.Cores {
			for _, c := range g.CPUs {
				r.threads = max(r.threads, c.Size())
			}
		}
		all := n.CPUs()
		free := topology.CPUSet{CPUSet: all.Difference(n.Reserved.CPUSet)}
		for _, a := range held {
			for _, c := range a.Containers {
				free.CPUSet = free.Difference(c.CPUs[n.ID].CPUSet)
			}
		}
		r.cpus.add(int64(free.Size()), int64(all.Size()))
	}
}

func (r *room) readMemory(nodes []topology.NodeNUMA, held []topology.Allocation) {
	for i := range nodes {
		for _, m := range nodes[i].Memory {
			a := r.memory[m.Type]
			free := int64(m.Allocatable)
			// Close enough where memory is held on several NUMA nodes at once.
			for _, h := range held {
				for _, c := range h.Containers {
					for _, b := range c.Memory {
						if b.Type == m.Type && slices.Contains(b.NUMANodes, nodes[i].ID) {
							free -= int64(b.Size) / int64(len(b.NUMANodes))
						}
					}
				}
			}
			a.add(max(0, free), int64(m.Allocatable))
			r.memory[m.Type] = a
		}
	}
}

func devicesOf(p *topology.Pool, nodes []topology.NodeNUMA, held []topology.Allocation) amounts {
	var a amounts
	freeOf := func(g *topology.Group) int64 {
		free := int64(g.Healthy)
		for _, h := range held {
			for _, c := range h.Containers {
				for _, d := range c.Devices {
					if d.Resource == p.Resource && d.Of(g) {
						free -= int64(len(d.IDs))
					}
				}
			}
		}
		return max(0, free)
	}
	for i := range nodes {
		var free, all int64
		for j := range p.Groups {
			if g := &p.Groups[j]; slices.Contains(g.NUMANodes, nodes[i].ID) {
				free, all = free+freeOf(g), all+int64(g.Total)
			}
		}
		a.numaFree, a.numaAll = append(a.numaFree, free), append(a.numaAll, all)
	}
	for j := range p.Groups {
		a.free, a.all = a.free+freeOf(&p.Groups[j]), a.all+int64(p.Groups[j].Total)
	}
	return a
}

func (a *amounts) add(free, all int64) {
	a.free, a.all = a.free+free, a.all+all
	a.numaFree, a.numaAll = append(a.numaFree, free), append(a.numaAll, all)
}

// used is how full the node is in its fullest resource, in hundredths.
func (r *room) used() int {
	most := 0
	count := func(a amounts) {
		if a.all > 0 {
			most = max(most, int(100-100*a.free/a.all))
		}
	}
	count(r.cpus)
	for _, a := range r.memory {
		count(a)
	}
	for _, a := range r.devices {
		count(a)
	}
	return most
}
