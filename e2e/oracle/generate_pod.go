package oracle

import (
	"fmt"
	"maps"
	"slices"

	v1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// podMaker makes one pod for a node with this room.
type podMaker struct {
	dice
	room  room
	small bool // ask for little, so that the kubelet may say yes

	exclusive bool // whole CPUs and memory matter
	memory    []string
	devices   []string
	parts     int // containers among which an amount is to be divided
}

// maxPermutations bounds what the kubelet's merge goes through: every way of
// taking one hint of each resource (topologymanager iterateAllProviderTopologyHints).
const maxPermutations = 40000

// pod is one that the API could have let in.
func (g *generator) pod(r room, small bool) *v1.Pod {
	m := &podMaker{dice: g.dice, room: r, small: small}
	g.made++
	p := &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("pod-%d", g.made), Namespace: "default", UID: types.UID(fmt.Sprintf("uid-%d", g.made))},
	}
	whole := 15
	if gates, _ := g.scenario.Kubelet["featureGates"].(map[string]bool); gates["PodLevelResourceManagers"] {
		whole = 40
	}
	flavour := m.weighted(66, 10, 5, whole)
	m.exclusive = flavour == 0 || flavour == 3
	m.choose(g.scenario)
	apps, inits := 1+m.weighted(52, 27, 13, 8), m.weighted(58, 22, 12, 8)
	m.parts = apps
	for i := range inits {
		p.Spec.InitContainers = append(p.Spec.InitContainers, m.initContainer(fmt.Sprintf("init%d", i)))
	}
	for i := range apps {
		p.Spec.Containers = append(p.Spec.Containers, v1.Container{Name: fmt.Sprintf("app%d", i), Image: "none"})
	}
	all := containersOf(p)
	for _, c := range all {
		c.Resources.Requests, c.Resources.Limits = v1.ResourceList{}, v1.ResourceList{}
		m.addDevices(c)
	}
	switch flavour {
	case 0:
		for _, c := range all {
			m.guarantee(c)
		}
	case 1:
		for _, c := range all {
			m.burst(c)
		}
	case 3:
		m.podLevel(p, all)
	}
	m.rarities(p, all, g.scenario)
	m.status(p, all)
	return p
}

// rarities are what few pods ask for.
func (m *podMaker) rarities(p *v1.Pod, all []*v1.Container, s *Scenario) {
	if m.chance(2) {
		p.Spec.Overhead = v1.ResourceList{
			v1.ResourceCPU: *apiresource.NewMilliQuantity(250, apiresource.DecimalSI), v1.ResourceMemory: bytesOf(120 * mib),
		}
	}
	c := all[m.IntN(len(all))]
	if m.chance(2) {
		set(&c.Resources, v1.ResourceEphemeralStorage, bytesOf(int64(m.between(1, 20))*gib))
	}
	// A size of pages that the node does not have makes a static memory manager panic.
	if _, compute := c.Resources.Requests[v1.ResourceMemory]; compute && m.chance(1) && s.Kubelet["memoryManagerPolicy"] == "None" {
		set(&c.Resources, v1.ResourceHugePagesPrefix+"32Mi", bytesOf(64*mib))
	}
}

func containersOf(p *v1.Pod) []*v1.Container {
	var all []*v1.Container
	for i := range p.Spec.InitContainers {
		all = append(all, &p.Spec.InitContainers[i])
	}
	for i := range p.Spec.Containers {
		all = append(all, &p.Spec.Containers[i])
	}
	return all
}

// choose draws the resources that the pod's containers may ask for: as many as
// the kubelet can merge in a bearable time.
func (m *podMaker) choose(s *Scenario) {
	masks := 1<<len(s.Machine.NUMANodes) - 1
	room := maxPermutations
	if s.Kubelet["topologyManagerPolicy"] == "single-numa-node" {
		room *= 1000 // it leaves out all but one-node hints first
	}
	take := func() bool {
		if room < masks {
			return false
		}
		room /= masks
		return true
	}
	if m.exclusive {
		take() // CPUs
	}
	kinds := slices.Sorted(maps.Keys(m.room.memory))
	m.Shuffle(len(kinds), func(i, j int) { kinds[i], kinds[j] = kinds[j], kinds[i] })
	if m.exclusive && len(kinds) > 0 {
		take() // a Guaranteed pod asks for memory
	}
	pools := slices.Sorted(maps.Keys(m.room.devices))
	m.Shuffle(len(pools), func(i, j int) { pools[i], pools[j] = pools[j], pools[i] })
	for _, p := range pools[:min(len(pools), m.weighted(15, 50, 25, 10))] {
		if take() {
			m.devices = append(m.devices, p)
		}
	}
	for _, k := range kinds {
		if k != string(v1.ResourceMemory) && m.exclusive && (m.room.memory[k].all > 0 || m.chance(5)) && m.chance(50) && take() {
			m.memory = append(m.memory, k)
		}
	}
	slices.Sort(m.devices)
	slices.Sort(m.memory)
}

func (m *podMaker) initContainer(name string) v1.Container {
	c := v1.Container{Name: name, Image: "none"}
	switch always, onFailure := v1.ContainerRestartPolicyAlways, v1.ContainerRestartPolicyOnFailure; m.weighted(62, 36, 2) {
	case 1:
		c.RestartPolicy = &always
	case 2:
		c.RestartPolicy = &onFailure
	}
	return c
}

// edge is an amount at which an answer may change.
func (m *podMaker) edge(a amounts, unit int64) int64 {
	if m.small {
		most := unit
		for _, f := range a.numaFree {
			most = max(most, f)
		}
		return unit * int64(1+m.IntN(int(max(1, most/unit/2))))
	}
	var at int64
	switch numa := m.IntN(max(1, len(a.numaFree))); m.weighted(38, 12, 10, 6, 26, 8) {
	case 0:
		at = a.numaFree[numa]
	case 1:
		at = a.numaAll[numa]
	case 2:
		at = a.free
	case 3:
		at = a.all
	case 4:
		at = unit * int64(m.between(1, 4))
	default: // a part of what another NUMA node has as well
		at = a.numaFree[numa] + min(unit*int64(m.between(1, 4)), max(0, a.free-a.numaFree[numa]))
	}
	if m.parts > 1 && m.chance(55) {
		at /= int64(m.parts)
	}
	at = at / unit * unit
	switch m.weighted(60, 20, 20) {
	case 1:
		at += unit
	case 2:
		at -= unit
	}
	return max(0, at)
}

func (m *podMaker) addDevices(c *v1.Container) {
	set := func(name string, count int64) {
		q := *apiresource.NewQuantity(count, apiresource.DecimalSI)
		c.Resources.Limits[v1.ResourceName(name)], c.Resources.Requests[v1.ResourceName(name)] = q, q
	}
	for _, p := range m.devices {
		switch {
		case !m.chance(72):
		case m.chance(3):
			set(p, 0)
		default:
			set(p, max(1, m.edge(m.room.devices[p], 1)))
		}
	}
	if m.chance(2) {
		set("nobody.example/dev", 1)
	}
}

// set asks for as much as it limits.
func set(rr *v1.ResourceRequirements, name v1.ResourceName, q apiresource.Quantity) {
	rr.Requests[name], rr.Limits[name] = q, q
}

func bytesOf(n int64) apiresource.Quantity { return *apiresource.NewQuantity(n, apiresource.BinarySI) }

// guarantee makes requests equal limits, for whole CPUs as a rule.
func (m *podMaker) guarantee(c *v1.Container) {
	cpus := max(1, m.edge(m.room.cpus, 1))
	if m.room.threads > 1 && m.chance(60) {
		cpus = (cpus + int64(m.room.threads) - 1) / int64(m.room.threads) * int64(m.room.threads)
	}
	milli := 1000 * cpus
	if m.chance(9) {
		milli += int64(pick(m.dice, 1, 250, 500)) - 1000*int64(m.IntN(2))
	}
	set(&c.Resources, v1.ResourceCPU, *apiresource.NewMilliQuantity(max(1, milli), apiresource.DecimalSI))
	set(&c.Resources, v1.ResourceMemory, bytesOf(m.memoryAmount()))
	for _, name := range m.memory {
		if m.chance(70) {
			set(&c.Resources, v1.ResourceName(name), bytesOf(m.hugepages(name)))
		}
	}
}

func (m *podMaker) memoryAmount() int64 {
	a, static := m.room.memory[string(v1.ResourceMemory)]
	if !static || m.chance(45) {
		return int64(m.between(1, 256)) * mib
	}
	return max(4096, m.edge(a, 4096))
}

func (m *podMaker) hugepages(name string) int64 {
	unit := int64(2 * mib)
	if name == v1.ResourceHugePagesPrefix+"1Gi" {
		unit = gib
	}
	return max(unit, m.edge(m.room.memory[name], unit))
}

// burst asks for less than it limits, or limits nothing.
func (m *podMaker) burst(c *v1.Container) {
	if m.chance(25) {
		return
	}
	c.Resources.Requests[v1.ResourceCPU] = *apiresource.NewMilliQuantity(int64(m.between(1, 3))*1000, apiresource.DecimalSI)
	c.Resources.Requests[v1.ResourceMemory] = bytesOf(64 * mib)
	if m.chance(50) {
		c.Resources.Limits[v1.ResourceCPU] = *apiresource.NewMilliQuantity(4000, apiresource.DecimalSI)
		c.Resources.Limits[v1.ResourceMemory] = bytesOf(128 * mib)
	}
}
