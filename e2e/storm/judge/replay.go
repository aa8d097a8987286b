package judge

import (
	"errors"
	"fmt"
	"math/bits"
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

// no tells that the pod may be refused, yes that it cannot be.
func (a answer) no() bool  { return a.err == nil && !a.OK() }
func (a answer) yes() bool { return a.err == nil && a.OK() }

func (a answer) String() string {
	switch {
	case a.err != nil:
		return "cannot be told: " + a.err.Error()
	case a.OK():
		return "yes, in any order"
	}
	return fmt.Sprintf("no, in some order: %s (%s)", a.Reason.Code(), a.KubeletReason())
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

// replay asks whether the kubelet admits the pod, whatever order it and all
// tenants that are on their way reach it in. It is not asked whether those are
// admitted: another's refusal would have a case of its own.
//
// This is not what the ledger does (allocator.Traffic) but a plain walk through
// all orders: a judge that shares the rule would share its mistakes.
func replay(p *journal.Publication, pod *journal.Pod, tenants []tenant) (a answer, steps int) {
	var there []tenant
	w := walk{pod: allocator.NewRequest(pod.Spec), seen: map[uint64][]*allocator.Node{}}
	for _, t := range tenants {
		if r := allocator.NewRequest(t.pod.Spec); t.held == nil && r.Exclusive() {
			w.waiting = append(w.waiting, r)
		} else {
			there = append(there, t)
		}
	}
	n, err := compile(p, there)
	if err != nil {
		return answer{err: err}, 1
	}
	a.Verdict = w.from(n, 0)
	if a.OK() && w.steps > mostSteps {
		a.err = errors.New("there are too many orders")
	}
	return a, w.steps
}

// walk goes through the orders in which pods may reach a kubelet.
type walk struct {
	pod     *allocator.Request
	waiting []*allocator.Request
	seen    map[uint64][]*allocator.Node // states by who has come
	steps   int
}

const (
	// mostSteps bounds the walk, mostOutcomes what one admission may come to.
	mostSteps, mostOutcomes = 2000, 8
)

// from is the first refusal of the pod that the walk finds, from a state that
// some have reached.
func (w *walk) from(n *allocator.Node, come uint64) allocator.Verdict {
	if w.steps > mostSteps || slices.ContainsFunc(w.seen[come], n.Equal) {
		return allocator.Verdict{}
	}
	w.steps++
	w.seen[come] = append(w.seen[come], n)
	if v := n.Admit(w.pod); !v.OK() {
		return v
	}
	for i, r := range w.waiting {
		if come&(1<<i) != 0 {
			continue
		}
		outcomes, complete := n.Outcomes(r, mostOutcomes)
		if !complete {
			w.steps = mostSteps + 1
		}
		for j := range outcomes {
			if !outcomes[j].Verdict.OK() {
				continue // it leaves all as it is
			}
			if v := w.from(outcomes[j].After, come|1<<i); !v.OK() {
				return v
			}
		}
	}
	return allocator.Verdict{}
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

// subsets calls yield with every subset of at most most pods, the smallest first
// and the empty one before all, until it says no. Of more than most pods it takes
// each prefix and each one alone: all ends in their order.
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
	masks := make([]uint, 1<<len(pods))
	for i := range masks {
		masks[i] = uint(i)
	}
	slices.SortStableFunc(masks, func(a, b uint) int { return bits.OnesCount(a) - bits.OnesCount(b) })
	for _, mask := range masks {
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
