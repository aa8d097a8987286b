package oracle

import (
	"fmt"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"

	"github.com/numalane/numalane/internal/sysfstest"
)

const (
	// sharedMachine is how many scenarios in a row have the same machine: the
	// tree is written once.
	sharedMachine = 10
	// maxSteps bounds a scenario.
	maxSteps = 60
	// maxCases is the most admissions of a scenario.
	maxCases = 40
)

// streams of a seed, so that a machine's draw is none of its scenarios'.
const (
	machineStream  = 1 << 62
	scenarioStream = 2 << 62
)

// newScenario makes the scenario of this number, for the kubelet of this
// version, but for its steps: those the generator adds as it goes.
func newScenario(seed, index uint64, minor int) (*Scenario, *generator) {
	s := &Scenario{Seed: seed, Index: index, Minor: minor}
	version := uint64(minor) << 48
	m := newDice(seed, machineStream|version|index/sharedMachine)
	s.Machine, s.Packages = m.machine()
	s.Bridges = m.bridges(s.Machine.NICs)
	d := newDice(seed, scenarioStream|version|index)
	s.Kubelet = d.kubelet(s)
	s.Allocatable = d.allocatable(&s.Machine)
	s.Pools = d.pools(s.Machine.NICs)
	s.Foreign = d.foreign(&s.Machine)
	g := &generator{dice: d, scenario: s, cases: d.between(20, maxCases), ill: map[string]bool{}}
	g.tight = d.between(35, 75)
	return s, g
}

// generator is the source of steps for a scenario. It looks at how the node is
// to put requests on the edges, so the same number gives the same steps as
// long as the kubelet does the same.
type generator struct {
	dice
	scenario *Scenario
	cases    int // admissions still to come
	steps    int
	made     int // pods
	tight    int // how full the node shall be, in hundredths

	ill                map[string]bool // devices without a driver
	admitted, refused  int
	runningWas         int
	lastWasAnAdmission bool
}

func (g *generator) next(now *view) (Step, bool) {
	g.score(len(now.running))
	if g.cases <= 0 || g.steps >= maxSteps {
		return Step{}, false
	}
	g.steps++
	r := roomOf(now.state)
	if len(now.running) > 0 {
		percent := 8
		if r.used() > g.tight {
			percent = 30
		}
		switch {
		case g.chance(percent):
			p := now.running[g.IntN(len(now.running))]
			return Step{End: string(p.UID), Gone: g.chance(50)}, true
		case g.chance(1):
			return Step{Restart: &Restart{PodsFirst: g.chance(50)}, Gone: g.chance(50)}, true
		}
	}
	if g.chance(5) {
		if h := g.health(); h != nil {
			return Step{Health: h}, true
		}
	}
	g.cases--
	g.lastWasAnAdmission, g.runningWas = true, len(now.running)
	// About half of all admissions shall be refused.
	small := g.chance(25)
	if g.refused > g.admitted {
		small = g.chance(75)
	}
	step := Step{Admit: g.pod(r, small), Gone: g.chance(50)}
	step.Static = g.chance(2) && g.canBeStatic(step.Admit)
	return step, true
}

// canBeStatic tells whether the node can know what the pod holds if the API does
// not have it. PodResources, the one to ask then, tells no UID, so that a pod
// goes by what it holds, and tells nothing of init containers, nor before 1.37 of
// what a pod holds as a whole. Where cores or sockets are unlike, two pods may
// hold one CPU.
func (g *generator) canBeStatic(p *v1.Pod) bool {
	m := &g.scenario.Machine
	even := len(m.Offline) == 0 && len(g.scenario.Packages) == 0 &&
		!slices.ContainsFunc(m.NUMANodes, func(n sysfstest.NUMANode) bool { return n.Cores != m.NUMANodes[0].Cores })
	return even && len(p.Spec.InitContainers) == 0 && (p.Spec.Resources == nil || g.scenario.Minor >= 37)
}

// score notes what became of the pod before.
func (g *generator) score(running int) {
	if !g.lastWasAnAdmission {
		return
	}
	g.lastWasAnAdmission = false
	if running > g.runningWas {
		g.admitted++
	} else {
		g.refused++
	}
}

// health makes some devices of one of our pools ill or well, all of them the
// same: the kubelet then counts other numbers than before.
func (g *generator) health() *Health {
	if len(g.scenario.Pools) == 0 {
		return nil
	}
	p := &g.scenario.Pools[g.IntN(len(g.scenario.Pools))]
	healthy := g.chance(40)
	var able []string
	for _, id := range devicesOfPool(p, g.scenario.Machine.NICs) {
		if g.ill[id] == healthy {
			able = append(able, id)
		}
	}
	if len(able) == 0 {
		return nil
	}
	chosen := some(g.dice, able, g.between(1, min(3, len(able))))
	for _, id := range chosen {
		g.ill[id] = !healthy
	}
	return &Health{Resource: p.Resource, Devices: chosen, Healthy: healthy}
}

// devicesOfPool are the VFs that a pool of ours selects.
func devicesOfPool(p *Pool, nics []sysfstest.NIC) []string {
	var all []string
	for _, root := range p.RootDevices {
		address, vfs, _ := strings.Cut(root, "#")
		i := slices.IndexFunc(nics, func(n sysfstest.NIC) bool { return n.Address == address })
		var first, last int
		if _, err := fmt.Sscanf(vfs, "%d-%d", &first, &last); i < 0 || err != nil {
			continue
		}
		for vf := first; vf <= last; vf++ {
			if a, err := nics[i].VFAddress(vf); err == nil {
				all = append(all, a.String())
			}
		}
	}
	return all
}
