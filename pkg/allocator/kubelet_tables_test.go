package allocator

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"

	"github.com/numalane/numalane/pkg/topology"
)

// The inputs of the kubelet's own tests, with what its code made of them.
// e2e/tables records them, and its package vector tells what each field means.
type (
	tableFile struct {
		Machines [][]topology.NodeNUMA `json:"machines"`
		Vectors  []json.RawMessage     `json:"vectors"`
	}
	tableVector struct {
		Test  string      `json:"test"`
		Pod   *tablePod   `json:"pod"`
		Take  *tableTake  `json:"take"`
		Hints *tableHints `json:"hints"`
		Grant *tableGrant `json:"grant"`
		Merge *tableMerge `json:"merge"`
	}
	tableState struct {
		Machine int                            `json:"machine"`
		Gates   []string                       `json:"gates"`
		CPUs    string                         `json:"cpus"`
		CPUOpts map[string]string              `json:"cpuOpts"`
		Memory  string                         `json:"memory"`
		Pools   []topology.Pool                `json:"pools"`
		Held    []topology.ContainerAllocation `json:"held"`
	}
	tablePod struct {
		State   tableState    `json:"state"`
		Pod     v1.Pod        `json:"pod"`
		Answers []tableAnswer `json:"answers"`
	}
	tableAnswer struct {
		In      []string         `json:"in"`
		Reasons []string         `json:"reasons"`
		Lands   [][]tableLanding `json:"lands"`
	}
	tableLanding struct {
		Name    string                      `json:"name,omitempty"`
		CPUs    topology.CPUSet             `json:"cpus,omitzero"`
		Memory  []topology.MemoryAllocation `json:"memory,omitempty"`
		Devices []tableDevices              `json:"devices,omitempty"`
	}
	tableDevices struct {
		Resource  string `json:"resource,omitempty"`
		NUMANodes []int  `json:"numaNodes,omitempty"`
		Count     int    `json:"count"`
	}
	tableCount struct {
		Pods   int            `json:"pods"`
		Takes  int            `json:"takes"`
		Hints  int            `json:"hints"`
		Grants int            `json:"grants"`
		Merges int            `json:"merges"`
		Left   map[string]int `json:"left"`
	}
)

// TestKubeletTables replays what the kubelet's own tests feed to its resource
// managers, the answers taken from running the kubelet's code: where the input
// is a pod that arrives at a node, through Compile, Admit and Outcomes, under
// every topology manager policy and scope; else one level lower.
func TestKubeletTables(t *testing.T) {
	var manifest struct {
		Kubernetes string                `json:"kubernetes"`
		Tables     map[string]tableCount `json:"tables"`
	}
	readTable(t, "manifest.json", &manifest)
	if len(manifest.Tables) == 0 {
		t.Fatal("the manifest has no tables")
	}
	for _, name := range slices.Sorted(maps.Keys(manifest.Tables)) {
		t.Run(name, func(t *testing.T) {
			var file tableFile
			readTable(t, name+".json", &file)
			want := manifest.Tables[name]
			var got tableCount
			var door, lower, answers int
			for _, raw := range file.Vectors {
				var v tableVector
				if err := json.Unmarshal(raw, &v); err != nil {
					t.Fatalf("%v\n%s", err, raw)
				}
				r := replay{T: t, file: &file, test: v.Test, raw: raw}
				atDoor := r.vector(&v, &got)
				answers += r.answers
				if atDoor {
					door++
				} else {
					lower++
				}
			}
			got.Left = want.Left
			if diff := gocmp.Diff(want, got); diff != "" {
				t.Errorf("vectors replayed, against the manifest (-want +got):\n%s", diff)
			}
			t.Logf("%s of Kubernetes %s: %d vectors through the public door (%d answers), %d one level lower (%+v)",
				name, manifest.Kubernetes, door, answers, lower, got)
			for _, reason := range slices.Sorted(maps.Keys(want.Left)) {
				t.Logf("left out %d calls: %s", want.Left[reason], reason)
			}
		})
	}
}

func readTable(t *testing.T, name string, into any) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "kubelet", name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// replay is one vector on its way.
type replay struct {
	*testing.T
	file    *tableFile
	test    string
	raw     json.RawMessage
	answers int
}

func (r *replay) vector(v *tableVector, count *tableCount) (atDoor bool) {
	switch {
	case v.Pod != nil:
		count.Pods++
		r.pod(v.Pod)
		return true
	case v.Take != nil:
		count.Takes++
		return r.take(v.Take)
	case v.Hints != nil:
		count.Hints++
		r.hints(v.Hints)
	case v.Grant != nil:
		count.Grants++
		r.grant(v.Grant)
	case v.Merge != nil:
		count.Merges++
		r.merge(v.Merge)
	default:
		r.Errorf("a vector of no kind: %s", r.raw)
	}
	return false
}

// wrong tells a difference with all that is needed to see why.
func (r *replay) wrong(what string, want, got any) {
	r.Helper()
	show := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			return fmt.Sprint(v)
		}
		return string(b)
	}
	r.Errorf("%s\nkubelet's test: %s\ninput: %.3000s\nwant (kubelet): %s\ngot: %s", what, r.test, r.raw, show(want), show(got))
}

// state is a recorded node under a topology manager policy.
func (r *replay) state(s *tableState, policy, scope string) *topology.NodeState {
	ns := &topology.NodeState{}
	ns.Topology.Kubelet = topology.Kubelet{
		Minor: newestMinor, FeatureGates: s.Gates, TopologyPolicy: policy, TopologyScope: scope,
		CPUPolicy: s.CPUs, CPUOpts: s.CPUOpts, MemoryPolicy: s.Memory,
	}
	ns.Topology.NUMANodes = r.file.Machines[s.Machine]
	ns.Pools.Pools = s.Pools
	if len(s.Held) > 0 {
		ns.Held = []topology.Allocation{{UID: "held", Containers: s.Held}}
	}
	return ns
}

func (r *replay) compile(ns *topology.NodeState) *Node {
	r.Helper()
	n, err := Compile(ns)
	if err != nil {
		r.Fatalf("compile: %v\nkubelet's test: %s\ninput: %s", err, r.test, r.raw)
	}
	return n
}

// pod lets a pod arrive under every policy and scope.
func (r *replay) pod(p *tablePod) {
	req := NewRequest(&p.Pod)
	for i := range p.Answers {
		want := &p.Answers[i]
		for _, in := range want.In {
			r.answers++
			policy, scope, _ := strings.Cut(in, "/")
			n := r.compile(r.state(&p.State, policy, scope))
			r.answer(in, n, req, want)
		}
	}
}

// maxTableOutcomes is more than chance makes of any of the tables' pods.
const maxTableOutcomes = 4096

// answer compares what may become of a pod: everything that the kubelet was
// seen to do is foretold, and where it does one thing alone, so do we.
func (r *replay) answer(in string, n *Node, req *Request, want *tableAnswer) {
	outcomes, complete := n.Outcomes(req, maxTableOutcomes)
	if !complete {
		r.Errorf("more than %d outcomes under %s: %s", maxTableOutcomes, in, r.raw)
		return
	}
	var got tableAnswer
	for i := range outcomes {
		if o := &outcomes[i]; o.Verdict.OK() {
			got.Lands = append(got.Lands, landingsOf(o.Containers, o.After))
		} else {
			got.Reasons = append(got.Reasons, o.Verdict.KubeletReason())
		}
	}
	canonical(&got)
	w := tableAnswer{Reasons: want.Reasons, Lands: want.Lands}
	canonical(&w)
	got.byChance(&w)
	if !gocmp.Equal(w, got, cpuSetsEqual) {
		r.wrong("outcomes under "+in, w, got)
	}
	v := n.Admit(req)
	switch {
	case len(w.Reasons) > 0 && v.OK():
		r.wrong("Admit under "+in, w.Reasons, v.Reason.Code())
	case len(w.Reasons) == 0 && !v.OK():
		r.wrong("Admit under "+in, "admitted", v.Reason.Code())
	case len(w.Reasons) == 1 && len(w.Lands) == 0 && v.KubeletReason() != w.Reasons[0]:
		r.wrong("Admit's reason under "+in, w.Reasons, v.KubeletReason())
	case len(w.Reasons) > 0 && len(w.Lands) > 0 && v.Reason != Undetermined:
		r.wrong("Admit under "+in, Undetermined.Code(), v.Reason.Code())
	}
}

// byChance leaves of several landings those that the kubelet was seen to choose:
// how its maps are laid out keeps it from some.
func (a *tableAnswer) byChance(seen *tableAnswer) {
	if len(a.Lands) > 1 {
		a.Lands = slices.DeleteFunc(a.Lands, func(l []tableLanding) bool {
			return !slices.ContainsFunc(seen.Lands, func(s []tableLanding) bool { return gocmp.Equal(s, l, cpuSetsEqual) })
		})
	}
}

// tableFree is the name of a landing that is none: what nobody holds afterwards.
const tableFree = "(free)"

func landingsOf(ls []Landing, after *Node) []tableLanding {
	out := make([]tableLanding, 0, len(ls)+1)
	for i := range ls {
		l := tableLanding{Name: ls[i].Container, CPUs: ls[i].CPUs, Memory: ls[i].Memory}
		for _, d := range ls[i].Devices {
			l.Devices = append(l.Devices, tableDevices{d.Resource, d.NUMANodes, d.Count})
		}
		out = append(out, l)
	}
	free := tableLanding{Name: tableFree}
	if after.static {
		free.CPUs = after.cpu.set(&after.room.cpus)
	}
	for i := range after.pools {
		p := &after.pools[i]
		for j := range p.groups {
			if n := after.room.counts[p.at+j]; n > 0 {
				free.Devices = append(free.Devices, tableDevices{p.resource, p.groups[j].numaNodes, int(n)})
			}
		}
	}
	for i := range after.mem {
		for k, id := range after.numaIDs {
			if n := after.room.counts[after.mem[i].at+k]; n > 0 {
				free.Memory = append(free.Memory, topology.MemoryAllocation{Type: after.mem[i].name, NUMANodes: []int{id}, Size: uint64(n)})
			}
		}
	}
	return append(out, free)
}

var cpuSetsEqual = gocmp.Comparer(func(a, b topology.CPUSet) bool { return a.Equals(b.CPUSet) })

// canonical puts lists in order, adds up devices of one kind, and leaves out
// containers that hold nothing.
func canonical(a *tableAnswer) {
	slices.Sort(a.Reasons)
	a.Reasons = slices.Compact(a.Reasons)
	keys := map[string][]tableLanding{}
	for _, lands := range a.Lands {
		for i := range lands {
			canonicalLanding(&lands[i])
		}
		lands = slices.DeleteFunc(lands, func(l tableLanding) bool {
			return l.CPUs.IsEmpty() && len(l.Memory) == 0 && len(l.Devices) == 0
		})
		b, _ := json.Marshal(lands) // cannot fail: plain values
		keys[string(b)] = lands
	}
	a.Lands = nil
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		a.Lands = append(a.Lands, keys[k])
	}
}

func canonicalLanding(l *tableLanding) {
	slices.SortFunc(l.Memory, func(a, b topology.MemoryAllocation) int {
		return cmp.Or(strings.Compare(a.Type, b.Type), slices.Compare(a.NUMANodes, b.NUMANodes))
	})
	slices.SortFunc(l.Devices, func(a, b tableDevices) int {
		return cmp.Or(strings.Compare(a.Resource, b.Resource), slices.Compare(a.NUMANodes, b.NUMANodes))
	})
	var sums []tableDevices
	for _, d := range l.Devices {
		if last := len(sums) - 1; last >= 0 && sums[last].Resource == d.Resource && slices.Equal(sums[last].NUMANodes, d.NUMANodes) {
			sums[last].Count += d.Count
		} else {
			sums = append(sums, d)
		}
	}
	l.Devices = sums
	if len(l.Memory) == 0 {
		l.Memory = nil
	}
	if l.CPUs.IsEmpty() {
		l.CPUs = topology.CPUSet{}
	}
}
