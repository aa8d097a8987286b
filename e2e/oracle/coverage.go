package oracle

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/resource"

	"github.com/numalane/numalane/pkg/allocator"
	"github.com/numalane/numalane/pkg/topology"
)

// Coverage counts what the cases were about.
type Coverage struct {
	Cells []Cell `json:"cells"`
}

// Cell is one kind of case.
type Cell struct {
	Minor int `json:"minor"`
	// Table is which table the row is of.
	Table  table  `json:"table"`
	Row    string `json:"row"`
	Answer string `json:"answer"` // admitted, or the kubelet's reason
	Cases  int    `json:"cases"`
}

// table is a way to look at the cases.
type table int

const (
	byPolicy  table = iota // policy, scope and the providers that have hints
	byOption               // options and gates of the kubelet
	byMachine              // what is special of the machine and its pools
	byPod                  // what is special of the pod
)

// tally counts cases while they come.
type tally map[Cell]int

func (t tally) count(minor int, tb table, row, answer string) {
	t[Cell{Minor: minor, Table: tb, Row: row, Answer: answer}]++
}

// coverage is what a tally comes to.
func (t tally) coverage() Coverage {
	var c Coverage
	for cell, cases := range t {
		cell.Cases = cases
		c.Cells = append(c.Cells, cell)
	}
	slices.SortFunc(c.Cells, func(a, b Cell) int {
		return cmp.Or(a.Minor-b.Minor, int(a.Table)-int(b.Table), strings.Compare(a.Row, b.Row), strings.Compare(a.Answer, b.Answer))
	})
	return c
}

// merge adds another coverage.
func (t tally) merge(c Coverage) {
	for _, cell := range c.Cells {
		cases := cell.Cases
		cell.Cases = 0
		t[cell] += cases
	}
}

// add counts one case.
func (t tally) add(s *Scenario, f *foretold, h *happened) {
	said := answer(h.admission.Admit, h.admission.Reason)
	if h.admission.Handler == "predicates" {
		said = outOfTotals
	}
	count := func(tb table, rows ...string) {
		for _, row := range rows {
			t.count(s.Minor, tb, row, said)
		}
	}
	k := &h.before.Topology.Kubelet
	where := k.TopologyPolicy + " " + k.TopologyScope
	if k.TopologyPolicy == topology.PolicyNone {
		where = k.TopologyPolicy
	}
	count(byPolicy, where+" · "+providers(h))
	count(byOption, options(k)...)
	count(byMachine, machineTraits(s, h)...)
	count(byPod, podTraits(h, f)...)
}

// outOfTotals stands for all refusals of the general predicates.
const outOfTotals = "OutOf…"

// providers are the managers that have a say in the case.
func providers(h *happened) string {
	var devices, loose, cpus, memory bool
	for _, d := range allocator.NewRequest(h.pod).Due(&h.before.Topology, &h.before.Pools) {
		cpus = cpus || d.CPUs > 0
		memory = memory || len(d.Memory) > 0
		for name := range d.Devices {
			i := slices.IndexFunc(h.before.Pools.Pools, func(p topology.Pool) bool { return p.Resource == name })
			if i >= 0 && h.before.Pools.Pools[i].HasTopology() {
				devices = true
			} else {
				loose = true
			}
		}
	}
	var names []string
	for _, p := range []struct {
		name string
		says bool
	}{{"devices", devices}, {"loose devices", loose && !devices}, {"cpu", cpus}, {"memory", memory}} {
		if p.says {
			names = append(names, p.name)
		}
	}
	if len(names) == 0 {
		return "nothing"
	}
	return strings.Join(names, "+")
}

// options are those that are on.
func options(k *topology.Kubelet) []string {
	var rows []string
	for name, value := range k.TopologyOpts {
		if value != "false" {
			rows = append(rows, name)
		}
	}
	if k.CPUPolicy == topology.CPUManagerStatic {
		on := 0
		for name, value := range k.CPUOpts {
			if value != "false" {
				rows = append(rows, name)
				on++
			}
		}
		rows = append(rows, "CPU manager static", [...]string{"no CPU option", "one CPU option", "two CPU options", "three or more CPU options"}[min(on, 3)])
	} else {
		rows = append(rows, "CPU manager none")
	}
	rows = append(rows, "memory manager "+cmp.Or(k.MemoryPolicy, topology.MemoryManagerNone))
	for _, gate := range k.FeatureGates {
		rows = append(rows, "gate "+gate)
	}
	return rows
}

func machineTraits(s *Scenario, h *happened) []string {
	nodes := h.before.Topology.NUMANodes
	rows := []string{[...]string{"", "1 NUMA node", "2 NUMA nodes", "3 NUMA nodes", "4 NUMA nodes", "5 to 8 NUMA nodes"}[min(len(nodes), 5)]}
	trait := func(name string, is bool) {
		if is {
			rows = append(rows, name)
		}
	}
	trait("SMT 2", s.Machine.ThreadsPerCore == 2)
	trait("SMT 4", s.Machine.ThreadsPerCore == 4)
	trait("sparse NUMA ids", nodes[len(nodes)-1].ID != len(nodes)-1)
	trait("offline CPUs", len(s.Machine.Offline) > 0)
	trait("two packages on a NUMA node", len(s.Packages) > 0)
	trait("distances other than by socket", s.Machine.NUMANodes[0].Distances != nil)
	sockets, caches, bare, poor := map[int]bool{}, map[int]bool{}, false, false
	for i := range nodes {
		bare = bare || len(nodes[i].Cores) == 0
		poor = poor || s.Machine.NUMANodes[i].Memory == 0
		for _, g := range nodes[i].Cores {
			sockets[g.Socket], caches[g.Cache] = true, true
		}
	}
	trait("several NUMA nodes on a socket", len(sockets) < len(nodes))
	trait("several caches on a socket", len(caches) > len(sockets))
	trait("NUMA node without CPUs", bare)
	trait("NUMA node without memory", poor)
	for _, p := range h.before.Pools.Pools {
		trait("pool of ours, "+p.AllocationPolicy, !p.Foreign && asks(h.pod, p.Resource))
		trait("pool of another vendor", p.Foreign && asks(h.pod, p.Resource))
		placed, loose, wide, ill, pairs, shared := false, false, false, false, false, false
		numa, bridges := map[string]int{}, map[string]int{}
		for _, g := range p.Groups {
			placed = placed || len(g.NUMANodes) > 0
			numa[fmt.Sprint(g.NUMANodes)]++
			pairs = pairs || numa[fmt.Sprint(g.NUMANodes)] > 1
			for _, above := range g.Upstream {
				bridges[above]++
				shared = shared || bridges[above] > 1
			}
			loose = loose || len(g.NUMANodes) == 0
			wide = wide || len(g.NUMANodes) > 1
			ill = ill || g.Healthy < g.Total
		}
		if asks(h.pod, p.Resource) {
			trait("pool with and without topology", placed && loose)
			trait("pool without topology", !placed)
			trait("devices on several NUMA nodes", wide)
			trait("unhealthy devices", ill)
			trait("several PFs on a NUMA node", pairs)
			trait("several PFs below a PCI bridge", shared)
		}
	}
	slices.Sort(rows)
	return slices.Compact(rows)
}

func asks(p *v1.Pod, name string) bool {
	for _, c := range containersOf(p) {
		if q, ok := c.Resources.Limits[v1.ResourceName(name)]; ok && !q.IsZero() {
			return true
		}
	}
	return false
}

func podTraits(h *happened, f *foretold) []string {
	var rows []string
	trait := func(name string, is bool) {
		if is {
			rows = append(rows, name)
		}
	}
	p := h.pod
	all := containersOf(p)
	trait([...]string{"", "1 container", "2 containers", "3 or more containers"}[min(len(p.Spec.Containers), 3)], true)
	class := p.Status.QOSClass
	trait("QoS class unlike its resources", class != "" && class != qosClass(p, all))
	trait("pod-level resources", resource.IsPodLevelResourcesSet(p))
	trait("claims of DRA", p.Status.ExtendedResourceClaimStatus != nil)
	trait("QoS "+string(cmp.Or(class, qosClass(p, all))), true)
	var init, sidecar, pools, pages bool
	for i := range p.Spec.InitContainers {
		side := isSidecar(&p.Spec.InitContainers[i])
		init, sidecar = init || !side, sidecar || side
	}
	for _, c := range all {
		devices := 0
		for name := range c.Resources.Limits {
			if strings.Contains(string(name), "/") {
				devices++
			}
			pages = pages || strings.HasPrefix(string(name), v1.ResourceHugePagesPrefix)
		}
		pools = pools || devices > 1
	}
	trait("init containers", init)
	trait("sidecars", sidecar)
	trait("several pools in a container", pools)
	trait("hugepages", pages)
	trait("several outcomes", len(f.outcomes) > 1)
	trait("more outcomes than are compared", !f.complete && len(f.outcomes) > 0)
	trait("kubelet's accounts unlike what pods hold", !h.before.Pools.Contended.IsEmpty() || len(h.before.Pools.Memory) > 0)
	trait("kubelet's accounts changed by a refusal", !h.admission.Admit && accountsChanged(h))
	trait("not shown by the API", slices.ContainsFunc(h.after.Pools.Unowned, func(a topology.Allocation) bool { return a.UID == string(p.UID) }))
	return rows
}
