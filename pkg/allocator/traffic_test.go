package allocator

import (
	"testing"

	"github.com/numalane/numalane/pkg/topology"
)

// TestTraffic holds what may be promised while pods come and go.
func TestTraffic(t *testing.T) {
	uneven := machine{cores: []int{4, 4}, reserved: []int{4}, vfs: []int{1, 0}}
	even := machine{cores: []int{3, 3}, reserved: []int{0}, vfs: []int{1, 0}}
	wide, lane := asks{cpu: "3"}, asks{cpu: "2", vf: 1}
	coming := func(as ...asks) (out []Move) {
		for i, a := range as {
			out = append(out, Move{Request: NewRequest(podOf(a)), Bound: uint64(i + 1)})
		}
		return out
	}
	many := func(n int, a ...asks) (out []Move) {
		for i := range n {
			out = append(out, coming(a[i%len(a)])...)
		}
		return out
	}
	holds := func(numa int, cpus ...int) *topology.Allocation {
		return &topology.Allocation{Containers: []topology.ContainerAllocation{{Name: "c0", CPUs: map[int]topology.CPUSet{numa: topology.NewCPUSet(cpus...)}}}}
	}
	one := NewRequest(podOf(asks{cpu: "1"}))
	tests := []struct {
		name    string
		machine machine
		moves   []Move
		pod     asks
		want    Reason
	}{
		{"nobody comes", uneven, nil, wide, Admitted},
		{"one order refuses", uneven, coming(wide), lane, NUMAUnaligned},
		{"the same, asked the other way round", uneven, coming(lane), wide, NUMAUnaligned},
		{"less room, and every order is fine", even, coming(wide), lane, Admitted},
		{"equal pods have one order", machine{cores: []int{32, 32}, vfs: []int{16, 16}}, many(15, asks{cpu: "4", vf: 2}), asks{cpu: "4", vf: 2}, Admitted},
		{"one too many", machine{cores: []int{4, 4}}, many(2, asks{cpu: "4"}), asks{cpu: "4"}, InsufficientCPU},
		{
			"more ways than can be followed",
			machine{cores: []int{64, 64, 64, 64}},
			coming(asks{cpu: "33"}, asks{cpu: "17"}, asks{cpu: "31"}, asks{cpu: "5"}, asks{cpu: "9"}, asks{cpu: "13"}, asks{cpu: "29"}, asks{cpu: "23"}),
			asks{cpu: "7"},
			InFlux,
		},
		{
			// The pod of 3 CPUs takes NUMA node 0 if the other had gone before, else 1.
			"one that has ended may have been met",
			uneven,
			[]Move{
				{Request: one, Held: holds(0, 0, 1), Bound: 1, Settled: 2, Gone: 4},
				{Request: NewRequest(podOf(wide)), Bound: 3},
			},
			lane, NUMAUnaligned,
		},
		{
			"one that had ended before was not met",
			machine{cores: []int{4, 4}, reserved: []int{4}, vfs: []int{0, 1}},
			[]Move{
				{Request: one, Held: holds(0, 0, 1), Bound: 1, Settled: 2, Gone: 3},
				{Request: NewRequest(podOf(wide)), Bound: 4},
			},
			lane, Admitted,
		},
		{
			"one that is being deleted may go before the other comes",
			machine{cores: []int{4, 4}, vfs: []int{1, 0}},
			[]Move{
				{Request: one, Held: holds(0, 0, 1), Bound: 1, Settled: 2, Leaving: true},
				{Request: NewRequest(podOf(wide)), Bound: 3},
			},
			lane, NUMAUnaligned,
		},
		{
			"a pod of one container is admitted whoever goes",
			uneven,
			[]Move{{Request: one, Held: holds(0, 0, 1), Bound: 1, Settled: 2, Leaving: true}},
			lane, Admitted,
		},
		{
			// It took NUMA node 0; the wide one came before or after it.
			"one that was not there when another came",
			uneven,
			[]Move{
				{Request: one, Held: holds(0, 0, 1), Bound: 2, Settled: 3},
				{Request: NewRequest(podOf(wide)), Bound: 1},
			},
			asks{cpu: "2"},
			Admitted,
		},
		{
			"a pod that nobody asked about and that has no place bars nobody",
			machine{cores: []int{4, 4}},
			[]Move{{Request: NewRequest(podOf(asks{cpu: "5"})), Bound: 1, Foreign: true}},
			asks{cpu: "4"},
			Admitted,
		},
		{
			"a promise that cannot be kept shows that not all is known",
			machine{cores: []int{4, 4}},
			coming(asks{cpu: "5"}),
			asks{cpu: "4"},
			InFlux,
		},
		{
			"what contradicts itself is not trusted",
			machine{cores: []int{4}, memory: []uint64{4 << 20}},
			[]Move{
				{Request: one, Held: holdsMemoryOf(3 << 20), Bound: 1, Settled: 2},
				{Request: one, Held: holdsMemoryOf(3 << 20), Bound: 1, Settled: 4},
				{Request: one, Bound: 3},
			},
			asks{cpu: "1"},
			InFlux,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			traffic, err := CompileTraffic(tt.machine.state(), tt.moves)
			if err != nil {
				t.Fatal(err)
			}
			if got := traffic.Admit(NewRequest(podOf(tt.pod))); got.Reason != tt.want {
				t.Errorf("%s, want %s", got.Reason.Code(), tt.want.Code())
			}
		})
	}
}

func holdsMemoryOf(size uint64) *topology.Allocation {
	return &topology.Allocation{Containers: []topology.ContainerAllocation{{Name: "c0", Memory: []topology.MemoryAllocation{{Type: "memory", NUMANodes: []int{0}, Size: size}}}}}
}

// TestForgotten: who has ended is forgotten as soon as nobody's place depends on it.
func TestForgotten(t *testing.T) {
	r := NewRequest(podOf(asks{cpu: "1"}))
	tests := []struct {
		name  string
		moves []Move
		want  []bool
	}{
		{"nobody else", []Move{{Request: r, Bound: 1, Gone: 2}}, []bool{true}},
		{"one that came later", []Move{{Request: r, Bound: 1, Gone: 2}, {Request: r, Bound: 3}}, []bool{true, false}},
		{"one that came before", []Move{{Request: r, Bound: 1, Gone: 4}, {Request: r, Bound: 3}}, []bool{false, false}},
		{"through another that has ended", []Move{{Request: r, Bound: 1, Gone: 3}, {Request: r, Bound: 2, Gone: 5}, {Request: r, Bound: 4}}, []bool{false, false, false}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			traffic, err := CompileTraffic(machine{cores: []int{4, 4}}.state(), tt.moves)
			if err != nil {
				t.Fatal(err)
			}
			for i, want := range tt.want {
				if got := traffic.Forgotten(i); got != want {
					t.Errorf("move %d forgotten: %v, want %v", i, got, want)
				}
			}
		})
	}
}
