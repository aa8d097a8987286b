package packing

import (
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
			[]Kind{kind(3, 2, 2), kind(1, 1, 3)}, 5, []int{1, 3},
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
