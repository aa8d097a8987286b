package topology_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/numalane/numalane/internal/sysfstest"
	"github.com/numalane/numalane/pkg/topology"
)

func set(t *testing.T, s string) topology.CPUSet {
	t.Helper()
	c, err := topology.ParseCPUSet(s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// sparse has two sockets of SMT cores, NUMA ids with holes, a node without
// CPUs, one without memory, and two CPUs offline.
func sparse() sysfstest.Machine {
	return sysfstest.Machine{
		ThreadsPerCore: 2,
		Offline:        []int{1, 7},
		NUMANodes: []sysfstest.NUMANode{
			{ID: 8, Socket: 1, Cores: 4, L3Caches: 2, Memory: 64 << 30, Distances: map[int]int{0: 40}},
			{ID: 0, Socket: 0, Cores: 2, Memory: 32 << 30, Hugepages: []sysfstest.Hugepages{{Size: 1 << 30, Total: 4, Free: 3}}},
			{ID: 250, Socket: 1, Memory: 16 << 30, Distances: map[int]int{0: 80, 8: 80}},
			{ID: 3, Socket: 0, Cores: 1},
		},
	}
}

func TestNUMANodes(t *testing.T) {
	h := read(t, build(t, sparse()))
	none := []topology.Hugepages{{Size: 2 << 20}, {Size: 1 << 30}}
	// Cores are numbered in the order above: node 8 has the CPUs 0-3 and 7-10.
	want := []topology.NUMANode{
		{
			ID: 0, CPUs: set(t, "4-5,11-12"), Memory: 32 << 30, Distances: map[int]int{0: 10, 3: 12, 8: 21, 250: 21},
			Hugepages: []topology.Hugepages{{Size: 2 << 20}, {Size: 1 << 30, Total: 4, Free: 3}},
		},
		{ID: 3, CPUs: set(t, "6,13"), Distances: map[int]int{0: 12, 3: 10, 8: 21, 250: 21}, Hugepages: none},
		{ID: 8, CPUs: set(t, "0,2-3,8-10"), Memory: 64 << 30, Distances: map[int]int{0: 40, 3: 21, 8: 10, 250: 12}, Hugepages: none},
		{ID: 250, Memory: 16 << 30, Distances: map[int]int{0: 80, 3: 21, 8: 80, 250: 10}, Hugepages: none},
	}
	if diff := cmp.Diff(want, h.NUMANodes); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	checkProblems(t, h)
}

func TestCPUs(t *testing.T) {
	off := func(id int) topology.CPU {
		return topology.CPU{ID: id, NUMANode: topology.NoNUMANode, Socket: -1, Core: -1, CacheID: -1}
	}
	on := func(id, node, socket, core, cache int, threads string) topology.CPU {
		return topology.CPU{ID: id, Online: true, NUMANode: node, Socket: socket, Core: core, CacheID: cache, Threads: set(t, threads)}
	}
	// Node 8's two L3 caches, 0 and 1, are its uncore caches. That of nodes 0
	// and 3 is the whole node's, so the kubelet counts the socket.
	want := []topology.CPU{
		on(0, 8, 1, 0, 0, "0"), off(1), on(2, 8, 1, 2, 1, "2,9"), on(3, 8, 1, 3, 1, "3,10"),
		on(4, 0, 0, 4, 0, "4,11"), on(5, 0, 0, 5, 0, "5,12"), on(6, 3, 0, 6, 0, "6,13"),
		off(7), on(8, 8, 1, 8, 0, "8"), on(9, 8, 1, 2, 1, "2,9"), on(10, 8, 1, 3, 1, "3,10"),
		on(11, 0, 0, 4, 0, "4,11"), on(12, 0, 0, 5, 0, "5,12"), on(13, 3, 0, 6, 0, "6,13"),
	}
	if diff := cmp.Diff(want, read(t, build(t, sparse())).CPUs); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestNoNUMA is a kernel without NUMA support: cAdvisor makes nodes of packages.
func TestNoNUMA(t *testing.T) {
	m := sysfstest.Uniform(2, 2, 2, sysfstest.X710("0000:3b:00.0", 0, 1))
	m.NoNUMA = true
	h := read(t, build(t, m))
	want := []topology.NUMANode{{ID: 0, CPUs: set(t, "0-1,4-5")}, {ID: 1, CPUs: set(t, "2-3,6-7")}}
	if diff := cmp.Diff(want, h.NUMANodes); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	checkProblems(t, h, "devices/system/node: this kernel tells no NUMA nodes")
	if d := device(t, h, "0000:3b:02.0"); d.NUMANode != topology.NoNUMANode || d.Problem != "" {
		t.Errorf("NUMA node %d, problem %q", d.NUMANode, d.Problem)
	}
}

// TestTornMachine breaks the machine's own files, each told by its path.
func TestTornMachine(t *testing.T) {
	tests := []struct {
		name, file, content string // no content: removed
		problems            []string
	}{
		{"no meminfo", "node/node1/meminfo", "", []string{"node1/meminfo: no such file"}},
		{"meminfo of something else", "node/node1/meminfo", "Node 1 MemFree: 3 kB\n", []string{"node1/meminfo: no MemTotal"}},
		{"short distance row", "node/node1/distance", "10\n", []string{"node1/distance: 1 distances for 2 online NUMA nodes"}},
		{"distance no number", "node/node1/distance", "21 x\n", []string{`node1/distance: "x" is not a distance`}},
		{"no core_id", "cpu/cpu2/topology/core_id", "", []string{"cpu2/topology/core_id: no such file"}},
		{"no package", "cpu/cpu2/topology/physical_package_id", "", []string{"cpu2/topology/physical_package_id: no such file"}},
		{"cache level", "cpu/cpu2/cache/index3/level", "L3\n", []string{`cpu2/cache: index3/level: "L3" is not a number`}},
		{"node list", "node/online", "0-", []string{"system/node: online: CPU list"}},
		{"node that is not there", "node/online", "0-2\n", []string{
			"node0/distance: 2 distances for 3", "node1/distance: 2 distances for 3",
			"node2/cpulist: no such file", "node2/distance: no such file", "node2/meminfo: no such file",
		}},
		{"CPU on no node", "node/node1/cpulist", "3\n", []string{"system/node: no NUMA node lists the CPUs 2", "system/node/node1: lists the CPUs 3 and holds the folders of 2-3"}},
		{"CPU on two nodes", "node/node1/cpulist", "1-3\n", []string{"node1/cpulist: the CPUs 1 are in an earlier NUMA node too"}},
		{"online without a folder", "cpu/online", "0-4\n", []string{"cpu/online: CPUs 4 are online and have no folder"}},
		{"hugepages", "node/node0/hugepages/hugepages-2048kB/nr_hugepages", "many\n", []string{`nr_hugepages: "many" is not a number`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := build(t, sysfstest.Uniform(2, 2, 1, sysfstest.X710("0000:3b:00.0", 0, 1)))
			file := filepath.Join(dir, "sys/devices/system", tt.file)
			err := os.Remove(file)
			if err == nil && tt.content != "" {
				err = os.WriteFile(file, []byte(tt.content), 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
			h := read(t, dir)
			problems := tt.problems
			if tt.name == "node list" { // then no NUMA node is known
				problems = append(problems, "0000:3b:00.0/numa_node: NUMA node 0 is not among the machine's")
			}
			checkProblems(t, h, problems...)
			if len(h.CPUs) != 4 || len(h.Devices) != 2 {
				t.Errorf("%d CPUs and %d devices stand, want 4 and 2", len(h.CPUs), len(h.Devices))
			}
		})
	}
}

func TestDeviceOnUnknownNode(t *testing.T) {
	h := read(t, build(t, sysfstest.Uniform(2, 1, 1, sysfstest.X710("0000:3b:00.0", 7, 2))))
	checkProblems(t, h, "0000:3b:00.0/numa_node: NUMA node 7 is not among the machine's")
	if d := device(t, h, "0000:3b:02.0"); d.NUMANode != 7 || d.Problem != "" {
		t.Errorf("NUMA node %d, problem %q; want the number as it is", d.NUMANode, d.Problem)
	}
}

// TestWithPrevious holds that the check is made again once a CPU moved.
func TestWithPrevious(t *testing.T) {
	dir := build(t, sysfstest.Uniform(2, 2, 1))
	previous := read(t, dir)
	if diff := cmp.Diff(previous, read(t, dir, topology.WithPrevious(previous))); diff != "" {
		t.Errorf("nothing changed (-before +after):\n%s", diff)
	}
	if err := os.Remove(filepath.Join(dir, "sys/devices/system/node/node1/cpu3")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "sys/devices/system/cpu/online"), []byte("0-2\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	h := read(t, dir, topology.WithPrevious(previous))
	checkProblems(t, h)
	if got := h.NUMANodes[1].CPUs; !got.Equal(set(t, "2")) {
		t.Errorf("node 1 has the CPUs %s, want 2", got)
	}
	if err := os.Remove(filepath.Join(dir, "sys/devices/system/node/node0/cpu1")); err != nil {
		t.Fatal(err)
	}
	checkProblems(t, read(t, dir, topology.WithPrevious(previous)),
		"system/node/node0: lists the CPUs 0-1 and holds the folders of 0")
}
