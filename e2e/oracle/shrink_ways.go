package oracle

import (
	"maps"
	"slices"

	v1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"

	"github.com/numalane/numalane/internal/sysfstest"
)

// reductions are the ways to make a scenario smaller, those that save most first.
func reductions() []reduction {
	return []reduction{
		dropHalfOfSteps, dropStep, dropPool, dropForeign, dropSetting, dropContainer,
		dropNUMANode, simplifyMachine, dropNIC, dropResource, dropStatus, fewerDevices, fewerCores, lessOfResource,
	}
}

// dropHalfOfSteps leaves out long stretches of steps, but for the last step.
func dropHalfOfSteps(s *Scenario, i int) bool {
	all := len(s.Steps) - 1
	for size := all; size > 1; size /= 2 {
		parts := all / size
		if i < parts {
			s.Steps = slices.Delete(s.Steps, i*size, (i+1)*size)
			return true
		}
		i -= parts
	}
	return false
}

func dropStep(s *Scenario, i int) bool {
	if i >= len(s.Steps)-1 {
		return false
	}
	s.Steps = slices.Delete(s.Steps, i, i+1)
	return true
}

func dropPool(s *Scenario, i int) bool {
	if i >= len(s.Pools) {
		return false
	}
	name := s.Pools[i].Resource
	s.Pools = slices.Delete(s.Pools, i, i+1)
	s.Steps = slices.DeleteFunc(s.Steps, func(st Step) bool { return st.Health != nil && st.Health.Resource == name })
	forget(s, name)
	return true
}

func dropForeign(s *Scenario, i int) bool {
	if i >= len(s.Foreign) {
		return false
	}
	forget(s, s.Foreign[i].Resource)
	s.Foreign = slices.Delete(s.Foreign, i, i+1)
	return true
}

// forget takes a resource from all pods.
func forget(s *Scenario, name string) {
	for _, c := range containers(s) {
		delete(c.Resources.Limits, v1.ResourceName(name))
		delete(c.Resources.Requests, v1.ResourceName(name))
	}
}

func containers(s *Scenario) []*v1.Container {
	var all []*v1.Container
	for i := range s.Steps {
		if p := s.Steps[i].Admit; p != nil {
			all = append(all, containersOf(p)...)
		}
	}
	return all
}

// dropSetting leaves the kubelet to its defaults, option by option.
func dropSetting(s *Scenario, i int) bool {
	k := s.Kubelet
	var ways []func()
	for _, key := range []string{"topologyManagerPolicyOptions", "cpuManagerPolicyOptions", "featureGates"} {
		options, _ := k[key].(map[string]any)
		for _, name := range slices.Sorted(maps.Keys(options)) {
			ways = append(ways, func() { delete(options, name) })
		}
	}
	if k["memoryManagerPolicy"] == "Static" {
		ways = append(ways, func() {
			k["memoryManagerPolicy"] = "None"
			delete(k, "reservedMemory")
		})
	}
	if k["cpuManagerPolicy"] == "static" {
		ways = append(ways, func() {
			k["cpuManagerPolicy"] = "none"
			delete(k, "cpuManagerPolicyOptions")
		})
	}
	if k["topologyManagerScope"] == "pod" {
		ways = append(ways, func() { k["topologyManagerScope"] = "container" })
	}
	if len(s.Packages) > 0 {
		ways = append(ways, func() { s.Packages = nil })
	}
	if i >= len(ways) {
		return false
	}
	ways[i]()
	return true
}

func dropContainer(s *Scenario, i int) bool {
	for at := len(s.Steps) - 1; at >= 0; at-- {
		p := s.Steps[at].Admit
		if p == nil {
			continue
		}
		if i < len(p.Spec.InitContainers) {
			p.Spec.InitContainers = slices.Delete(p.Spec.InitContainers, i, i+1)
			return true
		}
		i -= len(p.Spec.InitContainers)
		if len(p.Spec.Containers) > 1 {
			if i < len(p.Spec.Containers) {
				p.Spec.Containers = slices.Delete(p.Spec.Containers, i, i+1)
				return true
			}
			i -= len(p.Spec.Containers)
		}
	}
	return false
}

func dropResource(s *Scenario, i int) bool {
	for _, c := range containers(s) {
		for _, name := range slices.Sorted(maps.Keys(c.Resources.Requests)) {
			if i == 0 {
				delete(c.Resources.Requests, name)
				delete(c.Resources.Limits, name)
				return true
			}
			i--
		}
	}
	return false
}

func dropStatus(s *Scenario, i int) bool {
	for at := range s.Steps {
		p := s.Steps[at].Admit
		if p == nil {
			continue
		}
		ways := []struct {
			set  bool
			drop func()
		}{
			{p.Status.QOSClass != "", func() { p.Status.QOSClass = "" }},
			{p.Status.ExtendedResourceClaimStatus != nil, func() { p.Status.ExtendedResourceClaimStatus = nil }},
			{p.Spec.Resources != nil, func() { p.Spec.Resources = nil }},
			{s.Steps[at].Static, func() { s.Steps[at].Static = false }},
		}
		for _, w := range ways {
			if !w.set {
				continue
			}
			if i == 0 {
				w.drop()
				return true
			}
			i--
		}
	}
	return false
}

func dropNUMANode(s *Scenario, i int) bool {
	nodes := s.Machine.NUMANodes
	if i >= len(nodes) || len(nodes) == 1 {
		return false
	}
	id := nodes[i].ID
	s.Machine.NUMANodes = slices.Delete(nodes, i, i+1)
	s.Machine.NICs = slices.DeleteFunc(s.Machine.NICs, func(n sysfstest.NIC) bool { return n.NUMANode == id })
	s.Machine.Offline = slices.DeleteFunc(s.Machine.Offline, func(cpu int) bool { return cpu >= len(s.Machine.CPUs()) })
	return true
}

// simplifyMachine makes one thing of the machine ordinary.
func simplifyMachine(s *Scenario, i int) bool {
	m := &s.Machine
	var ways []func()
	add := func(special bool, undo func()) {
		if special {
			ways = append(ways, undo)
		}
	}
	add(len(m.Offline) > 0, func() { m.Offline = nil })
	add(len(s.Bridges) > 0, func() { s.Bridges = nil })
	add(m.ThreadsPerCore > 2, func() { m.ThreadsPerCore, m.Offline = 2, nil })
	add(m.ThreadsPerCore > 1, func() { m.ThreadsPerCore, m.Offline = 1, nil })
	for i := range m.NUMANodes {
		n := &m.NUMANodes[i]
		add(n.ID != i, func() {
			for j := range m.NICs {
				if m.NICs[j].NUMANode == n.ID {
					m.NICs[j].NUMANode = i
				}
			}
			n.ID = i
		})
		add(n.Distances != nil, func() { n.Distances = nil })
		add(n.L3Caches > 1, func() { n.L3Caches = 1 })
		add(n.Socket != i, func() { n.Socket = i })
		add(len(n.Hugepages) > 0, func() { n.Hugepages = n.Hugepages[1:] })
	}
	if i >= len(ways) {
		return false
	}
	ways[i]()
	return true
}

func dropNIC(s *Scenario, i int) bool {
	if i >= len(s.Machine.NICs) {
		return false
	}
	s.Machine.NICs = slices.Delete(s.Machine.NICs, i, i+1)
	return true
}

func fewerDevices(s *Scenario, i int) bool {
	for at := range s.Foreign {
		devices := s.Foreign[at].Devices
		if len(devices) < 2 {
			continue
		}
		if i < len(devices) {
			s.Foreign[at].Devices = slices.Delete(devices, i, i+1)
			return true
		}
		i -= len(devices)
	}
	if i >= len(s.Machine.NICs) || s.Machine.NICs[i].VFs < 2 {
		return false
	}
	s.Machine.NICs[i].VFs--
	return true
}

func fewerCores(s *Scenario, i int) bool {
	if i >= len(s.Machine.NUMANodes) {
		return false
	}
	n := &s.Machine.NUMANodes[i]
	if n.Cores < 2 {
		return false
	}
	n.Cores--
	n.L3Caches = min(n.L3Caches, n.Cores)
	s.Machine.Offline = nil
	return true
}

// lessOfResource halves an amount, or takes one from it.
func lessOfResource(s *Scenario, i int) bool {
	for _, c := range containers(s) {
		for _, name := range slices.Sorted(maps.Keys(c.Resources.Requests)) {
			q := c.Resources.Requests[name]
			if q.Value() < 2 {
				continue
			}
			if i > 0 {
				i--
				continue
			}
			less := *apiresource.NewQuantity(q.Value()/2, q.Format)
			if q.Value() <= 8 {
				less = *apiresource.NewQuantity(q.Value()-1, q.Format)
			}
			c.Resources.Requests[name] = less
			if _, limited := c.Resources.Limits[name]; limited {
				c.Resources.Limits[name] = less
			}
			return true
		}
	}
	return false
}
