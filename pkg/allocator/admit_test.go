package allocator

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/numalane/numalane/pkg/topology"
)

// machine is a node for tests: NUMA nodes of whole cores with their VFs.
type machine struct {
	scope    string
	policy   string
	minor    int
	threads  int   // per core
	cores    []int // per NUMA node
	reserved []int // CPU ids
	vfs      []int // per NUMA node, pool vf
	loose    int   // devices without topology, pool loose
	gpus     []int // per NUMA node, pool gpu
	memory   []uint64
	cpuOpts  map[string]string
	held     []topology.Allocation
	ids      []int // NUMA ids when not 0, 1, …
}

func (m machine) state() *topology.NodeState {
	s := &topology.NodeState{Held: m.held}
	k := &s.Topology.Kubelet
	k.Minor = m.minor
	if k.Minor == 0 {
		k.Minor = 37
	}
	k.TopologyPolicy, k.TopologyScope = m.policy, m.scope
	if k.TopologyPolicy == "" {
		k.TopologyPolicy = topology.PolicySingleNUMANode
	}
	if k.TopologyScope == "" {
		k.TopologyScope = topology.ScopeContainer
	}
	k.CPUPolicy, k.CPUOpts = topology.CPUManagerStatic, m.cpuOpts
	if m.memory != nil {
		k.MemoryPolicy = topology.MemoryManagerStatic
	}
	threads := max(1, m.threads)
	all := 0
	for _, c := range m.cores {
		all += c
	}
	reserved := topology.NewCPUSet(m.reserved...)
	first := 0
	for i, cores := range m.cores {
		id := i
		if m.ids != nil {
			id = m.ids[i]
		}
		numa := topology.NodeNUMA{ID: id}
		g := topology.CoreGroup{Socket: i, Cache: i}
		for c := range cores {
			var cpus []int
			for t := range threads {
				cpus = append(cpus, first+c+t*all)
			}
			g.CPUs = append(g.CPUs, topology.NewCPUSet(cpus...))
		}
		first += cores
		numa.Cores = []topology.CoreGroup{g}
		numa.Reserved = topology.CPUSet{CPUSet: numa.CPUs().Intersection(reserved.CPUSet)}
		if m.memory != nil {
			numa.Memory = []topology.Memory{{Type: "memory", Allocatable: m.memory[i]}}
		}
		s.Topology.NUMANodes = append(s.Topology.NUMANodes, numa)
	}
	pool := func(name string, counts []int) {
		if counts == nil {
			return
		}
		p := topology.Pool{Resource: "numalane.io/" + name}
		for i, n := range counts {
			if n > 0 {
				p.Groups = append(p.Groups, topology.Group{NUMANodes: []int{s.Topology.NUMANodes[i].ID}, Total: n, Healthy: n})
			}
		}
		s.Pools.Pools = append(s.Pools.Pools, p)
	}
	pool("vf", m.vfs)
	pool("gpu", m.gpus)
	if m.loose > 0 {
		s.Pools.Pools = append(s.Pools.Pools, topology.Pool{
			Resource: "numalane.io/loose",
			Groups:   []topology.Group{{Total: m.loose, Healthy: m.loose}},
		})
	}
	return s
}

func compile(t testing.TB, s *topology.NodeState) *Node {
	t.Helper()
	n, err := Compile(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// asks is a container's request: whole CPUs, VFs and more.
type asks struct {
	cpu   string
	vf    int64
	gpu   int64
	loose int64
	mem   string
	init  bool
	side  bool
}

func podOf(cs ...asks) *v1.Pod {
	p := &v1.Pod{}
	always := v1.ContainerRestartPolicyAlways
	for i, a := range cs {
		mem := a.mem
		if mem == "" {
			mem = "1Mi"
		}
		rl := v1.ResourceList{v1.ResourceMemory: resource.MustParse(mem)}
		if a.cpu != "" {
			rl[v1.ResourceCPU] = resource.MustParse(a.cpu)
		}
		for name, n := range map[string]int64{"vf": a.vf, "gpu": a.gpu, "loose": a.loose} {
			if n > 0 {
				rl[v1.ResourceName("numalane.io/"+name)] = *resource.NewQuantity(n, resource.DecimalSI)
			}
		}
		c := v1.Container{Name: fmt.Sprint("c", i), Resources: v1.ResourceRequirements{Requests: rl, Limits: rl}}
		switch {
		case a.side:
			c.RestartPolicy = &always
			p.Spec.InitContainers = append(p.Spec.InitContainers, c)
		case a.init:
			p.Spec.InitContainers = append(p.Spec.InitContainers, c)
		default:
			p.Spec.Containers = append(p.Spec.Containers, c)
		}
	}
	return p
}

// TestAdmit holds the rules of single-numa-node in both scopes. Each case
// names the rule of the kubelet that it shows.
func TestAdmit(t *testing.T) {
	heldVFs := func(numa, n int) topology.Allocation {
		d := topology.DeviceAllocation{Resource: "numalane.io/vf", NUMANodes: []int{numa}}
		for i := range n {
			d.IDs = append(d.IDs, fmt.Sprintf("0000:3b:02.%d", i))
		}
		return topology.Allocation{UID: "held", Containers: []topology.ContainerAllocation{{Name: "a", Devices: []topology.DeviceAllocation{d}}}}
	}
	two := machine{cores: []int{4, 4}, vfs: []int{4, 2}}
	podScope := two
	podScope.scope = topology.ScopePod
	tests := []struct {
		name    string
		machine machine
		pod     *v1.Pod
		want    Reason
		lands   []int
	}{
		{"fits the lower NUMA node", two, podOf(asks{cpu: "2", vf: 2}), Admitted, []int{0}},
		{
			"enough in all, not together",
			machine{cores: []int{4, 4}, vfs: []int{4, 2}, held: []topology.Allocation{heldVFs(0, 3)}},
			podOf(asks{cpu: "2", vf: 3}), NUMAUnaligned, nil,
		},
		{
			"devices of the other NUMA node",
			machine{cores: []int{4, 4}, vfs: []int{4, 2}, held: []topology.Allocation{heldVFs(0, 3)}},
			podOf(asks{cpu: "2", vf: 2}), Admitted,
			[]int{1},
		},
		{"no NUMA node is large enough, ever", two, podOf(asks{cpu: "2", vf: 5}), NUMAImpossible, nil},
		{
			"too few devices in all now",
			machine{cores: []int{4, 4}, vfs: []int{4, 0}, held: []topology.Allocation{heldVFs(0, 3)}},
			podOf(asks{vf: 2}), InsufficientDevices, nil,
		},
		{"CPUs on one NUMA node, VFs on the other", machine{cores: []int{2, 8}, vfs: []int{4, 0}}, podOf(asks{cpu: "3", vf: 1}), NUMAImpossible, nil},
		{"reserved CPUs are not given away", machine{cores: []int{4, 4}, vfs: []int{4, 0}, reserved: []int{0}}, podOf(asks{cpu: "4", vf: 1}), NUMAImpossible, nil},
		{"more whole CPUs than any NUMA node has", two, podOf(asks{cpu: "3500m", vf: 4}, asks{cpu: "5", vf: 0}), NUMAImpossible, nil},
		{"a fraction of a CPU does not count", machine{cores: []int{1, 8}, vfs: []int{4, 0}}, podOf(asks{cpu: "3500m", vf: 4}), Admitted, []int{0}},
		{"devices align without exclusive CPUs", two, podOf(asks{vf: 5}), NUMAImpossible, nil},
		{"a pool without topology has no preference", machine{cores: []int{4, 4}, vfs: []int{2, 2}, loose: 3}, podOf(asks{loose: 3}), Admitted, []int{-1}},
		{"two pools meet on one NUMA node", machine{cores: []int{4, 4}, vfs: []int{2, 2}, gpus: []int{0, 1}}, podOf(asks{cpu: "1", vf: 1, gpu: 1}), Admitted, []int{1}},
		{"two pools that never meet", machine{cores: []int{4, 4}, vfs: []int{2, 0}, gpus: []int{0, 1}}, podOf(asks{cpu: "1", vf: 1, gpu: 1}), NUMAImpossible, nil},
		{"containers may go to different NUMA nodes", two, podOf(asks{cpu: "3", vf: 3}, asks{cpu: "3", vf: 2}), Admitted, []int{0, 1}},
		{"pod scope: not", podScope, podOf(asks{cpu: "3", vf: 3}, asks{cpu: "3", vf: 2}), NUMAImpossible, nil},
		{"pod scope: one NUMA node for all", podScope, podOf(asks{cpu: "1", vf: 1}, asks{cpu: "2", vf: 1}), Admitted, []int{0, 0}},
		{"greedy: the first container takes the room of the second", two, podOf(asks{cpu: "1", vf: 2}, asks{cpu: "1", vf: 3}), NUMAImpossible, nil},
		{"an init container's CPUs are reused", two, podOf(asks{cpu: "4", vf: 1, init: true}, asks{cpu: "4", vf: 1}), Admitted, []int{0, 0}},
		// k/k#123816: the reusable CPU of NUMA node 0 must lie in the mask.
		{"an init container's CPU pins the app", two, podOf(asks{cpu: "1", init: true}, asks{cpu: "1", gpu: 0, vf: 0}, asks{cpu: "4"}), Admitted, []int{0, 0, 1}},
		{
			"an init container's CPU pins the app to the wrong NUMA node",
			machine{cores: []int{4, 4}, vfs: []int{0, 2}},
			podOf(asks{cpu: "1", init: true}, asks{cpu: "1", vf: 1}), NUMAImpossible, nil,
		},
		{
			"pod scope frees it from that",
			machine{cores: []int{4, 4}, vfs: []int{0, 2}, scope: topology.ScopePod},
			podOf(asks{cpu: "1", init: true}, asks{cpu: "1", vf: 1}), Admitted,
			[]int{1, 1},
		},
		{"a sidecar keeps what it has", two, podOf(asks{cpu: "4", side: true}, asks{cpu: "4"}), Admitted, []int{0, 1}},
		{"pod scope adds sidecars up", podScope, podOf(asks{cpu: "3", side: true}, asks{cpu: "2"}), NUMAImpossible, nil},
		{
			"memory manager: memory aligns too",
			machine{cores: []int{4, 4}, vfs: []int{2, 2}, memory: []uint64{1 << 30, 4 << 30}},
			podOf(asks{cpu: "1", vf: 1, mem: "2Gi"}), Admitted,
			[]int{1},
		},
		{
			"memory manager: too little anywhere",
			machine{cores: []int{4, 4}, vfs: []int{2, 2}, memory: []uint64{1 << 30, 1 << 30}},
			podOf(asks{cpu: "1", vf: 1, mem: "2Gi"}), NUMAImpossible, nil,
		},
		{
			"full-pcpus-only: whole cores",
			machine{cores: []int{4, 4}, threads: 2, cpuOpts: map[string]string{"full-pcpus-only": "true"}},
			podOf(asks{cpu: "3"}), SMTAlignment, nil,
		},
		{
			"full-pcpus-only: a core with a reserved thread is no whole core",
			machine{cores: []int{2, 0}, threads: 2, reserved: []int{0}, cpuOpts: map[string]string{"full-pcpus-only": "true"}},
			podOf(asks{cpu: "2"}), Admitted,
			[]int{0},
		},
		{"sparse NUMA ids", machine{cores: []int{4, 4}, ids: []int{3, 8}, vfs: []int{0, 2}}, podOf(asks{cpu: "2", vf: 2}), Admitted, []int{8}},
		{"a single NUMA node", machine{cores: []int{8}, vfs: []int{4}}, podOf(asks{cpu: "2", vf: 4}), Admitted, []int{0}},
		{
			"policy none admits what single-numa-node refuses",
			machine{policy: topology.PolicyNone, cores: []int{4, 4}, vfs: []int{2, 2}},
			podOf(asks{cpu: "6", vf: 4}), Admitted,
			[]int{-1},
		},
		{"a resource that is no device of the node", two, func() *v1.Pod {
			p := podOf(asks{cpu: "1"})
			p.Spec.Containers[0].Resources.Limits["example.com/license"] = resource.MustParse("9")
			return p
		}(), Admitted, []int{0}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := compile(t, tt.machine.state())
			r := NewRequest(tt.pod)
			if got := n.Admit(r); got.Reason != tt.want {
				t.Errorf("Admit: %s in container %d, want %s", got.Reason.Code(), got.Container, tt.want.Code())
			}
			if tt.machine.policy == topology.PolicyNone {
				return // no policy binds containers to NUMA nodes
			}
			if diff := cmp.Diff(tt.lands, lanesOf(n, r)); diff != "" {
				t.Errorf("NUMA nodes (-want +got):\n%s", diff)
			}
		})
	}
}

// lanesOf are the NUMA nodes that the containers land on; -1 for one that gets
// nothing of any, nil for a pod that is refused.
func lanesOf(n *Node, r *Request) []int {
	outcomes, _ := n.Outcomes(r, 1)
	if !outcomes[0].Verdict.OK() {
		return nil
	}
	var lanes []int
	for i := range outcomes[0].Containers {
		lane := -1
		if l := &outcomes[0].Containers[i]; !l.CPUs.IsEmpty() || len(l.Memory) > 0 || len(l.Devices) > 0 && len(l.Devices[0].NUMANodes) > 0 {
			lane = n.numaIDs[firstBit(n.landed(l))]
		}
		lanes = append(lanes, lane)
	}
	return lanes
}

// TestAfter fills a node and expects each pod to leave what it says.
func TestAfter(t *testing.T) {
	n := compile(t, machine{cores: []int{4, 4}, vfs: []int{4, 2}}.state())
	r := NewRequest(podOf(asks{cpu: "2", vf: 2}))
	var admitted int
	for {
		next, v := n.After(r)
		if !v.OK() {
			if next != n {
				t.Error("a refusal changed the node")
			}
			if v.Reason != InsufficientDevices {
				t.Errorf("refused with %s, want InsufficientDevices", v.Reason.Code())
			}
			break
		}
		n = next
		admitted++
	}
	if admitted != 3 { // two on NUMA node 0, one on 1
		t.Errorf("%d pods fit, want 3", admitted)
	}
}

// TestHeld: an allocation counts once however many containers show it, not at
// all when its device is unhealthy, and when it is nobody's as well.
func TestHeld(t *testing.T) {
	s := machine{cores: []int{4, 4}, vfs: []int{4, 2}}.state()
	dev := func(ids ...string) []topology.DeviceAllocation {
		return []topology.DeviceAllocation{{Resource: "numalane.io/vf", NUMANodes: []int{0}, IDs: ids}}
	}
	s.Held = []topology.Allocation{{UID: "u", Containers: []topology.ContainerAllocation{
		{Name: "init", CPUs: map[int]topology.CPUSet{0: topology.NewCPUSet(1, 2)}, Devices: dev("a", "b")},
		{Name: "app", CPUs: map[int]topology.CPUSet{0: topology.NewCPUSet(2)}, Devices: dev("b")},
	}}}
	s.Pools.Unowned = []topology.Allocation{{UID: "ghost", Containers: []topology.ContainerAllocation{{Name: "x", Devices: dev("c")}}}}
	g := &s.Pools.Pools[0].Groups[0]
	g.Healthy, g.Unhealthy = 3, []string{"a"}
	n := compile(t, s)
	if diff := cmp.Diff("0,3-7", n.cpu.set(&n.room.cpus).String()); diff != "" {
		t.Errorf("free CPUs (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]int64{1, 2}, n.room.counts); diff != "" {
		t.Errorf("free VFs by NUMA node (-want +got):\n%s", diff)
	}
}

// FuzzAdmit: whatever is asked, an admission gives away exactly what was
// asked, never more than there is, and Admit and After agree.
func FuzzAdmit(f *testing.F) {
	f.Add(uint64(0x0402_0402), uint64(0x21_32), false)
	f.Add(uint64(0x1108_0402), uint64(0x4444), true)
	f.Fuzz(func(t *testing.T, layout, want uint64, podScope bool) {
		m := machine{scope: topology.ScopeContainer}
		if podScope {
			m.scope = topology.ScopePod
		}
		for i := range 4 {
			b := layout >> (8 * i)
			m.cores = append(m.cores, int(b&0xf))
			m.vfs = append(m.vfs, int(b>>4&0xf))
		}
		var cs []asks
		for i := range 4 {
			b := want >> (8 * i)
			cs = append(cs, asks{cpu: fmt.Sprint(b & 7), vf: int64(b >> 3 & 7), init: b>>6&3 == 1, side: b>>6&3 == 2})
		}
		cs = append(cs, asks{cpu: "1"})
		s := m.state()
		n := compile(t, s)
		r := NewRequest(podOf(cs...))
		v := n.Admit(r)
		after, v2 := n.After(r)
		if v != v2 {
			t.Fatalf("Admit %v, After %v", v, v2)
		}
		if !v.OK() {
			return
		}
		inits := slices.ContainsFunc(cs, func(a asks) bool { return a.init })
		if got := int64(n.room.cpus.size() - after.room.cpus.size()); got != r.plain.pod.cpus && !inits {
			t.Errorf("gave %d CPUs, asked %d", got, r.plain.pod.cpus)
		}
		for i, free := range after.room.counts {
			if free < 0 || free > n.room.counts[i] {
				t.Fatalf("free %v became %v", n.room.counts, after.room.counts)
			}
		}
		if got, want := sum(n.room.counts)-sum(after.room.counts), find(r.plain.pod.devices, "numalane.io/vf"); got != want && !inits {
			t.Errorf("gave %d VFs, asked %d", got, want)
		}
	})
}
