package kubelet

import (
	"maps"
	"slices"

	"github.com/numalane/numalane/pkg/topology"
)

// share is what one container holds.
type share struct {
	cpus    topology.CPUSet
	memory  []topology.MemoryAllocation
	devices []HeldDevice
	// parts are the containers' blocks of a pod-level allocation: up to 1.36
	// PodResources lists these, and not the whole.
	parts []topology.MemoryAllocation
}

func (s *share) isEmpty() bool {
	return s.cpus.IsEmpty() && len(s.memory) == 0 && len(s.devices) == 0
}

// holding is what a pod holds, by container name.
type holding map[string]*share

func (h holding) of(container string) *share {
	s, ok := h[container]
	if !ok {
		s = &share{}
		h[container] = s
	}
	return s
}

// asWhole accounts a pod-level allocation once: the managers list it again
// with each container that shares it (cpumanager allocatePodForAdd).
func (h holding) asWhole(cpus topology.CPUSet, memory []topology.MemoryAllocation) {
	if cpus.IsEmpty() && len(memory) == 0 {
		return
	}
	var parts []topology.MemoryAllocation
	for _, s := range h {
		if !cpus.IsEmpty() {
			s.cpus = topology.CPUSet{}
		}
		if len(memory) > 0 {
			parts = append(parts, s.memory...)
			s.memory = nil
		}
	}
	whole := h.of(topology.WholePod)
	whole.cpus, whole.memory, whole.parts = cpus, memory, parts
}

// anyOf tells whether two holdings have shares of one container that are alike,
// or one that is of the pod as a whole.
func (h holding) anyOf(o holding, alike func(a, b *share) bool) bool {
	for nameA, a := range h {
		for nameB, b := range o {
			whole := nameA == topology.WholePod || nameB == topology.WholePod
			if (whole || nameA == nameB) && alike(a, b) {
				return true
			}
		}
	}
	return false
}

// overlaps tells whether two shares have a device or a CPU in common.
func (s *share) overlaps(o *share) bool {
	return !s.cpus.Intersection(o.cpus.CPUSet).IsEmpty() || slices.ContainsFunc(s.devices, func(d HeldDevice) bool {
		return slices.ContainsFunc(o.devices, func(e HeldDevice) bool { return d.Resource == e.Resource && d.ID == e.ID })
	})
}

// hasSameMemory tells whether two shares have the same blocks of memory.
func (s *share) hasSameMemory(o *share) bool {
	missing := func(m topology.MemoryAllocation) bool { return !slices.ContainsFunc(o.memory, sameBlock(m)) }
	return len(s.memory) > 0 && len(s.memory) == len(o.memory) && !slices.ContainsFunc(s.memory, missing)
}

// sharesMemory tells whether a container's blocks and those of its pod as a
// whole have one in common.
func (s *share) sharesMemory(o *share) bool {
	theirs := slices.Concat(o.memory, o.parts)
	return len(s.parts)+len(o.parts) > 0 && slices.ContainsFunc(slices.Concat(s.memory, s.parts), func(m topology.MemoryAllocation) bool {
		return slices.ContainsFunc(theirs, sameBlock(m))
	})
}

func sameBlock(m topology.MemoryAllocation) func(topology.MemoryAllocation) bool {
	return func(n topology.MemoryAllocation) bool {
		return m.Type == n.Type && m.Size == n.Size && slices.Equal(m.NUMANodes, n.NUMANodes)
	}
}

// holdings joins the three managers' accounts, by pod UID.
func holdings(cpu *CPUState, memory *MemoryState, devices *DeviceState) map[string]holding {
	pods := map[string]holding{}
	of := func(uid string) holding {
		if pods[uid] == nil {
			pods[uid] = holding{}
		}
		return pods[uid]
	}
	for uid, containers := range cpu.Containers {
		for name, set := range containers {
			of(uid).of(name).cpus = set
		}
	}
	for uid, containers := range memory.Containers {
		for name, blocks := range containers {
			of(uid).of(name).memory = blocks
		}
	}
	for _, d := range devices.Held {
		s := of(d.PodUID).of(d.Container)
		s.devices = append(s.devices, d)
	}
	whole := map[string]bool{}
	for uid := range cpu.Pods {
		whole[uid] = true
	}
	for uid := range memory.Pods {
		whole[uid] = true
	}
	for uid := range whole {
		of(uid).asWhole(cpu.Pods[uid], memory.Pods[uid])
	}
	return pods
}

// allocation writes a holding down in the contract's words.
func (h holding) allocation(uid string, numaOf map[int]int, groups deviceIndex) topology.Allocation {
	a := topology.Allocation{Version: topology.ContractVersion, UID: uid}
	for _, name := range slices.Sorted(maps.Keys(h)) {
		s := h[name]
		if s.isEmpty() {
			continue
		}
		a.Containers = append(a.Containers, topology.ContainerAllocation{
			Name:    name,
			CPUs:    byNUMANode(s.cpus, numaOf),
			Memory:  s.memory,
			Devices: byGroup(s.devices, groups),
		})
	}
	return a
}

// byNUMANode splits a set of CPUs. One that has gone offline since is on no node.
func byNUMANode(cpus topology.CPUSet, numaOf map[int]int) map[int]topology.CPUSet {
	ids := map[int][]int{}
	for _, cpu := range cpus.List() {
		node, ok := numaOf[cpu]
		if !ok {
			node = topology.NoNUMANode
		}
		ids[node] = append(ids[node], cpu)
	}
	var out map[int]topology.CPUSet
	for node, list := range ids {
		put(&out, node, topology.NewCPUSet(list...))
	}
	return out
}

func byGroup(ds []HeldDevice, index deviceIndex) []topology.DeviceAllocation {
	var out []topology.DeviceAllocation
	for _, d := range ds {
		nodes, pf := index.place(d)
		i := slices.IndexFunc(out, func(a topology.DeviceAllocation) bool {
			return a.Resource == d.Resource && a.PF == pf && slices.Equal(a.NUMANodes, nodes)
		})
		if i < 0 {
			i = len(out)
			out = append(out, topology.DeviceAllocation{Resource: d.Resource, NUMANodes: nodes, PF: pf})
		}
		out[i].IDs = append(out[i].IDs, d.ID)
	}
	slices.SortFunc(out, topology.DeviceAllocation.Compare)
	return out
}
