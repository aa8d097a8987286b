package kubelet

import (
	"errors"
	"maps"
	"slices"

	"github.com/numalane/numalane/pkg/topology"
)

// errNotStarted is wrapped while a kubelet answers and its managers do not yet.
var errNotStarted = errors.New("the kubelet has not started its CPU manager yet")

// machine is the host as the kubelet's managers see it: its online CPUs, of
// which those that are not allocatable are reserved.
func machine(h *topology.Host, c *Config, allocatable topology.CPUSet, memory map[int][]topology.Memory) ([]topology.NodeNUMA, error) {
	static := c.CPUManagerPolicy == topology.CPUManagerStatic
	reserved := func(cpu int) bool { return static && !allocatable.Contains(cpu) }
	if static && allocatable.IsEmpty() {
		// A static CPU manager without one CPU to give refuses to start, so
		// this is the moment before it did (cpumanager Start).
		if c.ReservedSystemCPUs.IsEmpty() {
			return nil, errNotStarted
		}
		reserved = c.ReservedSystemCPUs.Contains
	}
	nodes := make([]topology.NodeNUMA, 0, len(h.NUMANodes))
	for i := range h.NUMANodes {
		src := &h.NUMANodes[i]
		n := topology.NodeNUMA{ID: src.ID, Cores: coreGroups(h, src.ID), Distances: maps.Clone(src.Distances)}
		var kept []int
		for _, cpu := range n.CPUs().List() {
			if reserved(cpu) {
				kept = append(kept, cpu)
			}
		}
		n.Reserved = topology.NewCPUSet(kept...)
		if c.MemoryManagerPolicy == topology.MemoryManagerStatic {
			n.Memory = slices.Clone(memory[src.ID])
		}
		nodes = append(nodes, n)
	}
	return nodes, nil
}

func coreGroups(h *topology.Host, node int) []topology.CoreGroup {
	var groups []topology.CoreGroup
	for i := range h.CPUs {
		c := &h.CPUs[i]
		if !c.Online || c.NUMANode != node || c.Core != c.ID {
			continue
		}
		at := slices.IndexFunc(groups, func(g topology.CoreGroup) bool { return g.Socket == c.Socket && g.Cache == c.CacheID })
		if at < 0 {
			at = len(groups)
			groups = append(groups, topology.CoreGroup{Socket: c.Socket, Cache: c.CacheID})
		}
		groups[at].CPUs = append(groups[at].CPUs, c.Threads)
	}
	return groups
}

// numaOf is the NUMA node of each CPU that is on one.
func numaOf(h *topology.Host) map[int]int {
	m := make(map[int]int, len(h.CPUs))
	for i := range h.CPUs {
		if c := &h.CPUs[i]; c.NUMANode != topology.NoNUMANode {
			m[c.ID] = c.NUMANode
		}
	}
	return m
}
