package allocator

import (
	"slices"

	"github.com/numalane/numalane/pkg/topology"
)

// Move is a pod of a node: on its way to it, there, or on its way from it.
//
// Its moments are numbers on a clock of whoever watches, which counts what it
// sees. What was seen before a pod was promised to a node the kubelet knows when
// it meets that pod: its watch shows changes in the order in which they were
// made. All else may come to it in any order: it takes pods that wait in one
// batch by their age, and sets its own pods' ends before it tells of them.
type Move struct {
	Request *Request
	// Held is what the pod's node says that it holds; nil as long as it has
	// said nothing.
	Held *topology.Allocation

	Bound   uint64 // when the node was promised to it
	Settled uint64 // when its node was seen to say what it holds
	Gone    uint64 // when it was seen to have ended; 0 for one that lives
	Leaving bool   // it is being deleted: it may end at any time, or have ended
	// Foreign: it was bound without having been asked for.
	Foreign bool
}

// Traffic is a node on which pods come and go at this moment. It is immutable.
//
// Admit is not monotone, so the order in which the kubelet meets them matters.
// With 4 and 3 CPUs free on two NUMA nodes, and a VF on the first, a pod of 3
// CPUs takes the first and keeps a pod of 2 CPUs and the VF out; with 2 and 3
// free both fit.
type Traffic struct {
	base  *Node
	full  *Node // where only numbers count: with all that may come, without who has gone
	items []item
	over  bool // there is too much of it to follow
	idle  []bool
	index []int // of a move among the items; -1: none
}

const (
	// maxItems is how many pods on their way are followed.
	maxItems = 16
	// maxSteps bounds the work on one question.
	maxSteps = 1500
)

// CompileTraffic reads a NodeState and the pods that have to do with it. What
// they hold must not be in s.Held, which is for those that neither come nor go.
// Totals are left out: they do not depend on any order.
func CompileTraffic(s *topology.NodeState, moves []Move) (*Traffic, error) {
	t := &Traffic{idle: make([]bool, len(moves)), index: make([]int, len(moves))}
	moves = evident(moves)
	roles := relevance(moves)
	if err := t.compileBase(s, moves, roles); err != nil {
		return nil, err
	}
	for i := range moves {
		t.index[i] = -1
		switch roles[i] {
		case stands:
			continue
		case forgotten:
			t.idle[i] = true
			continue
		}
		t.index[i] = len(t.items)
		t.items = append(t.items, t.newItem(&moves[i], roles[i]))
	}
	if t.full = t.filled(); t.full != nil {
		return t, nil
	}
	t.order()
	t.over = t.over || len(t.items) >= maxItems
	if !t.over && len(t.items) > 0 {
		t.seeWhoIsSure()
	}
	return t, nil
}

// compileBase is the node before anybody on the way has come or gone. Where that
// contradicts itself, some of those that are leaving have left, and which ones
// cannot be told.
func (t *Traffic) compileBase(s *topology.NodeState, moves []Move, roles []role) error {
	with := func(wanted ...role) (*Node, error) {
		state := *s
		state.Held, state.Totals = slices.Clip(s.Held), nil
		for i := range moves {
			if moves[i].Held != nil && slices.Contains(wanted, roles[i]) {
				state.Held = append(state.Held, *moves[i].Held)
			}
		}
		return Compile(&state)
	}
	var err error
	if t.base, err = with(stands, leaves); err == nil {
		return nil
	}
	if !slices.Contains(roles, leaves) {
		return err
	}
	t.over = true
	t.base, err = with(stands)
	return err
}

// Forgotten tells whether a move, by its index, no longer has a bearing on anything.
func (t *Traffic) Forgotten(move int) bool { return t.idle[move] }

// Base is the node with what is known to be held, and what is leaving.
func (t *Traffic) Base() *Node { return t.base }

// Followed tells whether all that may become of the node can be told.
func (t *Traffic) Followed() bool { return !t.over }

// Unsettled is the number of pods that are followed.
func (t *Traffic) Unsettled() int { return len(t.items) }

// item is a move that is followed.
type item struct {
	request *Request // of one whose place is not known
	stake   *stake   // of one whose place is known
	absent  bool     // it is not there at first
	mayGo   bool
	gone    bool // it has gone by now
	foreign bool
	sure    bool // it is admitted whatever happens

	bound, settled, goneAt uint64

	// Before it comes, these have come, and these have gone, by item.
	after, without uint32
	// twin is the item before it that asks for the same and is free to come at
	// the same times: they need only be looked at in one order. -1: none.
	twin int
}

func (t *Traffic) newItem(m *Move, r role) item {
	it := item{
		absent: r == arrives, mayGo: m.Gone != 0 || m.Leaving, gone: m.Gone != 0, foreign: m.Foreign,
		bound: m.Bound, settled: m.Settled, goneAt: m.Gone, twin: -1,
	}
	if m.Held == nil {
		it.request = m.Request
		return it
	}
	it.stake = t.base.stakeOf(m.Held)
	t.over = t.over || it.stake == nil
	return it
}

// order works out what is known of the order in which pods come and go.
func (t *Traffic) order() {
	if len(t.items) >= maxItems {
		return
	}
	for i := range t.items {
		it := &t.items[i]
		if it.request == nil {
			continue
		}
		it.after, it.without = t.before(it.bound)
		if it.mayGo {
			continue
		}
		for j := range t.items[:i] {
			o := &t.items[j]
			if o.request != nil && !o.mayGo && o.after == it.after && o.without == it.without && o.request.shape == it.request.shape {
				it.twin = j
			}
		}
	}
}

// before are the items that had come and those that had gone by a moment.
func (t *Traffic) before(moment uint64) (come, gone uint32) {
	for i := range t.items {
		it := &t.items[i]
		if it.stake != nil && it.settled <= moment {
			come |= 1 << i
		}
		if it.gone && it.goneAt <= moment {
			gone |= 1 << i
		}
	}
	return come, gone
}

// filled is the node once all have come, where the kubelet's answer depends on
// nothing but sums: no order of events leaves less. It is nil where that is not
// so, or where not all of them fit.
func (t *Traffic) filled() *Node {
	if t.over || len(t.items) == 0 || t.base.likeness() != byTotal {
		return nil
	}
	n, ok := t.base, true
	for i := range t.items {
		if it := &t.items[i]; it.stake != nil && it.gone && !it.absent {
			if n, ok = n.release(it.stake); !ok {
				return nil
			}
		}
	}
	for i := range t.items {
		switch it := &t.items[i]; {
		case !it.absent || it.gone:
		case it.stake != nil:
			if n, ok = n.place(it.stake); !ok {
				return nil
			}
		default:
			after, v := n.After(it.request)
			if !v.OK() {
				return nil
			}
			n = after // who takes which is all the same
		}
	}
	return n
}

// seeWhoIsSure finds out which pods may be refused even if nobody else comes:
// a foreign one, or one that has been overtaken by another's end. Their fate no
// promise can change. One that was promised the node and has no place in any way
// shows that what is known is not as it is.
func (t *Traffic) seeWhoIsSure() {
	placed := make([]bool, len(t.items))
	s := search{Traffic: t, refused: make([]bool, len(t.items)), placed: placed}
	if v := s.run(nil); v.Reason == InFlux {
		t.over = true
		return
	}
	for i := range t.items {
		it := &t.items[i]
		it.sure = it.request != nil && !it.mayGo && !s.refused[i]
		if it.request != nil && !it.mayGo && !it.foreign && !placed[t.family(i)] {
			t.over = true
		}
	}
}

// Admit tells whether the kubelet will admit a pod that is promised the node
// now, and will still admit all that were promised before, in whatever order it
// meets them. The verdict is that of the first refusal found, or InFlux when
// there are more ways than can be followed. Container is of the refused pod.
func (t *Traffic) Admit(r *Request) Verdict {
	if len(t.items) == 0 || t.onlyMakesRoom(r) {
		return t.base.Admit(r)
	}
	if t.full != nil {
		return t.full.Admit(r)
	}
	if t.over {
		return Verdict{Reason: InFlux, Container: -1}
	}
	if v := t.base.Admit(r); !v.OK() && t.base.refusesMore(r) && !t.anyMayGo() {
		return v
	}
	s := search{Traffic: t}
	return s.run(r)
}

// anyMayGo tells whether the node may have more room than Base has.
func (t *Traffic) anyMayGo() bool {
	return slices.ContainsFunc(t.items, func(it item) bool { return it.mayGo })
}

// onlyMakesRoom tells that all that may happen to the node is that it has more
// room, and that this cannot harm the pod.
func (t *Traffic) onlyMakesRoom(r *Request) bool {
	for i := range t.items {
		if it := &t.items[i]; it.absent || it.gone {
			return false
		}
	}
	return !t.over && t.base.refusesMore(r)
}
