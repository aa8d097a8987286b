package kubelet_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/numalane/numalane/internal/kubelet"
	"github.com/numalane/numalane/pkg/topology"
)

// bytesOf is a memory block of a pod, on NUMA nodes, in bytes.
type bytesOf struct {
	pod   string
	nodes []int
	size  uint64
}

// account reads a memory manager's file of two NUMA nodes of 10 bytes each, of
// which it takes so many to be given away, and gives what is published.
func account(t *testing.T, given [2]uint64, cells [2][]int, assignments [2]int, blocks []bytesOf, live ...string) topology.NodePools {
	t.Helper()
	var state, entries []string
	for id := range 2 {
		state = append(state, fmt.Sprintf(`"%d":{"numberOfAssignments":%d,"cells":%s,"memoryMap":{"memory":{"allocatable":10,"reserved":%d,"free":%d}}}`,
			id, assignments[id], list(cells[id]), given[id], 10-given[id]))
	}
	for _, b := range blocks {
		entries = append(entries, fmt.Sprintf(`"%s":{"c":[{"numaAffinity":%s,"type":"memory","size":%d}]}`, b.pod, list(b.nodes), b.size))
	}
	memory, err := kubelet.ParseMemoryState([]byte(`{"policyName":"Static","machineState":{` + strings.Join(state, ",") + `},"entries":{` + strings.Join(entries, ",") + `},"checksum":0}`))
	if err != nil {
		t.Fatal(err)
	}
	return assemble(t, &kubelet.Snapshot{Memory: memory, Config: kubelet.Config{MemoryManagerPolicy: topology.MemoryManagerStatic}}, live)
}

func list(ids []int) string { return strings.ReplaceAll(fmt.Sprint(ids), " ", ",") }

func assemble(t *testing.T, s *kubelet.Snapshot, live []string) topology.NodePools {
	t.Helper()
	in := &kubelet.Input{Minor: 37, Host: &topology.Host{NUMANodes: []topology.NUMANode{{ID: 0}, {ID: 1}}}}
	for _, uid := range live {
		in.Pods = append(in.Pods, kubelet.Pod{UID: uid, Name: uid})
	}
	s.Active = []kubelet.ActivePod{} // none but those of the API
	state, err := kubelet.Assemble(s, in)
	if err != nil {
		t.Fatal(err)
	}
	return state.Pools
}

func TestMemoryAccounts(t *testing.T) {
	both, first, second := []int{0, 1}, []int{0}, []int{1}
	of := func(node int, free uint64, with ...int) topology.MemoryAccount {
		return topology.MemoryAccount{NUMANode: node, With: with, Free: map[string]uint64{"memory": free}}
	}
	tests := map[string]struct {
		given       [2]uint64
		cells       [2][]int
		assignments [2]int
		blocks      []bytesOf
		live        []string
		want        []topology.MemoryAccount
		otherwise   [][]topology.MemoryAccount
	}{
		"what pods hold tells all": {
			[2]uint64{3, 0}, [2][]int{first, second}, [2]int{1, 0}, []bytesOf{{"a", first, 3}}, []string{"a"}, nil, nil,
		},
		"what an ended pod held is free": {
			[2]uint64{3, 0}, [2][]int{first, second}, [2]int{1, 0}, []bytesOf{{"a", first, 3}}, nil, nil, nil,
		},
		"memory that spans NUMA nodes": {
			[2]uint64{10, 2},
			[2][]int{both, both},
			[2]int{1, 1},
			[]bytesOf{{"a", both, 12}},
			[]string{"a"},
			[]topology.MemoryAccount{of(0, 0, 0, 1), of(1, 8, 0, 1)},
			nil,
		},
		// a took 6 and 2 of node 0, b 2 and 8 of both; a's are given back from node 0 alone.
		"what is given back is taken from the lower NUMA node": {
			[2]uint64{10, 6},
			[2][]int{both, both},
			[2]int{2, 2},
			[]bytesOf{{"a", both, 8}, {"b", both, 8}},
			[]string{"b"},
			[]topology.MemoryAccount{of(0, 8, 0, 1), of(1, 4, 0, 1)},
			nil,
		},
		// Node 0 counts 6 bytes given away, node 1 counts 4. Giving back 5 and then 6
		// leaves less on node 1 than the other way about.
		"in which order what ended pods held is given back": {
			[2]uint64{6, 4},
			[2][]int{first, both},
			[2]int{2, 1},
			[]bytesOf{{"a", both, 5}, {"b", first, 6}},
			nil,
			[]topology.MemoryAccount{of(1, 6)},
			[][]topology.MemoryAccount{nil},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := account(t, tt.given, tt.cells, tt.assignments, tt.blocks, tt.live...)
			if diff := cmp.Diff(tt.want, got.Memory); diff != "" {
				t.Errorf("account (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.otherwise, got.MemoryElse); diff != "" {
				t.Errorf("otherwise (-want +got):\n%s", diff)
			}
		})
	}
}

// TestCPUDeviations: a CPU that two pods hold is given away again when one of
// them ends, while the other holds it still; and what a pod without containers
// holds as a whole is lost.
func TestCPUDeviations(t *testing.T) {
	state, err := kubelet.ParseCPUState([]byte(`{"policyName":"static","defaultCpuSet":"0,7",` +
		`"entries":{"a":{"c":"1-4"},"b":{"c":"4-6"},"whole":{"c":"10-12"},"x":{"c":"12"}},` +
		`"podEntries":{"refused":{"cpuSet":"8-9"},"whole":{"cpuSet":"10-11"}},"checksum":0}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		live []string
		want string
	}{
		{[]string{"a", "b", "x"}, ""},
		{[]string{"a", "x"}, "4"},
		{[]string{"x"}, ""}, // CPU 12 is no part of what "whole" had as a whole
		{nil, ""},
	} {
		s := &kubelet.Snapshot{CPU: state, Config: kubelet.Config{CPUManagerPolicy: topology.CPUManagerStatic}}
		s.Allocatable.CPUs = topology.NewCPUSet(1, 2, 3, 4, 5, 6, 7, 8, 9)
		pools := assemble(t, s, tt.live)
		if got := pools.Contended.String(); got != tt.want {
			t.Errorf("with pods %v: CPUs %q are contended, want %q", tt.live, got, tt.want)
		}
		if got := pools.Leaked.String(); got != "8-9" {
			t.Errorf("with pods %v: CPUs %q are leaked, want 8-9", tt.live, got)
		}
	}
}

// TestKnownPools: a resource without devices is one to the kubelet from its
// registration on.
func TestKnownPools(t *testing.T) {
	in := &kubelet.Input{
		Minor: 37, Host: &topology.Host{NUMANodes: []topology.NUMANode{{ID: 0}}},
		Pools: []kubelet.Pool{
			{Resource: "numalane.io/new"},
			{Resource: "numalane.io/emptied"},
			{Resource: "numalane.io/full", Devices: []kubelet.Device{{ID: "0000:3b:02.0", Healthy: true}}},
		},
	}
	for _, tt := range []struct {
		name string
		s    kubelet.Snapshot
		want []string
	}{
		{
			"registered",
			kubelet.Snapshot{Devices: kubelet.DeviceState{Registered: []string{"numalane.io/emptied", "vendor.example/gone"}}},
			[]string{"numalane.io/emptied", "numalane.io/full", "vendor.example/gone foreign"},
		},
		{
			"checkpoint lost",
			kubelet.Snapshot{Lost: kubelet.Lost{Devices: true}},
			[]string{"numalane.io/emptied", "numalane.io/full", "numalane.io/new"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			state, err := kubelet.Assemble(&tt.s, in)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, p := range state.Pools.Pools {
				name := p.Resource
				if p.Foreign {
					name += " foreign"
				}
				got = append(got, name)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestMovedBetweenPools: after a change of configuration, what is published
// agrees with what the plugin tells the kubelet. A device that is held under the
// name of its old pool is no free one of its new pool, be that old pool gone, and
// be the pod that held it ended: the kubelet has not taken it back yet.
func TestMovedBetweenPools(t *testing.T) {
	const moved, free = "0000:3b:02.0", "0000:3b:02.1"
	devices := []kubelet.Device{{ID: moved, NUMANodes: []int{0}, Healthy: true}, {ID: free, NUMANodes: []int{0}, Healthy: true}}
	in := &kubelet.Input{
		Minor: 37, Host: &topology.Host{NUMANodes: []topology.NUMANode{{ID: 0}}},
		Pools: []kubelet.Pool{{Resource: "numalane.io/new", Devices: devices}},
		Pods:  []kubelet.Pod{{UID: "a", Name: "a"}},
	}
	s := &kubelet.Snapshot{Active: []kubelet.ActivePod{}, Devices: kubelet.DeviceState{
		Held: []kubelet.HeldDevice{{PodUID: "a", Container: "c", Resource: "numalane.io/old", ID: moved, NUMANodes: []int{0}}},
	}}
	inNew := topology.Pool{Resource: "numalane.io/new", Groups: []topology.Group{{NUMANodes: []int{0}, Total: 2, Healthy: 1, Free: 1, Unhealthy: []string{moved}}}}
	inOld := topology.Pool{Resource: "numalane.io/old", Foreign: true, Groups: []topology.Group{{NUMANodes: []int{0}, Total: 1, Unhealthy: []string{moved}}}}
	check := func(when string, want ...topology.Pool) {
		t.Helper()
		state, err := kubelet.Assemble(s, in)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, state.Pools.Pools); d != "" {
			t.Errorf("%s (-want +got):\n%s", when, d)
		}
	}
	check("held", inNew, inOld)
	in.Pods[0].Ended = true
	check("ended", inNew)
	if !devices[0].Healthy {
		t.Error("the pools that came in were changed")
	}
	s.Devices.Held = nil
	check("taken back", topology.Pool{Resource: "numalane.io/new", Groups: []topology.Group{{NUMANodes: []int{0}, Total: 2, Healthy: 2, Free: 2}}})
}
