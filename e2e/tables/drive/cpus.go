package drive

import (
	"slices"

	kubetopology "k8s.io/kubernetes/pkg/kubelet/cm/cpumanager/topology"
	"k8s.io/utils/cpuset"

	"github.com/numalane/numalane/pkg/topology"
)

// Whole is a CPU topology with the totals that its CPUs come to. Many of the
// kubelet's tests leave some of these out, which no machine does.
func Whole(t *kubetopology.CPUTopology) *kubetopology.CPUTopology {
	d := t.CPUDetails
	return &kubetopology.CPUTopology{
		NumCPUs: len(d), NumCores: d.Cores().Size(), NumUncoreCache: d.UncoreCaches().Size(),
		NumSockets: d.Sockets().Size(), NumNUMANodes: d.NUMANodes().Size(), CPUDetails: d,
	}
}

// Machine is a CPU topology as a node publishes it, or why no node does.
func Machine(t *kubetopology.CPUTopology) (nodes []topology.NodeNUMA, left string) {
	d := t.CPUDetails
	cores := d.Cores().List()
	lowest := -1
	for _, core := range cores {
		cpus := d.CPUsInCores(core)
		if of := d.KeepOnly(cpus); of.NUMANodes().Size() != 1 || of.Sockets().Size() != 1 || of.UncoreCaches().Size() != 1 {
			return nil, "a core that lies in two NUMA nodes, sockets or caches"
		}
		if first := cpus.List()[0]; first < lowest {
			return nil, "cores in another order than that of their CPUs"
		}
		lowest = cpus.List()[0]
	}
	for _, id := range d.NUMANodes().List() {
		node := topology.NodeNUMA{ID: id}
		for _, core := range cores {
			cpus := d.CPUsInCores(core)
			info := d[cpus.List()[0]]
			if info.NUMANodeID != id {
				continue
			}
			at := slices.IndexFunc(node.Cores, func(g topology.CoreGroup) bool { return g.Socket == info.SocketID && g.Cache == info.UncoreCacheID })
			if at < 0 {
				at = len(node.Cores)
				node.Cores = append(node.Cores, topology.CoreGroup{Socket: info.SocketID, Cache: info.UncoreCacheID})
			}
			node.Cores[at].CPUs = append(node.Cores[at].CPUs, topology.CPUSet{CPUSet: cpus})
		}
		nodes = append(nodes, node)
	}
	return nodes, ""
}

// Reserve notes the CPUs that no container gets exclusively.
func Reserve(nodes []topology.NodeNUMA, reserved cpuset.CPUSet) {
	for i := range nodes {
		if here := nodes[i].CPUs().Intersection(reserved); !here.IsEmpty() {
			nodes[i].Reserved = topology.CPUSet{CPUSet: here}
		}
	}
}

// Hold says that another pod has all CPUs that are neither free nor reserved.
func Hold(nodes []topology.NodeNUMA, free cpuset.CPUSet) []topology.ContainerAllocation {
	held := map[int]topology.CPUSet{}
	for i := range nodes {
		if rest := nodes[i].CPUs().Difference(free).Difference(nodes[i].Reserved.CPUSet); !rest.IsEmpty() {
			held[nodes[i].ID] = topology.CPUSet{CPUSet: rest}
		}
	}
	if len(held) == 0 {
		return nil
	}
	return []topology.ContainerAllocation{{Name: "held", CPUs: held}}
}
