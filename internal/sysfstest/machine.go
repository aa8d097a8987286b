package sysfstest

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/numalane/numalane/pkg/topology"
)

// Machine is what a tree is made of.
type Machine struct {
	NUMANodes []NUMANode
	// ThreadsPerCore is 1 when it is 0. As on Linux, the threads of core i of n
	// are the CPUs i, i+n and so on.
	ThreadsPerCore int
	Offline        []int // ids of CPUs that are present and offline
	NICs           []NIC
	// NoNUMA leaves out what a kernel without CONFIG_NUMA does not have.
	NoNUMA bool
	// NoIOMMU leaves out the IOMMU groups. VFIO then makes groups of its own.
	NoIOMMU bool
	Misc    []string // misc devices: vhost-net, tun, rdma_cm
}

// NUMANode is one node. It may have no cores, or no memory.
type NUMANode struct {
	ID        int
	Socket    int
	Cores     int
	L3Caches  int    // L3 caches that its cores share evenly, 1 when 0
	Memory    uint64 // bytes
	Hugepages []Hugepages
	// Distances are by node id. Those left out are 10 to itself, 12 within
	// the socket and 21 beyond.
	Distances map[int]int
}

// Hugepages are the pages of one size.
type Hugepages struct {
	Size        uint64 // bytes: 2 MiB or 1 GiB
	Total, Free int    // pages
}

// CPU is one hardware thread as the tree tells it.
type CPU struct {
	ID       int
	Core     int // lowest CPU id of its core
	CoreID   int // the kernel's core_id, unique in its socket
	Socket   int
	NUMANode int
	L3       int // id of its L3 cache
	Online   bool
}

// Uniform is a machine of like NUMA nodes 0 to nodes-1, each a socket of its
// own with 16 GiB.
func Uniform(nodes, coresPerNode, threadsPerCore int, nics ...NIC) Machine {
	m := Machine{ThreadsPerCore: threadsPerCore, NICs: nics}
	for i := range nodes {
		m.NUMANodes = append(m.NUMANodes, NUMANode{ID: i, Socket: i, Cores: coresPerNode, Memory: 16 << 30})
	}
	return m
}

func (m Machine) threads() int { return max(m.ThreadsPerCore, 1) }

// CPUs are all CPUs, by id.
func (m Machine) CPUs() []CPU {
	cores := 0
	for _, n := range m.NUMANodes {
		cores += n.Cores
	}
	var all []CPU
	core, l3 := 0, 0
	coreIDs := map[int]int{}
	for _, n := range m.NUMANodes {
		caches := max(n.L3Caches, 1)
		for i := range n.Cores {
			for t := range m.threads() {
				id := core + t*cores
				all = append(all, CPU{
					ID: id, Core: core, CoreID: coreIDs[n.Socket], Socket: n.Socket, NUMANode: n.ID,
					L3: l3 + i*caches/n.Cores, Online: !slices.Contains(m.Offline, id),
				})
			}
			coreIDs[n.Socket]++
			core++
		}
		l3 += caches
	}
	slices.SortFunc(all, func(a, b CPU) int { return cmp.Compare(a.ID, b.ID) })
	m.renumberCores(all)
	return all
}

// renumberCores gives cores whose first thread is offline their lowest online CPU.
func (m Machine) renumberCores(all []CPU) {
	first := map[[2]int]int{}
	for i := range all {
		k := [2]int{all[i].Socket, all[i].CoreID}
		if _, ok := first[k]; !ok && all[i].Online {
			first[k] = all[i].ID
		}
	}
	for i := range all {
		if f, ok := first[[2]int{all[i].Socket, all[i].CoreID}]; ok {
			all[i].Core = f
		}
	}
}

func (m Machine) validate() error {
	ids := map[int]bool{}
	for _, n := range m.NUMANodes {
		if n.ID < 0 || ids[n.ID] {
			return fmt.Errorf("NUMA node %d is negative or listed twice", n.ID)
		}
		ids[n.ID] = true
		if n.Cores > 0 && n.Cores < n.L3Caches {
			return fmt.Errorf("NUMA node %d: %d cores share %d L3 caches", n.ID, n.Cores, n.L3Caches)
		}
	}
	known := len(m.CPUs())
	for _, id := range m.Offline {
		if id < 0 || id >= known {
			return fmt.Errorf("offline CPU %d: the machine has %d", id, known)
		}
	}
	taken := map[string]bool{}
	for _, n := range m.NICs {
		addrs, err := n.addresses()
		if err != nil {
			return err
		}
		for _, a := range addrs {
			if taken[a.String()] {
				return fmt.Errorf("NIC %s: %s is taken", n.Address, a)
			}
			taken[a.String()] = true
		}
		for _, b := range n.Bridges {
			if _, err := topology.ParseAddress(b); err != nil {
				return fmt.Errorf("NIC %s: bridge: %w", n.Address, err)
			}
		}
		for _, sfnum := range n.Subfunctions {
			name := n.SubfunctionName(sfnum)
			if taken[name] {
				return fmt.Errorf("NIC %s: subfunction %s is taken", n.Address, name)
			}
			taken[name] = true
		}
	}
	return nil
}

// Distance is the SLIT distance from one node to another.
func (m Machine) Distance(a, b NUMANode) int {
	switch d, ok := a.Distances[b.ID]; {
	case ok:
		return d
	case a.ID == b.ID:
		return 10
	case a.Socket == b.Socket:
		return 12
	}
	return 21
}
