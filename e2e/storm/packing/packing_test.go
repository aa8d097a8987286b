package packing

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/cpuset"

	"github.com/numalane/numalane/pkg/allocator"
	"github.com/numalane/numalane/pkg/topology"
)

const vf = "numalane.io/vf"

// node is one of single-numa-node with so many CPUs and VFs on NUMA nodes 0 and 1.
func node(t *testing.T, cpus, vfs [2]int) *allocator.Node {
	t.Helper()
	s := &topology.NodeState{
		Topology: topology.NodeTopology{Kubelet: topology.Kubelet{
			Minor: 37, TopologyPolicy: topology.PolicySingleNUMANode, TopologyScope: topology.ScopeContainer, CPUPolicy: topology.CPUManagerStatic,
		}},
		Pools: topology.NodePools{Pools: []topology.Pool{{Resource: vf}}},
	}
	next := 0
	for id := range 2 {
		n := topology.NodeNUMA{ID: id, Cores: []topology.CoreGroup{{Socket: id, Cache: id}}}
		for range cpus[id] {
			n.Cores[0].CPUs = append(n.Cores[0].CPUs, topology.CPUSet{CPUSet: cpuset.New(next)})
			next++
		}
		s.Topology.NUMANodes = append(s.Topology.NUMANodes, n)
		s.Pools.Pools[0].Groups = append(s.Pools.Pools[0].Groups, topology.Group{NUMANodes: []int{id}, PF: "pf", Total: vfs[id], Healthy: vfs[id]})
	}
	compiled, err := allocator.Compile(s)
	if err != nil {
		t.Fatal(err)
	}
	return compiled
}

func kind(cpus, vfs, count int) Kind {
	rl := corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewQuantity(int64(cpus), resource.DecimalSI),
		corev1.ResourceMemory: resource.MustParse("1Mi"),
		vf:                    *resource.NewQuantity(int64(vfs), resource.DecimalSI),
	}
	p := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Resources: corev1.ResourceRequirements{Requests: rl, Limits: rl}}}}}
	return Kind{Request: allocator.NewRequest(p), Value: vfs, Count: count}
}

func TestMost(t *testing.T) {
	tests := map[string]struct {
		nodes []*allocator.Node
		kinds []Kind
		value int
		want  []int
	}{
		"no node": {nil, []Kind{kind(1, 1, 5)}, 0, []int{0}},
		// In all there are 6 CPUs and 4 VFs; together with VFs only 3 CPUs.
		"what is apart does not add up": {[]*allocator.Node{node(t, [2]int{3, 3}, [2]int{4, 0})}, []Kind{kind(2, 1, 5)}, 1, []int{1}},
		"counts bind":                   {[]*allocator.Node{node(t, [2]int{8, 8}, [2]int{4, 4})}, []Kind{kind(1, 1, 3)}, 3, []int{3}},
		// A large one a NUMA node would leave one VF each without a CPU.
		"small ones fill what large ones cannot": {[]*allocator.Node{node(t, [2]int{3, 3}, [2]int{3, 3})}, []Kind{kind(3, 2, 2), kind(1, 1, 9)}, 6, []int{0, 6}},
		// The small ones are scarce: the best is one node of theirs and one of the other's.
		"over two nodes": {
			[]*allocator.Node{node(t, [2]int{3, 0}, [2]int{3, 0}), node(t, [2]int{3, 0}, [2]int{3, 0})},
			[]Kind{kind(3, 2, 2), kind(1, 1, 3)},
			5,
			[]int{1, 3},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := Most(tt.nodes, tt.kinds)
			if got.Value != tt.value || got.Cut {
				t.Errorf("value %d, want %d; cut %t", got.Value, tt.value, got.Cut)
			}
			if diff := cmp.Diff(tt.want, got.Counts); diff != "" {
				t.Errorf("counts (-want +got):\n%s", diff)
			}
		})
	}
}

// force tries every kind on every node, again and again, and knows nothing of
// mixes, orders or counts.
func force(nodes []*allocator.Node, kinds []Kind) int {
	best := 0
	for k := range kinds {
		if kinds[k].Count == 0 {
			continue
		}
		kinds[k].Count--
		for i, n := range nodes {
			outcomes, complete := n.Outcomes(kinds[k].Request, 100)
			if !complete {
				panic("too many outcomes for a tiny case")
			}
			for j := range outcomes {
				if outcomes[j].Verdict.OK() {
					nodes[i] = outcomes[j].After
					best = max(best, kinds[k].Value+force(nodes, kinds))
				}
			}
			nodes[i] = n
		}
		kinds[k].Count++
	}
	return best
}

func TestMostAgainstForce(t *testing.T) {
	dice := rand.New(rand.NewPCG(4, 4))
	const cases = 1000
	better := 0 // than the first that comes to mind
	for range cases {
		var nodes []*allocator.Node
		var text string
		for range 1 + dice.IntN(2) {
			cpus, vfs := [2]int{1 + dice.IntN(4), 1 + dice.IntN(4)}, [2]int{dice.IntN(4), dice.IntN(4)}
			nodes = append(nodes, node(t, cpus, vfs))
			text += fmt.Sprintf("CPUs %v, VFs %v; ", cpus, vfs)
		}
		var kinds []Kind
		for range 1 + dice.IntN(2) {
			cpus, vfs, count := 1+dice.IntN(3), 1+dice.IntN(2), 1+dice.IntN(3)
			kinds = append(kinds, kind(cpus, vfs, count))
			text += fmt.Sprintf("%d of %d CPUs and %d VFs; ", count, cpus, vfs)
		}
		got := Most(nodes, kinds)
		want := force(nodes, kinds)
		if got.Value != want || got.Cut {
			t.Fatalf("%s: value %d (%v), brute force reaches %d; cut %t", text, got.Value, got.Counts, want, got.Cut)
		}
		if got.Value > first(nodes, kinds) {
			better++
		}
	}
	if better < cases/50 {
		t.Errorf("only in %d of %d cases it takes a search: they are too easy", better, cases)
	}
}

// first places each pod on the first node that admits it.
func first(nodes []*allocator.Node, kinds []Kind) int {
	nodes, value := slices.Clone(nodes), 0
	for _, k := range kinds {
		for range k.Count {
			for i, n := range nodes {
				if after, v := n.After(k.Request); v.OK() {
					nodes[i] = after
					value += k.Value
					break
				}
			}
		}
	}
	return value
}
