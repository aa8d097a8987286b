// Package memorymanager, this file: what the recorder adds to the kubelet's.
// The functions that it stands in for are named kubelet… in the kubelet's files.
package memorymanager

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/kubelet/cm/admission"
	"k8s.io/kubernetes/pkg/kubelet/cm/memorymanager/state"
	"k8s.io/kubernetes/pkg/kubelet/cm/topologymanager"
	"k8s.io/kubernetes/pkg/kubelet/lifecycle"

	"github.com/numalane/numalane/e2e/tables/drive"
	"github.com/numalane/numalane/e2e/tables/vector"
	"github.com/numalane/numalane/pkg/topology"
)

// recorded are the questions to ask when the kubelet's tests have ended.
var recorded vector.Queue

// recordedPolicy is a policy with the machine's state as they were.
type recordedPolicy struct {
	*staticPolicy
	machine state.NUMANodeMap
}

func (p *staticPolicy) recordNow(machine state.NUMANodeMap) recordedPolicy {
	c := *p
	c.initContainersReusableMemory = reusableMemory{}
	for uid, masks := range p.initContainersReusableMemory {
		c.initContainersReusableMemory[uid] = map[string]map[v1.ResourceName]uint64{}
		for mask, sizes := range masks {
			c.initContainersReusableMemory[uid][mask] = maps.Clone(sizes)
		}
	}
	return recordedPolicy{&c, machine.Clone()}
}

// fresh is the policy once more, in a state of its own.
func (r recordedPolicy) fresh(store topologymanager.Store) *recordedManager {
	c := r.recordNow(r.machine)
	c.affinity = store
	m := &recordedManager{policy: c.staticPolicy, state: state.NewMemoryState(klog.Logger{})}
	m.state.SetMachineState(c.machine)
	return m
}

func (r recordedPolicy) ids() []int { return slices.Sorted(maps.Keys(r.machine)) }

// recordState is the node that has such a machine state. What is not free is
// held by another pod.
func (r recordedPolicy) recordState() (vector.State, string) {
	s := vector.State{Memory: string(PolicyTypeStatic)}
	held := topology.ContainerAllocation{Name: "held"}
	for _, id := range r.ids() {
		node := r.machine[id]
		out := topology.NodeNUMA{ID: id}
		cells := slices.Sorted(slices.Values(node.Cells))
		if node.NumberOfAssignments == 0 && len(cells) > 1 {
			return s, "a group of NUMA nodes that nothing is given away of"
		}
		for _, kind := range slices.Sorted(maps.Keys(node.MemoryMap)) {
			t := node.MemoryMap[kind]
			out.Memory = append(out.Memory, topology.Memory{Type: string(kind), Allocatable: t.Allocatable, Reserved: t.SystemReserved})
			switch {
			case t.Free > t.Allocatable:
				return s, "more memory free than there is"
			case node.NumberOfAssignments == 0 && t.Free != t.Allocatable:
				return s, "memory that is neither free nor given away"
			case node.NumberOfAssignments > 0 && cells[0] == id:
				block, left := r.recordBlock(kind, cells)
				if left != "" {
					return s, left
				}
				held.Memory = append(held.Memory, block)
			}
		}
		s.NUMA = append(s.NUMA, out)
	}
	if len(held.Memory) > 0 {
		s.Held = []topology.ContainerAllocation{held}
	}
	return s, ""
}

// recordBlock is what of a type of memory a group of NUMA nodes has given away.
func (r recordedPolicy) recordBlock(kind v1.ResourceName, cells []int) (topology.MemoryAllocation, string) {
	b := topology.MemoryAllocation{Type: string(kind), NUMANodes: cells}
	for _, id := range cells {
		node := r.machine[id]
		if node == nil || node.MemoryMap[kind] == nil || node.NumberOfAssignments == 0 || !areGroupsEqual(slices.Clone(node.Cells), slices.Clone(cells)) {
			return b, "NUMA nodes that do not agree on their group"
		}
		b.Size += node.MemoryMap[kind].Allocatable - node.MemoryMap[kind].Free
	}
	rest := b.Size
	for _, id := range cells {
		t := r.machine[id].MemoryMap[kind]
		got := min(rest, t.Allocatable)
		if rest -= got; t.Free != t.Allocatable-got {
			return b, "memory given away of a higher NUMA node of a group before the lower one is used up"
		}
	}
	return b, ""
}

// recordReuse is what a pod's init containers left.
func (r recordedPolicy) recordReuse(uid string) []topology.MemoryAllocation {
	var out []topology.MemoryAllocation
	masks := r.initContainersReusableMemory[uid]
	for _, mask := range slices.Sorted(maps.Keys(masks)) {
		set, err := strconv.ParseUint(mask, 2, 64)
		if err != nil {
			panic(fmt.Sprintf("the kubelet no longer writes bit masks in base 2: %v", err))
		}
		var ids []int
		for ; set != 0; set &= set - 1 {
			ids = append(ids, bits.TrailingZeros64(set))
		}
		for _, kind := range slices.Sorted(maps.Keys(masks[mask])) {
			out = append(out, topology.MemoryAllocation{Type: string(kind), NUMANodes: ids, Size: masks[mask][kind]})
		}
	}
	return out
}

// recordPod asks the kubelet about a pod that a test names, where the state is
// one that the pod could arrive at.
func (p *staticPolicy) recordPod(s state.State, pod *v1.Pod) {
	now, pod := p.recordNow(s.GetMachineState()), pod.DeepCopy()
	placed := len(s.GetMemoryAssignments()[string(pod.UID)]) > 0
	recorded.Later(func(test string) {
		st, left := now.recordState()
		switch {
		case left != "":
		case drive.Strange(pod) != "":
			left = drive.Strange(pod)
		case placed:
			left = "a pod that has memory already"
		case len(now.recordReuse(string(pod.UID))) > 0:
			left = "a pod whose init containers have run already"
		case now.skipExtend:
			left = "a policy of Windows"
		case len(now.machine) == 0:
			left = "a machine without NUMA nodes"
		}
		if left != "" {
			vector.Emit(test, vector.Vector{Left: left})
			return
		}
		st.Gates = drive.Gates()
		drive.EmitPod(test, st, now.ids(), pod, 1, func(store topologymanager.Store) drive.Manager { return now.fresh(store) })
	})
}

// recordGrant asks what the container gets under the hint that a test gives.
// Without a hint and a past that is what the pod gets under policy none.
func (p *staticPolicy) recordGrant(s state.State, pod *v1.Pod, container *v1.Container) {
	uid := string(pod.UID)
	now, pod, container := p.recordNow(s.GetMachineState()), pod.DeepCopy(), container.DeepCopy()
	hint := p.affinity.GetAffinity(klog.Logger{}, uid, container.Name)
	reuse := now.recordReuse(uid)
	if s.GetMemoryBlocks(uid, container.Name) != nil || hint.NUMANodeAffinity == nil && !hint.Preferred && len(reuse) == 0 {
		return
	}
	recorded.Later(func(test string) {
		st, left := now.recordState()
		switch {
		case left != "":
		case drive.Strange(pod) != "":
			left = drive.Strange(pod)
		case now.skipExtend:
			left = "a policy of Windows"
		}
		if left != "" {
			vector.Emit(test, vector.Vector{Left: left})
			return
		}
		g := vector.Grant{State: st, Kind: drive.Kind(pod, container), Hint: drive.Hint(hint)}
		g.Demand.Reuse.Memory = reuse
		m := now.fresh(p.affinity)
		requested, err := getContainerRequestedResources(klog.Logger{}, pod, container)
		if err != nil {
			vector.Emit(test, vector.Vector{Left: "a request that is no number of bytes"})
			return
		}
		g.Demand.Memory = recordedSizes(requested)
		err = m.policy.kubeletAllocate(klog.NewContext(context.Background(), klog.Logger{}), m.state, pod, container, lifecycle.AddOperation)
		blocks := m.state.GetMemoryBlocks(uid, container.Name)
		if err == nil && blocks == nil {
			return // not the manager's business
		}
		g.Reason = admission.GetPodAdmitResult(err).Reason
		if err == nil {
			g.Lands = [][]vector.Landing{{{Memory: recordedBlocks(blocks)}, m.free()}}
		}
		vector.Emit(test, vector.Vector{Grant: &g})
	})
}

func recordedSizes(requested map[v1.ResourceName]uint64) map[string]uint64 {
	out := map[string]uint64{}
	for name, size := range requested {
		out[string(name)] = size
	}
	return out
}

func recordedBlocks(blocks []state.Block) []topology.MemoryAllocation {
	var out []topology.MemoryAllocation
	for _, b := range blocks {
		if b.Size > 0 {
			out = append(out, topology.MemoryAllocation{Type: string(b.Type), NUMANodes: slices.Sorted(slices.Values(b.NUMAAffinity)), Size: b.Size})
		}
	}
	slices.SortFunc(out, func(a, b topology.MemoryAllocation) int { return strings.Compare(a.Type, b.Type) })
	return out
}

func (p *staticPolicy) Allocate(ctx context.Context, s state.State, pod *v1.Pod, container *v1.Container, op lifecycle.Operation) error {
	if op == lifecycle.AddOperation {
		p.recordPod(s, pod)
		p.recordGrant(s, pod, container)
	}
	return p.kubeletAllocate(ctx, s, pod, container, op)
}

func (p *staticPolicy) AllocatePod(logger klog.Logger, s state.State, pod *v1.Pod, op lifecycle.Operation) error {
	if op == lifecycle.AddOperation {
		p.recordPod(s, pod)
	}
	return p.kubeletAllocatePod(logger, s, pod, op)
}

func (p *staticPolicy) GetTopologyHints(logger klog.Logger, s state.State, pod *v1.Pod, container *v1.Container, op lifecycle.Operation) map[string][]topologymanager.TopologyHint {
	if op == lifecycle.AddOperation {
		p.recordPod(s, pod)
	}
	return p.kubeletGetTopologyHints(logger, s, pod, container, op)
}

func (p *staticPolicy) GetPodTopologyHints(logger klog.Logger, s state.State, pod *v1.Pod, op lifecycle.Operation) map[string][]topologymanager.TopologyHint {
	if op == lifecycle.AddOperation {
		p.recordPod(s, pod)
	}
	return p.kubeletGetPodTopologyHints(logger, s, pod, op)
}

func (p *staticPolicy) calculateHints(machine state.NUMANodeMap, pod *v1.Pod, requested map[v1.ResourceName]uint64) map[string][]topologymanager.TopologyHint {
	now, uid, sizes := p.recordNow(machine), pod.UID, maps.Clone(requested)
	recorded.Later(func(test string) {
		st, left := now.recordState()
		if left == "" && len(sizes) == 0 {
			left = "hints for no memory"
		}
		if left != "" {
			vector.Emit(test, vector.Vector{Left: left})
			return
		}
		h := vector.Hints{State: st}
		h.Demand.Memory, h.Demand.Reuse.Memory = recordedSizes(sizes), now.recordReuse(string(uid))
		hints := now.kubeletCalculateHints(now.machine, &v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: uid}}, sizes)
		for _, list := range hints { // all types have the same
			h.Hints = drive.Hints(list)
		}
		vector.Emit(test, vector.Vector{Hints: &h})
	})
	return p.kubeletCalculateHints(machine, pod, requested)
}

// recordedManager is a policy in a state, as the kubelet's manager joins them.
type recordedManager struct {
	policy *staticPolicy
	state  state.State
}

func (m *recordedManager) GetTopologyHints(logger klog.Logger, pod *v1.Pod, c *v1.Container, op lifecycle.Operation) map[string][]topologymanager.TopologyHint {
	return m.policy.kubeletGetTopologyHints(logger, m.state, pod, c, op)
}

func (m *recordedManager) GetPodTopologyHints(logger klog.Logger, pod *v1.Pod, op lifecycle.Operation) map[string][]topologymanager.TopologyHint {
	return m.policy.kubeletGetPodTopologyHints(logger, m.state, pod, op)
}

func (m *recordedManager) AllocatePod(logger klog.Logger, pod *v1.Pod, op lifecycle.Operation) error {
	return m.policy.kubeletAllocatePod(logger, m.state, pod, op)
}

func (m *recordedManager) Allocate(ctx context.Context, pod *v1.Pod, c *v1.Container, op lifecycle.Operation) error {
	return m.policy.kubeletAllocate(ctx, m.state, pod, c, op)
}

func (m *recordedManager) Landings(pod *v1.Pod) []vector.Landing {
	if blocks := m.state.GetPodMemoryBlocks(string(pod.UID)); blocks != nil {
		return []vector.Landing{{Name: topology.WholePod, Memory: recordedBlocks(blocks)}, m.free()}
	}
	return append(drive.Landings(pod, func(name string, l *vector.Landing) {
		l.Memory = recordedBlocks(m.state.GetMemoryBlocks(string(pod.UID), name))
	}), m.free())
}

// free is what nobody holds.
func (m *recordedManager) free() vector.Landing {
	l := vector.Landing{Name: vector.Free}
	machine := m.state.GetMachineState()
	for id, node := range machine {
		for kind, t := range node.MemoryMap {
			if t.Free > 0 {
				l.Memory = append(l.Memory, topology.MemoryAllocation{Type: string(kind), NUMANodes: []int{id}, Size: t.Free})
			}
		}
	}
	slices.SortFunc(l.Memory, func(a, b topology.MemoryAllocation) int {
		return cmp.Or(strings.Compare(a.Type, b.Type), slices.Compare(a.NUMANodes, b.NUMANodes))
	})
	return l
}
