package allocator

import (
	"slices"

	"github.com/numalane/numalane/pkg/topology"
)

// search goes through all that may become of a node's traffic.
type search struct {
	*Traffic
	refused []bool // which items were refused at least once; nil: not asked for
	placed  []bool // and which of them, or of their twins, were not
	// landed is called with what an item may come to hold; nil: not asked for.
	landed func(item int, s *stake)

	pod     *Request // the pod in question: the last item; nil: none
	last    item
	moments map[where][]*moment
	levels  [2*maxItems + 1][]where // by how much has happened
	steps   int
	came    bool // the pod in question was admitted once
}

// where says how far each item has come.
type where [maxItems]progress

// level is how much has happened. Whatever happens next leads to a higher one.
func (w *where) level() int {
	n := 0
	for _, p := range w {
		n += int(p)
	}
	return n
}

type progress uint8

const (
	away progress = iota
	there
	left
)

// moment is one way in which the node may be.
type moment struct {
	node  *Node
	taken []*stake // by item: what one of no known place took, if it may go
}

// run looks at every order of events. The verdict is the first refusal of a
// pod that must be admitted; InFlux if there are too many ways.
func (s *search) run(pod *Request) Verdict {
	s.pod = pod
	if pod != nil {
		s.last = item{request: pod, absent: true, sure: true, twin: -1}
		s.last.after, s.last.without = s.before(^uint64(0))
	}
	s.moments = map[where][]*moment{}
	var start where
	for i := range s.items {
		if !s.items[i].absent {
			start[i] = there
		}
	}
	s.add(start, &moment{node: s.base, taken: make([]*stake, len(s.items)+1)})
	for level := range s.levels {
		for _, at := range s.levels[level] { // does not grow any more
			for i := range s.count() {
				if v := s.move(at, i); !v.OK() {
					return v
				}
			}
			delete(s.moments, at)
		}
	}
	if pod != nil && !s.came {
		// What is known contradicts itself, so nothing can be told from it.
		return Verdict{Reason: InFlux, Container: -1}
	}
	return Verdict{Reason: Admitted, Container: -1}
}

func (s *search) count() int {
	if s.pod == nil {
		return len(s.items)
	}
	return len(s.items) + 1
}

func (s *search) item(i int) *item {
	if i == len(s.items) {
		return &s.last
	}
	return &s.items[i]
}

// move lets one item do what it may do next, from every moment at a place.
func (s *search) move(at where, i int) Verdict {
	it := s.item(i)
	next := at
	switch {
	case at[i] == away && it.request != nil:
		if it.mayGo {
			// It may go without ever having come.
			next[i] = left
			if v := s.each(at, next, func(m *moment) (*moment, bool) { return m, true }); !v.OK() {
				return v
			}
		}
		if s.mayCome(at, it) {
			return s.meet(at, i)
		}
	case at[i] == away:
		next[i] = there
		return s.each(at, next, func(m *moment) (*moment, bool) {
			n, ok := m.node.place(it.stake)
			return &moment{n, m.taken}, ok
		})
	case at[i] == there && it.mayGo:
		next[i] = left
		return s.each(at, next, func(m *moment) (*moment, bool) {
			what := it.stake
			taken := m.taken
			if what == nil {
				what = m.taken[i]
				taken = slices.Clone(m.taken)
				taken[i] = nil
			}
			n, ok := m.node.release(what)
			return &moment{n, taken}, ok
		})
	}
	return Verdict{Reason: Admitted, Container: -1}
}

// mayCome tells whether all that is known to come before an item has.
func (s *search) mayCome(at where, it *item) bool {
	if it.twin >= 0 && at[it.twin] == away {
		return false
	}
	for i := range s.items {
		if it.after&(1<<i) != 0 && at[i] == away || it.without&(1<<i) != 0 && at[i] != left {
			return false
		}
	}
	return true
}

// meet lets the kubelet decide on an item of no known place.
func (s *search) meet(at where, i int) Verdict {
	it := s.item(i)
	for _, m := range s.moments[at] {
		if s.steps++; s.steps > maxSteps {
			return Verdict{Reason: InFlux, Container: -1}
		}
		outcomes, complete := m.node.Outcomes(it.request, maxOutcomes)
		if !complete {
			return Verdict{Reason: InFlux, Container: -1}
		}
		for j := range outcomes {
			o := &outcomes[j]
			next, to := at, *m
			next[i] = there
			if !o.Verdict.OK() {
				if it.sure {
					return o.Verdict
				}
				if s.refused != nil {
					s.refused[i] = true
				}
				next[i] = left
			} else {
				to.node = o.After
				if s.placed != nil {
					s.placed[s.family(i)] = true
				}
				if it.mayGo || s.landed != nil {
					took, ok := m.node.takenBy(o.After)
					if !ok {
						return Verdict{Reason: InFlux, Container: -1}
					}
					if s.landed != nil {
						s.landed(i, took)
					}
					if it.mayGo {
						to.taken = slices.Clone(m.taken)
						to.taken[i] = took
					}
				}
				s.came = s.came || i == len(s.items)
			}
			if v := s.add(next, &to); !v.OK() {
				return v
			}
		}
	}
	return Verdict{Reason: Admitted, Container: -1}
}

// each makes of every moment at a place one at the next, where that can be.
func (s *search) each(at, next where, becomes func(*moment) (*moment, bool)) Verdict {
	for _, m := range s.moments[at] {
		if s.steps++; s.steps > maxSteps {
			return Verdict{Reason: InFlux, Container: -1}
		}
		if to, ok := becomes(m); ok {
			if v := s.add(next, to); !v.OK() {
				return v
			}
		}
	}
	return Verdict{Reason: Admitted, Container: -1}
}

// add notes a moment unless it makes no difference to one that is known.
func (s *search) add(at where, m *moment) Verdict {
	known, seen := s.moments[at]
	if !seen {
		s.levels[at.level()] = append(s.levels[at.level()], at)
	}
	if slices.ContainsFunc(known, m.alike) {
		return Verdict{Reason: Admitted, Container: -1}
	}
	if len(known) == maxOutcomes {
		return Verdict{Reason: InFlux, Container: -1}
	}
	s.moments[at] = append(known, m)
	return Verdict{Reason: Admitted, Container: -1}
}

func (m *moment) alike(o *moment) bool {
	if !m.node.alike(o.node) {
		return false
	}
	for i := range m.taken {
		if a, b := m.taken[i], o.taken[i]; (a == nil) != (b == nil) || a != nil && !m.node.alikeStakes(a, b) {
			return false
		}
	}
	return true
}

// family is the first of an item's twins. They are looked at in one order, and
// may come in any.
func (t *Traffic) family(i int) int {
	for t.items[i].twin >= 0 {
		i = t.items[i].twin
	}
	return i
}

// Expected tells whether what a pod of no known place has turned out to hold is
// one of the ways that this traffic foretold. known is false when there were too
// many to tell.
func (t *Traffic) Expected(move int, held *topology.Allocation) (expected, known bool) {
	i := t.index[move]
	if i < 0 || t.over || len(t.items) >= maxItems {
		return false, false
	}
	got := t.base.stakeOf(held)
	if got == nil {
		return false, false
	}
	s := search{Traffic: t, landed: func(of int, took *stake) {
		if t.family(of) == t.family(i) && t.base.alikeStakes(got, took) {
			expected = true
		}
	}}
	v := s.run(nil)
	return expected, expected || v.Reason != InFlux
}
