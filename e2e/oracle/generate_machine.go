package oracle

import (
	"fmt"
	"slices"

	"github.com/numalane/numalane/internal/sysfstest"
	"github.com/numalane/numalane/pkg/topology"
)

const (
	// maxCPUs keeps trees small: to write and to read one is most of what a
	// scenario costs beside its cases.
	maxCPUs = 48
	gib     = 1 << 30
	mib     = 1 << 20
)

// machine is one of which the kubelet's managers see every kind: few or many
// NUMA nodes, with holes in their ids, of unlike size, without CPUs or memory.
func (d dice) machine() (m sysfstest.Machine, packages map[int]int) {
	count := 1 + d.weighted(10, 34, 14, 24, 4, 5, 3, 6)
	m.ThreadsPerCore = []int{1, 2, 4}[d.weighted(35, 50, 15)]
	most := max(1, min(16, maxCPUs/(count*m.ThreadsPerCore)))
	like, cores := d.chance(55), d.between(min(2, most), most)
	caches := []int{1, 2, 4}[d.weighted(55, 30, 15)]
	memory := uint64(pick(d, 2, 3, 4, 8, 16)) * gib
	sizes := d.hugepageSizes()
	ids, sockets := d.nodeIDs(count), d.sockets(count)
	for i := range count {
		n := sysfstest.NUMANode{ID: ids[i], Socket: sockets[i], Cores: cores, Memory: memory}
		if !like {
			n.Cores = d.between(1, most)
			n.Memory = uint64(d.between(2, 16))*gib + uint64(d.between(0, 4000))*(4<<10)
		}
		n.L3Caches = min(caches, n.Cores)
		for _, size := range sizes {
			pages := d.between(0, int(n.Memory/3/size))
			if size == 2*mib {
				pages = min(pages, d.between(0, 128))
			}
			n.Hugepages = append(n.Hugepages, sysfstest.Hugepages{Size: size, Total: pages, Free: pages})
		}
		m.NUMANodes = append(m.NUMANodes, n)
	}
	d.poorNodes(&m)
	if d.chance(50) {
		d.distances(&m)
	}
	d.offline(&m)
	packages = d.packages(&m)
	m.NICs = d.nics(ids)
	return m, packages
}

// nodeIDs are ascending, and have holes at times.
func (d dice) nodeIDs(count int) []int {
	ids := make([]int, count)
	next := 0
	sparse := d.chance(25)
	for i := range ids {
		if sparse {
			next += d.weighted(60, 20, 10, 5, 0, 0, 5)
		}
		ids[i] = next
		next++
	}
	return ids
}

// sockets gives each NUMA node its socket: one each, all on one, or some on each.
func (d dice) sockets(count int) []int {
	sockets := make([]int, count)
	per := []int{1, count, 2, d.between(1, count)}[d.weighted(45, 15, 30, 10)]
	for i := range sockets {
		sockets[i] = i / per
	}
	return sockets
}

func (d dice) hugepageSizes() []uint64 {
	switch d.weighted(60, 12, 14, 14) {
	case 1:
		return []uint64{2 * mib}
	case 2:
		return []uint64{gib}
	case 3:
		return []uint64{2 * mib, gib}
	default:
		return nil
	}
}

// poorNodes takes the CPUs or the memory from a NUMA node.
func (d dice) poorNodes(m *sysfstest.Machine) {
	if len(m.NUMANodes) < 2 {
		return
	}
	if d.chance(8) {
		n := &m.NUMANodes[d.IntN(len(m.NUMANodes))]
		n.Cores, n.L3Caches = 0, 0
	}
	if d.chance(8) {
		n := &m.NUMANodes[d.IntN(len(m.NUMANodes))]
		n.Memory, n.Hugepages = 0, nil
	}
}

func (d dice) distances(m *sysfstest.Machine) {
	even := d.chance(60)
	for i := range m.NUMANodes {
		a := &m.NUMANodes[i]
		a.Distances = map[int]int{a.ID: 10}
		for j := range m.NUMANodes {
			b := &m.NUMANodes[j]
			switch {
			case i == j:
			case even && j < i:
				a.Distances[b.ID] = b.Distances[a.ID]
			default:
				a.Distances[b.ID] = pick(d, 11, 12, 16, 20, 21, 31)
			}
		}
	}
}

func (d dice) offline(m *sysfstest.Machine) {
	if !d.chance(12) {
		return
	}
	cpus := m.CPUs()
	for range d.between(1, max(1, len(cpus)/6)) {
		// The boot CPU cannot go offline.
		if id := d.IntN(len(cpus)); id != 0 && !slices.Contains(m.Offline, id) {
			m.Offline = append(m.Offline, id)
		}
	}
	slices.Sort(m.Offline)
}

// packages puts some cores of a NUMA node on another package.
func (d dice) packages(m *sysfstest.Machine) map[int]int {
	if !d.chance(6) {
		return nil
	}
	n := m.NUMANodes[d.IntN(len(m.NUMANodes))]
	cut := d.between(1, max(1, n.Cores-1))
	moved, cores := map[int]int{}, map[int]bool{}
	for _, c := range m.CPUs() {
		if c.NUMANode == n.ID && (cores[c.CoreID] || len(cores) < cut) {
			cores[c.CoreID] = true
			moved[c.ID] = 100 + n.Socket
		}
	}
	if len(moved) == 0 {
		return nil
	}
	return moved
}

// nics are PFs on NUMA nodes, often two on one, or on none that they tell.
func (d dice) nics(ids []int) []sysfstest.NIC {
	var all []sysfstest.NIC
	last := 0
	// One PF a NUMA node: what one lacks is then to be had of several others.
	everywhere := d.chance(30)
	count := d.weighted(8, 18, 26, 18, 14, 8, 5, 3)
	if everywhere {
		count = len(ids)
	}
	for i := range count {
		switch {
		case everywhere:
			last = ids[i]
		case i == 0 || d.chance(60):
			last = ids[d.IntN(len(ids))]
		}
		numa := last
		if d.chance(8) {
			numa = -1
		}
		address := fmt.Sprintf("0000:%02x:00.0", 0x18+0x20*i)
		model := pick(d, sysfstest.X710, sysfstest.E810, sysfstest.ConnectX5)
		all = append(all, model(address, numa, 1+d.weighted(4, 10, 20, 20, 10, 15, 10, 11)))
	}
	return all
}

// bridges puts PFs below root ports of their own, or several below one, with a
// switch in between or without.
func (d dice) bridges(nics []sysfstest.NIC) map[string][]topology.Address {
	all := map[string][]topology.Address{}
	for _, n := range nics {
		root := topology.Address{Device: uint8(d.between(1, 3))}
		above := []topology.Address{root}
		for depth := range d.weighted(50, 35, 15) {
			above = slices.Insert(above, 0, topology.Address{Bus: uint8(depth + 1), Device: uint8(d.between(0, 1)), Function: root.Device})
		}
		if d.chance(90) {
			all[n.Address] = above
		}
	}
	return all
}
