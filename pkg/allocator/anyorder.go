package allocator

import (
	"fmt"
	"slices"
	"strings"
)

// AdmitInAnyOrder tells whether the kubelet will admit every one of the pods,
// whatever order they reach it in. Order matters, and more room is not always
// better: with 4 and 3 CPUs free on two NUMA nodes, and a VF on the first, a
// pod of 3 CPUs takes the first and keeps a pod of 2 CPUs and the VF out.
//
// The verdict is that of the first refusal found, or InFlux when there are
// more outcomes than can be followed. Container is of the refused pod.
func (n *Node) AdmitInAnyOrder(rs []*Request) Verdict {
	switch len(rs) {
	case 0:
		return Verdict{Reason: Admitted, Container: -1}
	case 1:
		return n.Admit(rs[0])
	}
	kinds, counts := n.byShape(rs)
	// outcomes are the states after so many pods of each kind, in any order.
	outcomes := map[string][]*Node{key(make([]int, len(kinds))): {n}}
	frontier := [][]int{make([]int, len(kinds))}
	for range rs {
		next := map[string][]*Node{}
		var vectors [][]int
		for _, have := range frontier {
			for k := range kinds {
				if have[k] == counts[k] {
					continue
				}
				with := slices.Clone(have)
				with[k]++
				at := key(with)
				if _, seen := next[at]; !seen {
					vectors = append(vectors, with)
				}
				for _, state := range outcomes[key(have)] {
					afters, v := state.afters(kinds[k])
					if !v.OK() {
						return v
					}
					for _, after := range afters {
						if !slices.ContainsFunc(next[at], after.Equal) {
							next[at] = append(next[at], after)
						}
					}
				}
				if len(next[at]) > maxOutcomes || len(vectors) > maxOutcomes*maxOutcomes {
					return Verdict{Reason: InFlux, Container: -1}
				}
			}
		}
		outcomes, frontier = next, vectors
	}
	return Verdict{Reason: Admitted, Container: -1}
}

// afters are the states that an admission may lead to. The verdict is that of
// the first refusal among them.
func (n *Node) afters(r *Request) ([]*Node, Verdict) {
	outcomes, complete := n.Outcomes(r, maxOutcomes)
	if !complete {
		return nil, Verdict{Reason: InFlux, Container: -1}
	}
	states := make([]*Node, len(outcomes))
	for i := range outcomes {
		if !outcomes[i].Verdict.OK() {
			return nil, outcomes[i].Verdict
		}
		states[i] = outcomes[i].After
	}
	return states, outcomes[0].Verdict
}

// byShape groups requests that ask for the same: their order does not matter.
func (n *Node) byShape(rs []*Request) (kinds []*Request, counts []int) {
	index := map[string]int{}
	for _, r := range rs {
		shape := r.shape
		if n.totals != nil {
			shape += fmt.Sprint(r.totals, r.unclaimed)
		}
		k, ok := index[shape]
		if !ok {
			k = len(kinds)
			index[shape] = k
			kinds, counts = append(kinds, r), append(counts, 0)
		}
		counts[k]++
	}
	return kinds, counts
}

func key(v []int) string { return fmt.Sprint(v) }

// shape writes down all that an admission depends on.
func (q *ask) shape() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v,%v,%v,%v,%v", q.pod, q.guaranteed, q.asWhole, q.noSharedCPUs, q.noSharedMemory)
	for i := range q.containers {
		c := &q.containers[i]
		fmt.Fprintf(&b, ";%d,%v", c.kind, c.demand)
	}
	return b.String()
}
