package allocator

import (
	"errors"
	"fmt"
	"math/bits"
	"slices"

	"k8s.io/utils/cpuset"

	"github.com/numalane/numalane/pkg/topology"
)

// Node is a NodeState compiled for admission. It is immutable, so any number
// of goroutines may ask it.
//
// All that an admission changes is one flat list of counts, room. The layout
// of that list is the same for what is free, for the empty node and for what a
// pod's init containers left to reuse: CPUs by NUMA node, then every pool's
// devices by group, then every type of memory by NUMA node.
type Node struct {
	single   bool // topology manager policy single-numa-node
	podScope bool
	cpus     bool // CPU manager static
	memory   bool // memory manager Static

	// fullCores is the number of threads a core that a request must be a
	// multiple of under full-pcpus-only; 0 without it.
	fullCores int64
	// splitCores are the free CPUs whose core has a reserved sibling: under
	// full-pcpus-only they are not to be had (cpumanager enforceSMTAlignment).
	splitCores int64
	// hostsOnly: hints exist only for NUMA nodes that host a device of the
	// resource (devicemanager deviceNUMANodes, since 1.36).
	hostsOnly bool

	numaIDs []int
	pools   []pool
	mem     []memoryType
	free    room
	empty   room // the node with nothing held
}

type room []int64

// pool is a device resource. Its groups' counts start at room[at].
type pool struct {
	resource string
	aligned  bool // some device says where it sits, so the kubelet computes hints
	healthy  int64
	at       int
	groups   []group
}

type group struct {
	mask  uint64 // NUMA nodes by index into Node.numaIDs
	total int64
}

// memoryType is a kind of memory. Its NUMA nodes' bytes start at room[at].
type memoryType struct {
	name string
	at   int
	// grouped NUMA nodes belong to a multi-node allocation, and so serve no
	// single-node one (memorymanager calculateHints).
	grouped uint64
}

// firstMinorWithHostsOnly is the kubelet that enumerates only NUMA nodes with devices.
const firstMinorWithHostsOnly = 36

// maxNUMANodes is what a mask of 64 bits holds; the kubelet's own limit is 8
// unless max-allowable-numa-nodes raises it.
const maxNUMANodes = 64

// Compile reads a NodeState. The error tells how it contradicts itself.
func Compile(s *topology.NodeState) (*Node, error) {
	t := &s.Topology
	if len(t.NUMANodes) == 0 || len(t.NUMANodes) > maxNUMANodes {
		return nil, fmt.Errorf("node publishes %d NUMA nodes, want 1 to %d", len(t.NUMANodes), maxNUMANodes)
	}
	k := &t.Kubelet
	n := &Node{
		single:    k.TopologyPolicy == topology.PolicySingleNUMANode,
		podScope:  k.TopologyScope == topology.ScopePod,
		cpus:      k.CPUPolicy == topology.CPUManagerStatic,
		memory:    k.MemoryPolicy == topology.MemoryManagerStatic,
		hostsOnly: k.Minor >= firstMinorWithHostsOnly,
	}
	switch k.TopologyPolicy {
	case topology.PolicyNone, topology.PolicyBestEffort, topology.PolicyRestricted, topology.PolicySingleNUMANode:
	default:
		return nil, fmt.Errorf("unknown topology manager policy %q", k.TopologyPolicy)
	}
	switch k.TopologyScope {
	case topology.ScopeContainer, topology.ScopePod, "":
	default:
		return nil, fmt.Errorf("unknown topology manager scope %q", k.TopologyScope)
	}
	index := map[int]int{}
	for i := range t.NUMANodes {
		id := t.NUMANodes[i].ID
		if _, twice := index[id]; twice {
			return nil, fmt.Errorf("NUMA node %d is listed twice", id)
		}
		index[id] = i
		n.numaIDs = append(n.numaIDs, id)
	}
	if !slices.IsSorted(n.numaIDs) {
		return nil, errors.New("NUMA nodes are not in order")
	}
	held := slices.Concat(s.Held, s.Pools.Unowned)
	n.addCPUs(t, held)
	if err := n.addPools(s.Pools.Pools, index, held); err != nil {
		return nil, err
	}
	n.addMemory(t, index, held)
	return n, nil
}

func (n *Node) addCPUs(t *topology.NodeTopology, held []topology.Allocation) {
	var sets []cpuset.CPUSet
	for i := range held {
		for _, c := range held[i].Containers {
			for _, set := range c.CPUs {
				sets = append(sets, set.CPUSet)
			}
		}
	}
	taken := cpuset.New().Union(sets...)
	full := t.Kubelet.CPUOpts["full-pcpus-only"] == "true"
	for i := range t.NUMANodes {
		numa := &t.NUMANodes[i]
		allocatable := numa.CPUs().Difference(numa.Reserved.CPUSet)
		free := allocatable.Difference(taken)
		n.empty = append(n.empty, int64(allocatable.Size()))
		n.free = append(n.free, int64(free.Size()))
		for _, g := range numa.Cores {
			for _, core := range g.CPUs {
				if full {
					n.fullCores = max(n.fullCores, int64(core.Size()))
				}
				if !core.Intersection(numa.Reserved.CPUSet).IsEmpty() {
					n.splitCores += int64(core.Intersection(free).Size())
				}
			}
		}
	}
}

func (n *Node) addPools(pools []topology.Pool, index map[int]int, held []topology.Allocation) error {
	for i := range pools {
		src := &pools[i]
		if n.poolOf(src.Resource) != nil {
			return fmt.Errorf("pool %s is listed twice", src.Resource)
		}
		p := pool{resource: src.Resource, aligned: src.HasTopology(), at: len(n.free)}
		for j := range src.Groups {
			g := &src.Groups[j]
			if g.Healthy > g.Total || g.Healthy < 0 {
				return fmt.Errorf("pool %s: %d of %d devices are healthy", src.Resource, g.Healthy, g.Total)
			}
			var mask uint64
			for _, id := range g.NUMANodes {
				if k, ok := index[id]; ok {
					mask |= 1 << k
				}
			}
			p.groups = append(p.groups, group{mask: mask, total: int64(g.Total)})
			p.healthy += int64(g.Healthy)
			n.empty = append(n.empty, int64(g.Healthy))
			n.free = append(n.free, max(0, int64(g.Healthy-heldOf(src.Resource, g, held))))
		}
		n.pools = append(n.pools, p)
	}
	return nil
}

// heldOf counts the healthy devices of a group that pods hold. An init
// container's device may be held again by an app container: ids, not entries.
func heldOf(resource string, g *topology.Group, held []topology.Allocation) int {
	ids := map[string]bool{}
	for i := range held {
		for _, c := range held[i].Containers {
			for _, d := range c.Devices {
				if d.Resource != resource || !d.Of(g) {
					continue
				}
				for _, id := range d.IDs {
					if !slices.Contains(g.Unhealthy, id) {
						ids[id] = true
					}
				}
			}
		}
	}
	return len(ids)
}

func (n *Node) addMemory(t *topology.NodeTopology, index map[int]int, held []topology.Allocation) {
	for i := range t.NUMANodes {
		for _, m := range t.NUMANodes[i].Memory {
			mt := n.memoryOf(m.Type)
			if mt == nil {
				n.mem = append(n.mem, memoryType{name: m.Type, at: len(n.free)})
				mt = &n.mem[len(n.mem)-1]
				n.free = append(n.free, make(room, len(n.numaIDs))...)
				n.empty = append(n.empty, make(room, len(n.numaIDs))...)
			}
			n.free[mt.at+i] = int64(m.Allocatable)
			n.empty[mt.at+i] = int64(m.Allocatable)
		}
	}
	for i := range held {
		for _, c := range held[i].Containers {
			for _, b := range c.Memory {
				mt := n.memoryOf(b.Type)
				if mt == nil {
					continue
				}
				left := int64(b.Size)
				for _, id := range b.NUMANodes {
					k, ok := index[id]
					if !ok {
						continue
					}
					if len(b.NUMANodes) > 1 {
						mt.grouped |= 1 << k
					}
					take := min(left, n.free[mt.at+k])
					n.free[mt.at+k] -= take
					left -= take
				}
			}
		}
	}
}

func (n *Node) poolOf(resource string) *pool {
	for i := range n.pools {
		if n.pools[i].resource == resource {
			return &n.pools[i]
		}
	}
	return nil
}

func (n *Node) memoryOf(name string) *memoryType {
	for i := range n.mem {
		if n.mem[i].name == name {
			return &n.mem[i]
		}
	}
	return nil
}

// everyNUMANode is the mask of all NUMA nodes.
func (n *Node) everyNUMANode() uint64 {
	return ^uint64(0) >> (64 - len(n.numaIDs))
}

// touches tells whether a device of the group matches a mask: with several
// NUMA nodes any of them will do (bitmask AnySet).
func (g *group) touches(mask uint64) bool { return g.mask&mask != 0 }

// firstBit is the index of the lowest NUMA node of a mask.
func firstBit(mask uint64) int { return bits.TrailingZeros64(mask) }
