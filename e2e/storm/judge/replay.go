package judge

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	componentresource "k8s.io/component-helpers/resource"

	"github.com/numalane/numalane/e2e/storm/journal"
	"github.com/numalane/numalane/pkg/allocator"
	"github.com/numalane/numalane/pkg/topology"
)

// tenant is a pod of a replayed state: it holds what it is said to hold, or is on
// its way to the node.
type tenant struct {
	pod  *journal.Pod
	held *topology.Allocation // nil: on its way
}

// answer is what the kubelet is foretold to say.
type answer struct {
	allocator.Verdict
	err error // nothing can be foretold
}

func (a answer) String() string {
	switch {
	case a.err != nil:
		return "cannot be told: " + a.err.Error()
	case a.OK():
		return "yes"
	}
	return fmt.Sprintf("no, %s (%s)", a.Reason.Code(), a.KubeletReason())
}

// Compile lays out a node as it was published, with what pods hold and with the
// sums of all that are bound to it.
func Compile(p *journal.Publication, held []topology.Allocation, bound []*corev1.Pod) (*allocator.Node, error) {
	s, err := state(p, held, bound)
	if err != nil {
		return nil, err
	}
	return allocator.Compile(s)
}

func state(p *journal.Publication, held []topology.Allocation, bound []*corev1.Pod) (*topology.NodeState, error) {
	s := &topology.NodeState{Held: held}
	var err error
	if s.Topology, err = topology.Decode[topology.NodeTopology](p.Topology); err != nil {
		return nil, err
	}
	if s.Pools, err = topology.Decode[topology.NodePools](p.Pools); err != nil {
		return nil, err
	}
	// What is held without a pod of the API is told late, for people; of a pod that
	// has just gone it is free again with the next admission.
	s.Pools.Unowned = nil
	s.Totals = &topology.Totals{Allocatable: map[string]int64{}, Requested: map[string]int64{}}
	for name, q := range p.Allocatable {
		s.Totals.Allocatable[string(name)] = q.Value()
		if name == corev1.ResourceCPU {
			s.Totals.Allocatable[string(name)] = q.MilliValue()
		}
	}
	for _, pod := range bound {
		s.Totals.Requested["pods"]++
		for name, q := range componentresource.PodRequests(pod, componentresource.PodResourcesOptions{}) {
			n := q.Value()
			if name == corev1.ResourceCPU {
				n = q.MilliValue()
			}
			s.Totals.Requested[string(name)] += n
		}
	}
	return s, nil
}

// replay asks whether the node admits the pod and all tenants that are on their
// way, whatever order they reach it in.
func replay(p *journal.Publication, pod *journal.Pod, tenants []tenant) answer {
	var there []tenant
	var waiting []allocator.Move
	for _, t := range tenants {
		if r := allocator.NewRequest(t.pod.Spec); t.held == nil && r.Exclusive() {
			waiting = append(waiting, allocator.Move{Request: r, Bound: uint64(len(waiting) + 1), Foreign: t.pod.Foreign})
		} else {
			there = append(there, t)
		}
	}
	held, bound := sums(there)
	s, err := state(p, held, bound)
	if err != nil {
		return answer{err: err}
	}
	n, err := allocator.Compile(s)
	if err != nil {
		return answer{err: err}
	}
	r := allocator.NewRequest(pod.Spec)
	if v := n.Admit(r); v.Reason == allocator.OutOfTotals {
		return answer{Verdict: v}
	}
	t, err := allocator.CompileTraffic(s, waiting)
	if err != nil {
		return answer{err: err}
	}
	return answer{Verdict: t.Admit(r)}
}

// sums are what tenants hold, and the pods that count in the node's totals.
func sums(ts []tenant) (held []topology.Allocation, bound []*corev1.Pod) {
	for _, t := range ts {
		bound = append(bound, t.pod.Spec)
		if t.held != nil {
			held = append(held, *t.held)
		}
	}
	return held, bound
}

// without are the tenants but for some pods.
func without(tenants []tenant, gone []*journal.Pod) []tenant {
	return slices.DeleteFunc(slices.Clone(tenants), func(t tenant) bool {
		return slices.ContainsFunc(gone, func(p *journal.Pod) bool { return p.UID == t.pod.UID })
	})
}

// subsets calls yield with every subset of at most most pods, the empty one
// first, until it says no. Of more than most pods it takes each prefix and each
// one alone: all ends in their order.
func subsets(pods []*journal.Pod, most int, yield func([]*journal.Pod) bool) {
	if len(pods) > most {
		for n := range len(pods) + 1 {
			if !yield(pods[:n]) {
				return
			}
		}
		for i := range pods {
			if !yield(pods[i : i+1]) {
				return
			}
		}
		return
	}
	for mask := range 1 << len(pods) {
		var some []*journal.Pod
		for i := range pods {
			if mask&(1<<i) != 0 {
				some = append(some, pods[i])
			}
		}
		if !yield(some) {
			return
		}
	}
}
