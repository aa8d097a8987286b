package kubelet

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/numalane/numalane/pkg/topology"
)

// Input is what the kubelet does not tell and its state means nothing without.
type Input struct {
	Host  *topology.Host
	Minor int    // the kubelet's minor version, by ParseMinor of the Node's kubeletVersion
	Pools []Pool // the plugin's own
	Pods  []Pod  // the node's pods as the API has them, ended ones too
}

// Pod is a pod of the API on this node.
type Pod struct {
	// UID is the one that the kubelet uses: of a static pod that is not the
	// UID of its mirror pod, but the mirror's annotation kubernetes.io/config.mirror.
	UID             string
	Namespace, Name string
	// Ended is phase Succeeded or Failed: the kubelet takes back what the pod
	// held at its next admission.
	Ended bool
}

// Snapshot is what one reading of the kubelet found.
type Snapshot struct {
	Config      Config
	Allocatable Allocatable
	CPU         CPUState
	Memory      MemoryState
	Devices     DeviceState
	// Lost are the managers whose file was no use. What PodResources lists
	// stands in for it.
	Lost Lost
	// Inexact says what was wrong with the files, in words that stay the same
	// while the fault does.
	Inexact []string
	// Active is what PodResources lists. It is asked only when it is needed
	// (NeedsActive); nil when it was not, or did not answer.
	Active []ActivePod
}

// Lost names managers.
type Lost struct{ CPU, Memory, Devices bool }

func (l Lost) any() bool { return l.CPU || l.Memory || l.Devices }

// NeedsActive tells whether the files leave a question that only PodResources
// can answer: a file is lost, or holds a pod that the API does not have.
func (s *Snapshot) NeedsActive(in *Input) bool {
	if s.Lost.any() {
		return true
	}
	known := make(map[string]bool, len(in.Pods))
	for i := range in.Pods {
		known[in.Pods[i].UID] = true
	}
	for uid := range holdings(&s.CPU, &s.Memory, &s.Devices) {
		if !known[uid] {
			return true
		}
	}
	return false
}

// Assemble makes a NodeState of what was read. What pods of the API hold is
// Held, what only the kubelet's own pods hold is Unowned, and what ended pods
// held counts as free. The error says what is missing for a whole answer.
func Assemble(s *Snapshot, in *Input) (topology.NodeState, error) {
	if in.Host == nil {
		return topology.NodeState{}, errors.New("assemble the node's state: the machine has not been read yet")
	}
	memory := s.Memory.Machine
	if s.Lost.Memory {
		memory = s.Allocatable.Memory
	}
	nodes, err := machine(in.Host, &s.Config, s.Allocatable.CPUs, memory)
	if err != nil {
		return topology.NodeState{}, fmt.Errorf("assemble the node's state: %w", err)
	}
	state := topology.NodeState{
		Topology: topology.NodeTopology{
			Version:   topology.ContractVersion,
			Kubelet:   s.Config.Kubelet(in.Minor),
			NUMANodes: nodes,
			Inexact:   strings.Join(s.Inexact, "; "),
		},
		Pools: topology.NodePools{Version: topology.ContractVersion},
	}

	byUID := holdings(&s.CPU, &s.Memory, &s.Devices)
	pods := newPodIndex(in.Pods)
	s.standIn(byUID, pods)
	numa, index := numaOf(in.Host), indexDevices(in.Pools)
	held := map[deviceKey]HeldDevice{}
	noted := map[string][]string{} // resources by device, those of ended pods too
	live := map[string]bool{}
	active := s.stillActive(byUID, pods)
	for _, uid := range slices.Sorted(maps.Keys(byUID)) {
		h := byUID[uid]
		for _, c := range h {
			for _, d := range c.devices {
				noted[d.ID] = append(noted[d.ID], d.Resource)
			}
		}
		pod, known := pods.byUID[uid]
		if known && pod.Ended || !known && !active[uid] {
			continue
		}
		live[uid] = true
		a := h.allocation(uid, numa, index)
		if len(a.Containers) == 0 {
			continue
		}
		for _, c := range h {
			for _, d := range c.devices {
				held[deviceKey{d.Resource, d.ID}] = d
			}
		}
		if known {
			state.Held = append(state.Held, a)
		} else {
			state.Pools.Unowned = append(state.Pools.Unowned, a)
		}
	}
	if s.Config.CPUManagerPolicy == topology.CPUManagerStatic && !s.Lost.CPU {
		state.Pools.Contended, state.Pools.Leaked = s.CPU.deviations(s.Allocatable.CPUs, live)
	}
	if s.Config.MemoryManagerPolicy == topology.MemoryManagerStatic && !s.Lost.Memory {
		if accounts := s.Memory.accounts(live); len(accounts) > 0 {
			state.Pools.Memory = accounts[0]
			state.Pools.MemoryElse = append(state.Pools.MemoryElse, accounts[1:]...)
		}
	}
	registered := s.Devices.Registered
	if s.Lost.Devices {
		for i := range in.Pools {
			registered = append(registered, in.Pools[i].Resource) // or so it seems from here
		}
	}
	state.Pools.Pools = pools(notElsewhere(in.Pools, noted), s.Allocatable.Devices, held, registered)
	return state, nil
}

type podName struct{ namespace, name string }

type podIndex struct {
	byUID  map[string]*Pod
	byName map[podName]*Pod // those that have not ended
}

func newPodIndex(pods []Pod) podIndex {
	ix := podIndex{byUID: make(map[string]*Pod, len(pods)), byName: make(map[podName]*Pod, len(pods))}
	for i := range pods {
		p := &pods[i]
		ix.byUID[p.UID] = p
		if !p.Ended {
			ix.byName[podName{p.Namespace, p.Name}] = p
		}
	}
	return ix
}

// standIn fills in for the lost files what PodResources lists. A pod that the
// API does not have goes by its name, for its UID is not told.
func (s *Snapshot) standIn(byUID map[string]holding, pods podIndex) {
	for _, a := range s.Active {
		uid := a.Namespace + "/" + a.Name
		if p, ok := pods.byName[podName{a.Namespace, a.Name}]; ok {
			uid = p.UID
		}
		for name, c := range a.held {
			if byUID[uid] == nil {
				byUID[uid] = holding{}
			}
			into := byUID[uid].of(name)
			if s.Lost.CPU {
				into.cpus = c.cpus
			}
			if s.Lost.Memory {
				into.memory = c.memory
			}
			if s.Lost.Devices {
				into.devices = c.devices
			}
		}
	}
}

// stillActive are those pods that hold something, that the API does not have and
// that the kubelet counts: a static pod without its mirror it does, a deleted pod
// it does not, and what that held is free at the next admission. Counting it as
// held would keep the very admission away that frees it. PodResources names no
// UID, so each pod that it lists vouches for one that holds a device or a CPU of
// its, or else memory like its. Without an answer all count.
func (s *Snapshot) stillActive(byUID map[string]holding, pods podIndex) map[string]bool {
	var unknown []string
	for _, uid := range slices.Sorted(maps.Keys(byUID)) {
		if _, known := pods.byUID[uid]; !known {
			unknown = append(unknown, uid)
		}
	}
	active := map[string]bool{}
	if s.Active == nil {
		for _, uid := range unknown {
			active[uid] = true
		}
		return active
	}
	var witnesses []holding
	for i := range s.Active {
		if _, ofAPI := pods.byName[podName{s.Active[i].Namespace, s.Active[i].Name}]; !ofAPI {
			witnesses = append(witnesses, s.Active[i].held)
		}
	}
	for _, alike := range []func(a, b *share) bool{(*share).overlaps, (*share).hasSameMemory, (*share).sharesMemory} {
		for _, uid := range unknown {
			if active[uid] {
				continue
			}
			if at := slices.IndexFunc(witnesses, func(w holding) bool { return w.anyOf(byUID[uid], alike) }); at >= 0 {
				active[uid] = true
				witnesses = slices.Delete(witnesses, at, at+1)
			}
		}
	}
	return active
}
