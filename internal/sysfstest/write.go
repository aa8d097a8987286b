package sysfstest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"k8s.io/utils/cpuset"
)

const (
	cpuDir  = "sys/devices/system/cpu"
	nodeDir = "sys/devices/system/node"
)

// Write makes dir/sys and dir/proc, which must not be there yet.
func (m Machine) Write(dir string) error {
	if err := m.validate(); err != nil {
		return fmt.Errorf("machine: %w", err)
	}
	t := newTree(dir)
	cpus := m.CPUs()
	m.writeCPUs(t, cpus)
	if !m.NoNUMA {
		m.writeNodes(t, cpus)
	}
	m.writeProc(t, cpus)
	t.mkdir("sys/bus/pci/devices")
	for _, n := range m.NICs {
		m.writeNIC(t, n)
	}
	for _, name := range m.Misc {
		t.mkdir("sys/devices/virtual/misc/" + name)
		t.link("sys/class/misc/"+name, "sys/devices/virtual/misc/"+name)
	}
	if t.err != nil {
		return fmt.Errorf("machine: %w", t.err)
	}
	return nil
}

// set are the ids of the CPUs that match.
func set(cpus []CPU, match func(CPU) bool) cpuset.CPUSet {
	var ids []int
	for _, c := range cpus {
		if match(c) {
			ids = append(ids, c.ID)
		}
	}
	return cpuset.New(ids...)
}

// mask is the kernel's mask form, in words of 32 bits.
func mask(s cpuset.CPUSet, cpus int) string {
	words := make([]uint32, max(1, (cpus+31)/32))
	for _, id := range s.UnsortedList() {
		words[id/32] |= 1 << (id % 32)
	}
	var b strings.Builder
	for i, w := range slices.Backward(words) {
		if i == len(words)-1 {
			fmt.Fprintf(&b, "%x", w)
		} else {
			fmt.Fprintf(&b, ",%08x", w)
		}
	}
	return b.String()
}

func (m Machine) writeCPUs(t *tree, cpus []CPU) {
	all := set(cpus, func(CPU) bool { return true })
	online := set(cpus, func(c CPU) bool { return c.Online })
	t.attrs(cpuDir, "online", online.String(), "offline", all.Difference(online).String(),
		"possible", all.String(), "present", all.String())
	cores, packages, caches := map[int][]int{}, map[int][]int{}, map[int][]int{}
	for _, c := range cpus {
		if c.Online {
			cores[c.Core] = append(cores[c.Core], c.ID)
			packages[c.Socket] = append(packages[c.Socket], c.ID)
			caches[c.L3] = append(caches[c.L3], c.ID)
		}
	}
	for _, c := range cpus {
		dir := fmt.Sprintf("%s/cpu%d", cpuDir, c.ID)
		online := "1"
		if !c.Online {
			online = "0"
		}
		if c.ID != 0 { // the boot CPU cannot go offline
			t.file(dir+"/online", "%s", online)
		} else {
			t.mkdir(dir)
		}
		if !m.NoNUMA {
			t.link(fmt.Sprintf("%s/node%d", dir, c.NUMANode), fmt.Sprintf("%s/node%d", nodeDir, c.NUMANode))
		}
		if !c.Online {
			continue
		}
		threads, pkg, l3 := cpuset.New(cores[c.Core]...), cpuset.New(packages[c.Socket]...), cpuset.New(caches[c.L3]...)
		t.attrs(dir+"/topology",
			"core_id", fmt.Sprint(c.CoreID), "physical_package_id", fmt.Sprint(c.Socket), "die_id", "0",
			"thread_siblings_list", threads.String(), "thread_siblings", mask(threads, len(cpus)),
			"core_cpus_list", threads.String(), "core_siblings_list", pkg.String(), "package_cpus_list", pkg.String())
		for i, cache := range []struct {
			level      int
			kind, size string
			id         int
			shared     cpuset.CPUSet
		}{
			{1, "Data", "32K", c.Core, threads},
			{1, "Instruction", "32K", c.Core, threads},
			{2, "Unified", "1024K", c.Core, threads},
			{3, "Unified", "32768K", c.L3, l3},
		} {
			t.attrs(fmt.Sprintf("%s/cache/index%d", dir, i),
				"level", fmt.Sprint(cache.level), "type", cache.kind, "size", cache.size, "id", fmt.Sprint(cache.id),
				"shared_cpu_list", cache.shared.String(), "shared_cpu_map", mask(cache.shared, len(cpus)))
		}
	}
}

func (m Machine) writeNodes(t *tree, cpus []CPU) {
	nodes := slices.Clone(m.NUMANodes)
	slices.SortFunc(nodes, func(a, b NUMANode) int { return cmp.Compare(a.ID, b.ID) })
	var ids, withCPU, withMemory []int
	for _, n := range nodes {
		ids = append(ids, n.ID)
		if n.Cores > 0 {
			withCPU = append(withCPU, n.ID)
		}
		if n.Memory > 0 {
			withMemory = append(withMemory, n.ID)
		}
	}
	list := cpuset.New(ids...).String()
	t.attrs(nodeDir, "online", list, "possible", list,
		"has_cpu", cpuset.New(withCPU...).String(), "has_memory", cpuset.New(withMemory...).String())
	for _, n := range nodes {
		dir := fmt.Sprintf("%s/node%d", nodeDir, n.ID)
		mine := set(cpus, func(c CPU) bool { return c.NUMANode == n.ID && c.Online })
		var row []string
		for _, o := range nodes {
			row = append(row, fmt.Sprint(m.Distance(n, o)))
		}
		t.attrs(dir, "cpulist", mine.String(), "cpumap", mask(mine, len(cpus)), "distance", strings.Join(row, " "),
			"meminfo", fmt.Sprintf("Node %[1]d MemTotal:       %8[2]d kB\nNode %[1]d MemFree:        %8[2]d kB", n.ID, n.Memory>>10))
		for _, h := range n.pools() {
			t.attrs(fmt.Sprintf("%s/hugepages/hugepages-%dkB", dir, h.Size>>10),
				"nr_hugepages", fmt.Sprint(h.Total), "free_hugepages", fmt.Sprint(h.Free), "surplus_hugepages", "0")
		}
		for _, c := range cpus {
			if c.NUMANode == n.ID {
				t.link(fmt.Sprintf("%s/cpu%d", dir, c.ID), fmt.Sprintf("%s/cpu%d", cpuDir, c.ID))
			}
		}
	}
}

// pools are the node's huge pages and empty pools of the other usual sizes.
func (n NUMANode) pools() []Hugepages {
	all := slices.Clone(n.Hugepages)
	for _, size := range []uint64{2 << 20, 1 << 30} {
		if !slices.ContainsFunc(all, func(h Hugepages) bool { return h.Size == size }) {
			all = append(all, Hugepages{Size: size})
		}
	}
	return all
}

func (m Machine) writeProc(t *tree, cpus []CPU) {
	var total, huge uint64
	var pages, free int
	for _, n := range m.NUMANodes {
		total += n.Memory
		for _, h := range n.Hugepages {
			huge += h.Size * uint64(h.Total)
			if h.Size == 2<<20 {
				pages, free = pages+h.Total, free+h.Free
			}
		}
	}
	t.file("proc/meminfo", "MemTotal:       %8[1]d kB\nMemFree:        %8[1]d kB\nMemAvailable:   %8[1]d kB\n"+
		"HugePages_Total: %7[2]d\nHugePages_Free:  %7[3]d\nHugePages_Rsvd:        0\nHugePages_Surp:        0\n"+
		"Hugepagesize:       2048 kB\nHugetlb:        %8[4]d kB", total>>10, pages, free, huge>>10)
	var b strings.Builder
	for _, c := range cpus {
		if c.Online {
			fmt.Fprintf(&b, "processor\t: %d\nvendor_id\t: GenuineIntel\nmodel name\t: Synthetic CPU\nphysical id\t: %d\ncore id\t\t: %d\n\n",
				c.ID, c.Socket, c.CoreID)
		}
	}
	t.file("proc/cpuinfo", "%s", strings.TrimSuffix(b.String(), "\n"))
}
