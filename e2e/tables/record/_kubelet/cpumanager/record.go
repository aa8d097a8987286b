// Package cpumanager, this file: what the recorder adds to the kubelet's. The
// functions that it stands in for are named kubelet… in the kubelet's files.
package cpumanager

import (
	"context"
	"maps"

	v1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/kubelet/cm/admission"
	"k8s.io/kubernetes/pkg/kubelet/cm/cpumanager/state"
	"k8s.io/kubernetes/pkg/kubelet/cm/cpumanager/topology"
	"k8s.io/kubernetes/pkg/kubelet/cm/topologymanager"
	"k8s.io/kubernetes/pkg/kubelet/lifecycle"
	"k8s.io/utils/cpuset"

	"github.com/numalane/numalane/e2e/tables/drive"
	"github.com/numalane/numalane/e2e/tables/vector"
	published "github.com/numalane/numalane/pkg/topology"
)

// recorded are the questions to ask when the kubelet's tests have ended.
var recorded vector.Queue

func takeByTopologyNUMAPacked(logger klog.Logger, topo *topology.CPUTopology, available cpuset.CPUSet, count int, strategy CPUSortingStrategy, byCache bool) (cpuset.CPUSet, error) {
	take := vector.Take{ByCache: byCache, Spread: strategy == CPUSortingStrategySpread, Count: count}
	recordTake(topo, take, available, func(topo *topology.CPUTopology) (cpuset.CPUSet, error) {
		return kubeletTakeByTopologyNUMAPacked(logger, topo, available, count, strategy, byCache)
	})
	return kubeletTakeByTopologyNUMAPacked(logger, topo, available, count, strategy, byCache)
}

func takeByTopologyNUMADistributed(logger klog.Logger, topo *topology.CPUTopology, available cpuset.CPUSet, count, group int, strategy CPUSortingStrategy, bySocket bool) (cpuset.CPUSet, error) {
	take := vector.Take{Group: group, BySocket: bySocket, Spread: strategy == CPUSortingStrategySpread, Count: count}
	recordTake(topo, take, available, func(topo *topology.CPUTopology) (cpuset.CPUSet, error) {
		return kubeletTakeByTopologyNUMADistributed(logger, topo, available, count, group, strategy, bySocket)
	})
	return kubeletTakeByTopologyNUMADistributed(logger, topo, available, count, group, strategy, bySocket)
}

func recordTake(topo *topology.CPUTopology, take vector.Take, available cpuset.CPUSet, call func(*topology.CPUTopology) (cpuset.CPUSet, error)) {
	recorded.Later(func(test string) {
		machine, left := drive.Machine(topo)
		if left == "" && !available.IsSubsetOf(topo.CPUDetails.CPUs()) {
			left = "free CPUs that the machine does not have"
		}
		if left != "" {
			vector.Emit(test, vector.Vector{Left: left})
			return
		}
		take.NUMA, take.Available = machine, published.CPUSet{CPUSet: available}
		if got, err := call(drive.Whole(topo)); err != nil {
			take.Failed = true
		} else {
			take.Got = published.CPUSet{CPUSet: got}
		}
		vector.Emit(test, vector.Vector{Take: &take})
	})
}

// recordState is the node that a policy stands for, with some CPUs free.
func (p *staticPolicy) recordState(free cpuset.CPUSet) (vector.State, string) {
	machine, left := drive.Machine(p.topology)
	all := p.topology.CPUDetails.CPUs()
	switch {
	case left != "":
		return vector.State{}, left
	case !free.IsSubsetOf(all):
		return vector.State{}, "free CPUs that the machine does not have"
	case !p.reservedCPUs.IsSubsetOf(all):
		return vector.State{}, "reserved CPUs that the machine does not have"
	}
	drive.Reserve(machine, p.reservedCPUs)
	s := vector.State{NUMA: machine, CPUs: string(PolicyStatic), CPUOpts: map[string]string{}, Held: drive.Hold(machine, free)}
	for name, on := range map[string]bool{
		FullPCPUsOnlyOption:             p.options.FullPhysicalCPUsOnly,
		DistributeCPUsAcrossNUMAOption:  p.options.DistributeCPUsAcrossNUMA,
		AlignBySocketOption:             p.options.AlignBySocket,
		DistributeCPUsAcrossCoresOption: p.options.DistributeCPUsAcrossCores,
		StrictCPUReservationOption:      p.options.StrictCPUReservation,
		PreferAlignByUnCoreCacheOption:  p.options.PreferAlignByUncoreCacheOption,
	} {
		if on {
			s.CPUOpts[name] = "true"
		}
	}
	return s, ""
}

// recordNow is the policy and its state as they are, on a whole topology.
func (p *staticPolicy) recordNow(s state.State, pod *v1.Pod) *recordedManager {
	c := *p
	c.topology = drive.Whole(p.topology)
	c.cpuGroupSize = c.topology.CPUsPerCore()
	c.cpusToReuse = map[string]cpuset.CPUSet{}
	maps.Copy(c.cpusToReuse, p.cpusToReuse)
	m := &recordedManager{policy: &c, state: state.NewMemoryState(klog.Logger{})}
	m.state.SetDefaultCPUSet(s.GetDefaultCPUSet())
	// The other pods' CPUs are those missing in the default set.
	if own := s.GetCPUAssignments()[string(pod.UID)]; len(own) > 0 {
		m.state.SetCPUAssignments(state.ContainerCPUAssignments{string(pod.UID): maps.Clone(own)})
	}
	return m
}

// copied is the manager once more, under a topology manager.
func (m *recordedManager) copied(store topologymanager.Store) *recordedManager {
	c := m.policy.recordNow(m.state, &v1.Pod{})
	c.policy.affinity = store
	return c
}

// recordPod asks the kubelet about a pod that a test names, where the state is
// one that the pod could arrive at.
func (p *staticPolicy) recordPod(s state.State, pod *v1.Pod) {
	m, pod := p.recordNow(s, pod), pod.DeepCopy()
	recorded.Later(func(test string) {
		st, left := m.policy.recordState(m.state.GetDefaultCPUSet().Difference(p.reservedCPUs))
		if left == "" {
			left = drive.Strange(pod)
		}
		if left == "" && (len(m.state.GetCPUAssignments()) > 0 || !m.policy.cpusToReuse[string(pod.UID)].IsEmpty()) {
			left = "a pod that has CPUs already"
		}
		if left != "" {
			vector.Emit(test, vector.Vector{Left: left})
			return
		}
		st.Gates = drive.Gates()
		drive.EmitPod(test, st, m.policy.topology.CPUDetails.NUMANodes().List(), pod, 1, func(store topologymanager.Store) drive.Manager {
			return m.copied(store)
		})
	})
}

// recordGrant asks what the container gets under the hint that a test gives.
// Without a hint and a past that is what the pod gets under policy none.
func (p *staticPolicy) recordGrant(s state.State, pod *v1.Pod, container *v1.Container) {
	uid := string(pod.UID)
	hint := p.affinity.GetAffinity(klog.Logger{}, uid, container.Name)
	reuse := p.cpusToReuse[uid]
	if _, placed := s.GetCPUSet(uid, container.Name); placed || hint.NUMANodeAffinity == nil && reuse.IsEmpty() {
		return
	}
	m, pod, container := p.recordNow(s, pod), pod.DeepCopy(), container.DeepCopy()
	recorded.Later(func(test string) {
		st, left := m.policy.recordState(m.state.GetDefaultCPUSet().Difference(p.reservedCPUs))
		if left == "" {
			left = drive.Strange(pod)
		}
		if left != "" {
			vector.Emit(test, vector.Vector{Left: left})
			return
		}
		g := vector.Grant{State: st, Kind: drive.Kind(pod, container), Hint: drive.Hint(hint)}
		g.Demand.CPUs = m.policy.guaranteedCPUs(klog.Logger{}, pod, container)
		g.Demand.Reuse.CPUs = published.CPUSet{CPUSet: reuse}
		err := m.policy.kubeletAllocate(klog.Logger{}, m.state, pod, container, lifecycle.AddOperation)
		got, given := m.state.GetCPUSet(uid, container.Name)
		if err == nil && !given {
			return // not the manager's business
		}
		g.Reason = admission.GetPodAdmitResult(err).Reason
		if err == nil {
			g.Lands = [][]vector.Landing{{{CPUs: published.CPUSet{CPUSet: got}}, m.free()}}
		}
		vector.Emit(test, vector.Vector{Grant: &g})
	})
}

func (p *staticPolicy) Allocate(logger klog.Logger, s state.State, pod *v1.Pod, container *v1.Container, op lifecycle.Operation) error {
	if op == lifecycle.AddOperation {
		p.recordPod(s, pod)
		p.recordGrant(s, pod, container)
	}
	return p.kubeletAllocate(logger, s, pod, container, op)
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

func (p *staticPolicy) generateCPUTopologyHints(available, reusable cpuset.CPUSet, count int) []topologymanager.TopologyHint {
	c := *p
	recorded.Later(func(test string) {
		st, left := c.recordState(available)
		if left != "" {
			vector.Emit(test, vector.Vector{Left: left})
			return
		}
		c.topology = drive.Whole(c.topology)
		h := vector.Hints{State: st, Hints: drive.Hints(c.kubeletGenerateCPUTopologyHints(available, reusable, count))}
		h.Demand.CPUs, h.Demand.Reuse.CPUs = count, published.CPUSet{CPUSet: reusable}
		vector.Emit(test, vector.Vector{Hints: &h})
	})
	return p.kubeletGenerateCPUTopologyHints(available, reusable, count)
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
	return m.policy.kubeletAllocate(klog.FromContext(ctx), m.state, pod, c, op)
}

func (m *recordedManager) Landings(pod *v1.Pod) []vector.Landing {
	if set, ok := m.state.GetPodCPUSet(string(pod.UID)); ok {
		return []vector.Landing{{Name: published.WholePod, CPUs: published.CPUSet{CPUSet: set}}, m.free()}
	}
	return append(drive.Landings(pod, func(name string, l *vector.Landing) {
		set, _ := m.state.GetCPUSet(string(pod.UID), name)
		l.CPUs = published.CPUSet{CPUSet: set}
	}), m.free())
}

// free is what nobody holds.
func (m *recordedManager) free() vector.Landing {
	return vector.Landing{Name: vector.Free, CPUs: published.CPUSet{CPUSet: m.policy.GetAvailableCPUs(m.state)}}
}
