package allocator

import (
	"fmt"
	"slices"

	"github.com/numalane/numalane/pkg/topology"
)

// cpuTopology is the machine as the CPU manager's static policy sees it
// (cpumanager/topology, CPUTopology).
type cpuTopology struct {
	ids     []int      // CPU id by position, ascending
	numa    []cpuGroup // by NUMA node index; empty for one without CPUs
	sockets []cpuGroup // by id
	caches  []cpuGroup // uncore caches, by id
	cores   []cpuGroup // by their lowest CPU

	perCore, perSocket, perCache int // whole numbers of what may be uneven, as the kubelet counts
	withCPUs                     int // NUMA nodes that have CPUs
	// even: all cores and all sockets are alike. Else the kubelet may take CPUs
	// that are not free, and numbers do not tell what it will come to.
	even bool
	// reservedCores are the reserved CPUs and their siblings
	// (cpumanager, reservedPhysicalCPUs).
	reservedCores cpuBits
	reserved      cpuBits
}

type cpuGroup struct {
	set  cpuBits
	size int
}

func (g *cpuGroup) add(cpu int) {
	g.set.add(cpu)
	g.size++
}

// numaFirst tells whether NUMA nodes stand above sockets in the kubelet's
// order (cpu_assignment.go, newCPUAccumulator).
func (t *cpuTopology) numaFirst() bool { return len(t.sockets) >= t.withCPUs }

func compileCPUs(nodes []topology.NodeNUMA) (*cpuTopology, error) {
	t := &cpuTopology{numa: make([]cpuGroup, len(nodes))}
	home := map[int]int{}
	for i := range nodes {
		for _, g := range nodes[i].Cores {
			for _, core := range g.CPUs {
				for _, cpu := range core.List() {
					if other, twice := home[cpu]; twice {
						return nil, fmt.Errorf("CPU %d is listed in NUMA node %d and in NUMA node %d", cpu, nodes[other].ID, nodes[i].ID)
					}
					home[cpu] = i
					t.ids = append(t.ids, cpu)
				}
			}
		}
	}
	if len(t.ids) > maxCPUs {
		return nil, fmt.Errorf("node has %d CPUs, more than %d", len(t.ids), maxCPUs)
	}
	slices.Sort(t.ids)
	sockets, caches := map[int]*cpuGroup{}, map[int]*cpuGroup{}
	cores := map[int]*cpuGroup{}
	for i := range nodes {
		n := &nodes[i]
		if !n.Reserved.IsSubsetOf(n.CPUs().CPUSet) {
			return nil, fmt.Errorf("NUMA node %d reserves CPUs %s that it does not have", n.ID, n.Reserved)
		}
		for _, g := range n.Cores {
			for _, core := range g.CPUs {
				cpus := core.List()
				for _, cpu := range cpus {
					at, _ := slices.BinarySearch(t.ids, cpu)
					t.numa[i].add(at)
					member(sockets, g.Socket).add(at)
					member(caches, g.Cache).add(at)
					member(cores, cpus[0]).add(at)
					if n.Reserved.Contains(cpu) {
						t.reserved.add(at)
					}
				}
			}
		}
		if t.numa[i].size > 0 {
			t.withCPUs++
		}
	}
	t.sockets, t.caches, t.cores = byID(sockets), byID(caches), byID(cores)
	for i := range t.cores {
		if t.cores[i].set.intersects(&t.reserved) {
			t.reservedCores = t.reservedCores.or(&t.cores[i].set)
		}
	}
	if n := len(t.ids); n > 0 {
		t.perCore, t.perSocket, t.perCache = n/len(t.cores), n/len(t.sockets), n/len(t.caches)
	}
	t.even = alike(t.cores, t.perCore) && alike(t.sockets, t.perSocket)
	return t, nil
}

func alike(groups []cpuGroup, size int) bool {
	return !slices.ContainsFunc(groups, func(g cpuGroup) bool { return g.size != size })
}

func member(groups map[int]*cpuGroup, id int) *cpuGroup {
	g := groups[id]
	if g == nil {
		g = &cpuGroup{}
		groups[id] = g
	}
	return g
}

func byID(groups map[int]*cpuGroup) []cpuGroup {
	ids := make([]int, 0, len(groups))
	for id := range groups {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	out := make([]cpuGroup, len(ids))
	for i, id := range ids {
		out[i] = *groups[id]
	}
	return out
}

// bits are the CPUs of a set that the machine has.
func (t *cpuTopology) bits(set topology.CPUSet) cpuBits {
	var b cpuBits
	for _, cpu := range set.List() {
		if at, ok := slices.BinarySearch(t.ids, cpu); ok {
			b.add(at)
		}
	}
	return b
}

// set is the inverse of bits.
func (t *cpuTopology) set(b *cpuBits) topology.CPUSet {
	var ids []int
	b.each(func(i int) bool {
		ids = append(ids, t.ids[i])
		return true
	})
	return topology.NewCPUSet(ids...)
}

// inMask are the CPUs of the NUMA nodes of a mask.
func (t *cpuTopology) inMask(mask uint64) cpuBits {
	var b cpuBits
	for ; mask != 0; mask &= mask - 1 {
		b = b.or(&t.numa[firstBit(mask)].set)
	}
	return b
}

// onSockets are the CPUs of all sockets that a set of CPUs touches, and how
// many sockets that are.
func (t *cpuTopology) onSockets(cpus *cpuBits) (wide cpuBits, sockets int) {
	for i := range t.sockets {
		if t.sockets[i].set.intersects(cpus) {
			wide = wide.or(&t.sockets[i].set)
			sockets++
		}
	}
	return wide, sockets
}
