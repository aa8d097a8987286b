// Package packing finds by exhaustive search the most that pods of a few kinds
// can come to hold on given nodes.
package packing

import (
	"slices"

	"github.com/numalane/numalane/pkg/allocator"
)

// Kind are pods that ask for the same.
type Kind struct {
	Request *allocator.Request
	Value   int // what one pod is worth
	Count   int // how many there are
}

// Result is what the search found.
type Result struct {
	Value  int
	Counts []int // of each kind, one way to reach it
	Mixes  int   // how many it looked at
	// Cut tells that a node had more states than are followed: then Value is a
	// lower bound.
	Cut bool
}

const (
	// mostOutcomes and mostStates bound what is followed: how one admission may
	// end, and the states of a node that holds one mix.
	mostOutcomes, mostStates = 8, 64
)

// Most finds the best way to place any of the pods: for every node all mixes of
// kinds that its kubelet admits in some order, and of those one a node.
func Most(nodes []*allocator.Node, kinds []Kind) Result {
	var r Result
	dims := newDims(kinds)
	reached := make([]bool, dims.size())
	reached[0] = true
	for _, n := range nodes {
		all, cut := mixes(n, kinds)
		r.Cut = r.Cut || cut
		r.Mixes += len(all)
		next := make([]bool, len(reached))
		have := make([]int, len(kinds))
		for at, ok := range reached {
			if !ok {
				continue
			}
			dims.vector(at, have)
			for _, mix := range all {
				if to, fits := dims.add(at, have, mix); fits {
					next[to] = true
				}
			}
		}
		reached = next
	}
	have := make([]int, len(kinds))
	r.Counts = make([]int, len(kinds))
	for at, ok := range reached {
		if !ok {
			continue
		}
		dims.vector(at, have)
		value := 0
		for i, n := range have {
			value += n * kinds[i].Value
		}
		if value > r.Value {
			r.Value = value
			copy(r.Counts, have)
		}
	}
	return r
}

// mixes are all counts of the kinds that a node admits in some order, the empty
// one among them.
func mixes(n *allocator.Node, kinds []Kind) (all [][]int, cut bool) {
	type mix struct {
		counts []int
		states []*allocator.Node
	}
	dims := newDims(kinds)
	layer := map[int]*mix{0: {counts: make([]int, len(kinds)), states: []*allocator.Node{n}}}
	for len(layer) > 0 {
		next := map[int]*mix{}
		for at, m := range layer {
			all = append(all, m.counts)
			for k := range kinds {
				if m.counts[k] == kinds[k].Count {
					continue
				}
				to := at + dims.stride[k]
				for _, state := range m.states {
					outcomes, complete := state.Outcomes(kinds[k].Request, mostOutcomes)
					cut = cut || !complete
					for i := range outcomes {
						o := &outcomes[i]
						if !o.Verdict.OK() {
							continue
						}
						if next[to] == nil {
							counts := slices.Clone(m.counts)
							counts[k]++
							next[to] = &mix{counts: counts}
						}
						switch into := next[to]; {
						case slices.ContainsFunc(into.states, o.After.Equal):
						case len(into.states) == mostStates:
							cut = true
						default:
							into.states = append(into.states, o.After)
						}
					}
				}
			}
		}
		layer = next
	}
	return all, cut
}

// dims number the vectors of counts up to those that there are.
type dims struct{ counts, stride []int }

func newDims(kinds []Kind) dims {
	d := dims{make([]int, len(kinds)), make([]int, len(kinds))}
	stride := 1
	for i := range kinds {
		d.counts[i], d.stride[i] = kinds[i].Count, stride
		stride *= kinds[i].Count + 1
	}
	return d
}

func (d *dims) size() int {
	size := 1
	for _, n := range d.counts {
		size *= n + 1
	}
	return size
}

func (d *dims) vector(at int, into []int) {
	for i, n := range d.counts {
		into[i] = at / d.stride[i] % (n + 1)
	}
}

func (d *dims) add(at int, have, mix []int) (to int, fits bool) {
	for i, n := range mix {
		if have[i]+n > d.counts[i] {
			return 0, false
		}
		at += n * d.stride[i]
	}
	return at, true
}
