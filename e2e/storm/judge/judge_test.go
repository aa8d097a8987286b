package judge

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/cpuset"

	"github.com/numalane/numalane/e2e/storm/journal"
	"github.com/numalane/numalane/pkg/topology"
)

const vf = "numalane.io/vf"

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// at is a moment of the API; one version is a second.
func at(version int) journal.Moment {
	if version == 0 {
		return journal.Moment{}
	}
	return journal.Moment{Version: uint64(version), At: noon.Add(time.Duration(version) * time.Second)}
}

// life is when things happen to a pod; 0 is never.
type life struct{ bound, acked, deleting, ended int }

func pod(name string, cpus, vfs int64, l life, held *topology.ContainerAllocation) journal.Pod {
	rl := corev1.ResourceList{
		corev1.ResourceCPU: *resource.NewQuantity(cpus, resource.DecimalSI), corev1.ResourceMemory: resource.MustParse("1Mi"),
	}
	if vfs > 0 {
		rl[vf] = *resource.NewQuantity(vfs, resource.DecimalSI)
	}
	p := journal.Pod{
		UID: types.UID(name), Name: name, Node: "n", Created: at(1), Bound: at(l.bound), Deleting: at(l.deleting), Ended: at(l.ended),
		Spec: &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Resources: corev1.ResourceRequirements{Requests: rl, Limits: rl}}}},
		},
	}
	if held != nil {
		held.Name = "app"
		p.Admitted = at(l.acked)
		p.Acks = []journal.Ack{{Moment: at(l.acked), Text: "told", Allocation: &topology.Allocation{UID: name, Containers: []topology.ContainerAllocation{*held}}}}
	}
	return p
}

// cpus are held ones of one NUMA node.
func cpus(numa int, ids ...int) *topology.ContainerAllocation {
	return &topology.ContainerAllocation{CPUs: map[int]topology.CPUSet{numa: {CPUSet: cpuset.New(ids...)}}}
}

// node has CPUs 1 to 4 on NUMA node 0, 5 to 7 on NUMA node 1, and a VF on the first.
func node(t *testing.T) journal.Node {
	t.Helper()
	top := topology.NodeTopology{Kubelet: topology.Kubelet{
		Minor: 37, TopologyPolicy: topology.PolicySingleNUMANode, TopologyScope: topology.ScopeContainer, CPUPolicy: topology.CPUManagerStatic,
	}}
	for id, ids := range [][]int{{0, 1, 2, 3, 4}, {5, 6, 7}} {
		n := topology.NodeNUMA{ID: id, Cores: []topology.CoreGroup{{Socket: id, Cache: id}}}
		if id == 0 {
			n.Reserved = topology.CPUSet{CPUSet: cpuset.New(0)}
		}
		for _, cpu := range ids {
			n.Cores[0].CPUs = append(n.Cores[0].CPUs, topology.CPUSet{CPUSet: cpuset.New(cpu)})
		}
		top.NUMANodes = append(top.NUMANodes, n)
	}
	text, err := topology.Encode(top)
	if err != nil {
		t.Fatal(err)
	}
	pools, err := topology.Encode(topology.NodePools{Pools: []topology.Pool{{Resource: vf, Groups: []topology.Group{{NUMANodes: []int{0}, Total: 1, Healthy: 1}}}}})
	if err != nil {
		t.Fatal(err)
	}
	return journal.Node{Name: "n", Published: []journal.Publication{{Moment: at(1), Topology: text, Pools: pools, Allocatable: corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("7"), corev1.ResourceMemory: resource.MustParse("1Gi"),
		corev1.ResourcePods: resource.MustParse("10"), vf: resource.MustParse("1"),
	}}}}
}

func TestOf(t *testing.T) {
	// The example of DESIGN.md: a pod of 3 CPUs takes NUMA node 0 where 4 are
	// free, and keeps one of 2 CPUs and the VF out; with 2 free it goes to
	// NUMA node 1, and both fit. keeper is what makes it 2.
	keeper := func(l life) journal.Pod { return pod("keeper", 2, 0, l, cpus(0, 1, 2)) }
	three := pod("three", 3, 0, life{bound: 9}, nil)
	foreign := func(p journal.Pod) journal.Pod {
		p.Foreign = true
		return p
	}
	tests := map[string]struct {
		pods    []journal.Pod // beside the victim, which is bound at 10 and refused at 12
		outages []journal.Outage
		victim  func(*journal.Pod)
		want    Class
		why     string // a part of it
	}{
		"nothing explains it":           {want: Refused},
		"no room for it when bound":     {pods: []journal.Pod{pod("a", 4, 0, life{bound: 2, acked: 3}, cpus(0, 1, 2, 3, 4))}, want: Refused, why: "should not have been bound"},
		"an order keeps it out":         {pods: []journal.Pod{three}, want: Refused, why: "should not have been bound"},
		"a pod ended unannounced":       {pods: []journal.Pod{three, keeper(life{bound: 2, acked: 3, ended: 11})}, want: Outrun},
		"and was seen to a little late": {pods: []journal.Pod{three, keeper(life{bound: 2, acked: 3, ended: 14})}, want: Outrun},
		"a pod ended long after":        {pods: []journal.Pod{three, keeper(life{bound: 2, acked: 3, ended: 20})}, want: Refused},
		"a pod had just gone":           {pods: []journal.Pod{pod("b", 4, 0, life{bound: 2, acked: 3, ended: 9}, cpus(0, 1, 2, 3, 4))}, want: Refused, why: "a moment before"},
		"its end was announced":         {pods: []journal.Pod{three, keeper(life{bound: 2, acked: 3, deleting: 9, ended: 11})}, want: Refused, why: "may be gone"},
		"announced after the binding":   {pods: []journal.Pod{three, keeper(life{bound: 2, acked: 3, deleting: 11, ended: 12})}, want: Outrun},
		"an end that changes nothing":   {pods: []journal.Pod{pod("b", 2, 0, life{bound: 2, acked: 3, ended: 11}, cpus(1, 5, 6))}, want: Refused, why: "the answer is yes"},
		"itself foreign":                {victim: func(p *journal.Pod) { p.Foreign = true }, want: Foreign},
		"a foreign pod came with it":    {pods: []journal.Pod{foreign(pod("f", 3, 1, life{bound: 10}, nil))}, want: Foreign},
		"a foreign pod that was known":  {pods: []journal.Pod{foreign(pod("f", 3, 1, life{bound: 5}, nil))}, want: Refused},
		"a foreign pod elsewhere":       {pods: []journal.Pod{foreign(pod("f", 1, 0, life{bound: 11}, nil))}, want: Refused},
		"the kubelet was down":          {outages: []journal.Outage{{What: "kubelet", From: at(9).At, To: at(11).At}}, want: Lost},
		"and still is":                  {outages: []journal.Outage{{What: "kubelet", From: at(11).At}}, want: Lost},
		"down, and no room anyway": {
			pods:    []journal.Pod{pod("a", 4, 0, life{bound: 2, acked: 3}, cpus(0, 1, 2, 3, 4))},
			outages: []journal.Outage{{What: "kubelet", From: at(9).At, To: at(11).At}}, want: Refused, why: "should not have been bound",
		},
		"the kubelet counted by an older Node": {victim: func(p *journal.Pod) {
			p.Reason, p.Message = "OutOf"+vf, "Pod was rejected: Node didn't have enough resource: numalane.io/vf, requested: 1, used: 0, capacity: 0"
		}, want: Behind, why: "with 0 of numalane.io/vf, and the API has had one with 1"},
		"by an older Node with fewer CPUs": {victim: func(p *journal.Pod) {
			p.Reason, p.Message = "OutOfcpu", "Node didn't have enough resource: cpu, requested: 2000, used: 1000, capacity: 2500"
		}, want: Behind, why: "with 7000"},
		"by the Node that the API has": {victim: func(p *journal.Pod) {
			p.Reason, p.Message = "OutOf"+vf, "Node didn't have enough resource: numalane.io/vf, requested: 1, used: 1, capacity: 1"
		}, want: Refused},
		"used more than even the API's Node has": {victim: func(p *journal.Pod) {
			p.Reason, p.Message = "OutOf"+vf, "Node didn't have enough resource: numalane.io/vf, requested: 1, used: 1, capacity: 0"
		}, want: Refused},
		"it was up again before": {outages: []journal.Outage{{What: "kubelet", From: at(2).At, To: at(8).At}}, want: Refused},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			victim := pod("victim", 2, 1, life{bound: 10, ended: 12}, nil)
			victim.Failed, victim.Reason = true, "TopologyAffinityError"
			if tt.victim != nil {
				tt.victim(&victim)
			}
			c := journal.Case{Node: node(t), Pods: append(tt.pods, victim), Outages: tt.outages}
			got := Of(&c, &victim)
			if got.Class != tt.want || !strings.Contains(got.Why, tt.why) {
				t.Errorf("%s (%s), want %s\n%s", got.Class, got.Why, tt.want, fmt.Sprint(got.Replays))
			}
		})
	}
}
