package allocator

import (
	"maps"
	"slices"

	gocmp "github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/numalane/numalane/pkg/topology"
)

// The tables' calls that no state and pod lead to, or not surely.
type (
	tableTake struct {
		Machine   int             `json:"machine"`
		Available topology.CPUSet `json:"available"`
		Count     int             `json:"count"`
		Group     int             `json:"group"`
		Spread    bool            `json:"spread"`
		ByCache   bool            `json:"byCache"`
		BySocket  bool            `json:"bySocket"`
		Got       topology.CPUSet `json:"got"`
		Failed    bool            `json:"failed"`
	}
	tableDemand struct {
		CPUs    int               `json:"cpus"`
		Memory  map[string]uint64 `json:"memory"`
		Devices map[string]int    `json:"devices"`
		Reuse   tableLanding      `json:"reuse"`
	}
	tableHint struct {
		NUMANodes []int `json:"numaNodes,omitempty"`
		Preferred bool  `json:"preferred,omitempty"`
	}
	tableHints struct {
		State  tableState  `json:"state"`
		Demand tableDemand `json:"demand"`
		Hints  []tableHint `json:"hints"`
	}
	tableGrant struct {
		State  tableState       `json:"state"`
		Kind   string           `json:"kind"`
		Demand tableDemand      `json:"demand"`
		Hint   tableHint        `json:"hint"`
		Reason string           `json:"reason"`
		Lands  [][]tableLanding `json:"lands"`
	}
)

// take replays a takeByTopology call, also as a pod of one container under
// policy none where a node has options that lead to that very call.
func (r *replay) take(k *tableTake) (atDoor bool) {
	topo, err := compileCPUs(r.file.Machines[k.Machine])
	if err != nil {
		r.Fatalf("%v: %s", err, r.raw)
	}
	available := topo.bits(k.Available)
	var got cpuBits
	var ok bool
	if k.Group == 0 {
		got, ok = topo.takePacked(&available, k.Count, k.Spread, k.ByCache)
	} else {
		o := cpuOptions{acrossNUMA: true, spreadCores: k.Spread, bySocket: k.BySocket, newDistribution: true}
		got, ok = topo.takeDistributed(&available, k.Count, k.Group, &o)
	}
	if ok == k.Failed {
		r.wrong("taken at all", !k.Failed, ok)
	} else if set := topo.set(&got); ok && set.String() != k.Got.String() {
		r.wrong("CPUs taken", k.Got, set)
	}
	whole := k.Group > 1
	if k.Count < 1 || whole && (k.Group != topo.perCore || k.Count%k.Group != 0) {
		return false
	}
	r.takeAtDoor(k, whole)
	return true
}

func (r *replay) takeAtDoor(k *tableTake, whole bool) {
	s := tableState{Machine: k.Machine, CPUs: topology.CPUManagerStatic, CPUOpts: map[string]string{}}
	for name, on := range map[string]bool{
		"full-pcpus-only": whole, "distribute-cpus-across-numa": k.Group > 0, "align-by-socket": k.BySocket,
		"distribute-cpus-across-cores": k.Spread, "prefer-align-cpus-by-uncorecache": k.ByCache,
	} {
		if on {
			s.CPUOpts[name] = "true"
		}
	}
	held := map[int]topology.CPUSet{}
	for _, numa := range r.file.Machines[k.Machine] {
		held[numa.ID] = topology.CPUSet{CPUSet: numa.CPUs().Difference(k.Available.CPUSet)}
	}
	s.Held = []topology.ContainerAllocation{{Name: "held", CPUs: held}}
	free := topology.CPUSet{CPUSet: k.Available.Difference(k.Got.CPUSet)}
	want := tableAnswer{Lands: [][]tableLanding{{{Name: "c", CPUs: k.Got}, {Name: tableFree, CPUs: free}}}}
	if k.Failed {
		want = tableAnswer{Reasons: []string{"UnexpectedAdmissionError"}}
		if whole {
			want.Reasons[0] = "SMTAlignmentError" // it looks before it takes
		}
	}
	rl := v1.ResourceList{v1.ResourceCPU: *resource.NewQuantity(int64(k.Count), resource.DecimalSI), v1.ResourceMemory: resource.MustParse("1Mi")}
	pod := &v1.Pod{Spec: v1.PodSpec{Containers: []v1.Container{{Name: "c", Resources: v1.ResourceRequirements{Requests: rl, Limits: rl}}}}}
	r.answers++
	r.answer("none", r.compile(r.state(&s, topology.PolicyNone, "")), NewRequest(pod), &want)
}

// admission is a manager's call in the midst of a pod, with what init containers left.
func (r *replay) admission(s *tableState, d *tableDemand) *admission {
	policy := topology.PolicyBestEffort
	if len(r.file.Machines[s.Machine]) > maxMergedNUMANodes {
		policy = topology.PolicySingleNUMANode
	}
	n := r.compile(r.state(s, policy, ""))
	a := &admission{node: n, room: n.clone(), fate: &fate{}, memory: &reusableMemory{}}
	a.reuse.counts = make([]int64, len(n.room.counts))
	a.reuse.cpus = n.cpu.bits(d.Reuse.CPUs)
	for _, m := range d.Reuse.Memory {
		*a.memory = append(*a.memory, memoryLeft{mask: r.mask(n, m.NUMANodes), kind: n.memoryKind(m.Type), size: int64(m.Size)})
	}
	for _, dev := range d.Reuse.Devices {
		p := n.poolOf(dev.Resource)
		i := slices.IndexFunc(p.groups, func(g group) bool { return slices.Equal(g.numaNodes, dev.NUMANodes) })
		a.reuse.counts[p.at+i] += int64(dev.Count)
	}
	return a
}

func (r *replay) mask(n *Node, ids []int) uint64 {
	var mask uint64
	for _, id := range ids {
		k := slices.Index(n.numaIDs, id)
		if k < 0 {
			r.Fatalf("NUMA node %d is unknown: %s", id, r.raw)
		}
		mask |= 1 << k
	}
	return mask
}

func (d *tableDemand) wants() demand {
	out := demand{cpus: int64(d.CPUs)}
	for _, name := range slices.Sorted(maps.Keys(d.Memory)) {
		out.memory = append(out.memory, amount{name: name, count: int64(d.Memory[name])})
	}
	for _, name := range slices.Sorted(maps.Keys(d.Devices)) {
		out.devices = append(out.devices, amount{name: name, count: int64(d.Devices[name])})
	}
	return out
}

func (r *replay) hints(h *tableHints) {
	a := r.admission(&h.State, &h.Demand)
	n := a.node
	if n.policy == policySingle {
		r.lanes(a, h)
		return
	}
	hints, preferred := make(maskSet, maskWords(len(n.numaIDs))), make(maskSet, maskWords(len(n.numaIDs)))
	want := h.Demand.wants()
	switch {
	case want.cpus > 0:
		a.cpuHints(want.cpus, hints, preferred)
	case len(want.devices) == 1:
		a.deviceHints(n.poolOf(want.devices[0].name), want.devices[0].count, hints, preferred)
	case len(want.memory) > 0:
		if kinds, ok := n.memoryWanted(nil, &want); ok {
			a.memoryHints(kinds, hints, preferred)
		}
	default:
		r.Errorf("hints for nothing: %s", r.raw)
	}
	var got []tableHint
	hints.each(func(mask uint64) { got = append(got, tableHint{n.ids(mask), preferred.has(mask)}) })
	order := func(a, b tableHint) int { return slices.Compare(a.NUMANodes, b.NUMANodes) }
	slices.SortFunc(got, order)
	slices.SortFunc(h.Hints, order)
	if !slices.EqualFunc(h.Hints, got, func(a, b tableHint) bool { return gocmp.Equal(a, b) }) {
		r.wrong("hints", h.Hints, got)
	}
}

// lanes compares the hints of one NUMA node: where there are too many NUMA nodes
// to merge, only policies that look at no others are foretold.
func (r *replay) lanes(a *admission, h *tableHints) {
	n, want := a.node, h.Demand.wants()
	if len(want.devices) != 1 {
		r.Fatalf("hints of something else than devices: %s", r.raw)
	}
	var got []tableHint
	lanes := a.deviceLanes(n.poolOf(want.devices[0].name), want.devices[0].count, n.everyNUMANode())
	for ; lanes != 0; lanes &= lanes - 1 {
		got = append(got, tableHint{n.ids(lanes & -lanes), true})
	}
	ofOne := slices.DeleteFunc(slices.Clone(h.Hints), func(t tableHint) bool { return len(t.NUMANodes) > 1 })
	if !gocmp.Equal(ofOne, got) {
		r.wrong("hints of one NUMA node", ofOne, got)
	}
}

// grant replays a manager's allocation under a given hint, each way that
// chance may go.
func (r *replay) grant(g *tableGrant) {
	kind := map[string]containerKind{"app": app, "init": initial, "sidecar": sidecar}[g.Kind]
	want := tableAnswer{Lands: g.Lands}
	if g.Reason != "" {
		want.Reasons = []string{g.Reason}
	}
	var got tableAnswer
	f := &fate{}
	for more := true; more; more = f.next() {
		a := r.admission(&g.State, &g.Demand)
		a.fate = f
		c := container{kind: kind, demand: g.Demand.wants()}
		// A sole container of the same kind: what it gets is what is listed.
		a.lands = &landings{node: a.node, ask: &ask{containers: []container{c}}}
		a.lands.begin("")
		cause := a.allocate(&c, &ask{guaranteed: true}, hint{mask: r.mask(a.node, g.Hint.NUMANodes), preferred: g.Hint.Preferred})
		if cause != none {
			got.Reasons = append(got.Reasons, Verdict{cause: cause}.KubeletReason())
			continue
		}
		after := *a.node
		after.room = a.room
		got.Lands = append(got.Lands, landingsOf(a.lands.list, &after))
	}
	canonical(&want)
	canonical(&got)
	got.byChance(&want)
	if !gocmp.Equal(want, got, cpuSetsEqual) {
		r.wrong("granted", want, got)
	}
}
