package allocator_test

import (
	"fmt"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/numalane/numalane/pkg/allocator"
	"github.com/numalane/numalane/pkg/topology"
)

// The examples are those of docs/admission.md: two NUMA nodes of 8 CPUs each,
// and 4 VFs on NUMA node 0.

func node(policy string, held ...int) *topology.NodeState {
	s := &topology.NodeState{Topology: topology.NodeTopology{Kubelet: topology.Kubelet{
		Minor: 37, TopologyPolicy: policy, TopologyScope: topology.ScopeContainer, CPUPolicy: topology.CPUManagerStatic,
	}}}
	for id := range 2 {
		n := topology.NodeNUMA{ID: id, Cores: []topology.CoreGroup{{Socket: id, Cache: id}}}
		for cpu := range 8 {
			n.Cores[0].CPUs = append(n.Cores[0].CPUs, topology.NewCPUSet(8*id+cpu))
		}
		s.Topology.NUMANodes = append(s.Topology.NUMANodes, n)
	}
	s.Pools.Pools = []topology.Pool{{Resource: "numalane.io/vf", AllocationPolicy: "packed", Groups: []topology.Group{
		{NUMANodes: []int{0}, PF: "0000:3b:00.0", Total: 4, Healthy: 4},
	}}}
	for id, count := range held {
		var cpus []int
		for cpu := range count {
			cpus = append(cpus, 8*id+cpu)
		}
		s.Held = append(s.Held, topology.Allocation{UID: fmt.Sprint(id), Containers: []topology.ContainerAllocation{
			{Name: "c", CPUs: map[int]topology.CPUSet{id: topology.NewCPUSet(cpus...)}},
		}})
	}
	return s
}

func pod(cpus, vfs int64) *v1.Pod {
	r := v1.ResourceList{
		v1.ResourceCPU:    *resource.NewQuantity(cpus, resource.DecimalSI),
		v1.ResourceMemory: resource.MustParse("1Gi"),
	}
	if vfs > 0 {
		r["numalane.io/vf"] = *resource.NewQuantity(vfs, resource.DecimalSI)
	}
	return &v1.Pod{Spec: v1.PodSpec{Containers: []v1.Container{{Name: "c", Resources: v1.ResourceRequirements{Requests: r, Limits: r}}}}}
}

// answer prints what the kubelet will do.
func answer(s *topology.NodeState, p *v1.Pod) {
	n, err := allocator.Compile(s)
	if err != nil {
		fmt.Println(err)
		return
	}
	outcomes, _ := n.Outcomes(allocator.NewRequest(p), 1)
	o := outcomes[0]
	if !o.Verdict.OK() {
		fmt.Println("refused:", o.Verdict.KubeletReason()+",", o.Verdict.Reason.Code())
		return
	}
	var got []string
	for _, c := range o.Containers {
		got = append(got, "CPUs "+c.CPUs.String())
		for _, d := range c.Devices {
			got = append(got, fmt.Sprintf("%d VFs of NUMA node %d", d.Count, d.NUMANodes[0]))
		}
	}
	fmt.Println(strings.Join(got, ", "))
}

func Example_singleNUMANode() {
	const policy = topology.PolicySingleNUMANode
	answer(node(policy), pod(4, 2))
	answer(node(policy, 6), pod(4, 2))
	answer(node(policy, 6), pod(4, 0))
	answer(node(policy), pod(10, 0))
	// Output:
	// CPUs 0-3, 2 VFs of NUMA node 0
	// refused: TopologyAffinityError, NUMAUnaligned
	// CPUs 8-11
	// refused: TopologyAffinityError, NUMAImpossible
}

func Example_restricted() {
	const policy = topology.PolicyRestricted
	answer(node(policy), pod(10, 0))
	answer(node(policy, 6, 6), pod(4, 0))
	answer(node(policy), pod(10, 2))
	// Output:
	// CPUs 0-9
	// refused: TopologyAffinityError, NUMAUnaligned
	// refused: TopologyAffinityError, NUMAImpossible
}

func Example_bestEffort() {
	const policy = topology.PolicyBestEffort
	answer(node(policy, 6, 6), pod(4, 0))
	answer(node(policy), pod(10, 2))
	answer(node(policy, 8, 6), pod(4, 0))
	// Output:
	// CPUs 6-7,14-15
	// CPUs 0-9, 2 VFs of NUMA node 0
	// refused: UnexpectedAdmissionError, InsufficientCPU
}

func Example_none() {
	const policy = topology.PolicyNone
	answer(node(policy, 6), pod(4, 4))
	answer(node(policy, 8, 6), pod(4, 0))
	// Output:
	// CPUs 6-9, 4 VFs of NUMA node 0
	// refused: UnexpectedAdmissionError, InsufficientCPU
}
