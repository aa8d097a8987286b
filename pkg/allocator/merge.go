package allocator

import "math/bits"

// hint is what the topology manager tells the managers: the NUMA nodes to take
// from. The zero value is "anywhere, not preferred", which they find when there
// is no policy.
type hint struct {
	mask      uint64 // 0: anywhere
	preferred bool
}

// merger joins the hints of all resources of one request into one, as
// HintMerger does (topologymanager/policy.go). The kubelet goes through every
// permutation of the hints; what that comes to depends only on the set of masks
// that each resource has, and is worked out on those.
type merger struct {
	n *Node
	// preferred are the masks that are a preferred hint of every resource.
	preferred maskSet
	// reached are the masks that an intersection of one hint each comes to;
	// kept for best-effort alone, for only there a hint that is not preferred counts.
	reached    maskSet
	keep       bool
	bound      bool // some resource has hints
	impossible bool // some resource has none that would do
	// widest is the most NUMA nodes that any resource's narrowest hint has
	// (BestNonPreferredAffinityCount).
	widest int
}

// add brings the hints of a resource.
func (m *merger) add(hints, preferred maskSet) {
	if hints.isEmpty() {
		m.impossible = true // {nil, false}: an empty list is a wish that cannot be met
		return
	}
	if !m.bound {
		m.bound = true
		copy(m.preferred, preferred)
		if m.keep {
			copy(m.reached, hints)
		}
	} else {
		m.preferred.intersect(preferred)
		if m.keep {
			intersections(m.reached, hints, len(m.n.numaIDs))
		}
	}
	if m.keep {
		m.widest = max(m.widest, hints.narrowest())
	}
}

// best is the merged hint.
func (m *merger) best() hint {
	all := m.n.everyNUMANode()
	if !m.bound {
		return hint{mask: all, preferred: !m.impossible}
	}
	if !m.impossible && !m.preferred.isEmpty() {
		var best uint64
		m.preferred.each(func(mask uint64) {
			if best == 0 || m.n.fitter(mask, best) {
				best = mask
			}
		})
		return hint{mask: best, preferred: true}
	}
	if !m.keep {
		return hint{}
	}
	var best uint64
	m.reached.each(func(mask uint64) {
		if mask != 0 && (best == 0 || m.closer(mask, best)) {
			best = mask
		}
	})
	if best == 0 {
		best = all
	}
	return hint{mask: best}
}

// closer tells whether mask goes before best where neither is preferred: as
// many NUMA nodes as the resource needs that needs most, else as near below as
// can be, else the narrowest (HintMerger.compare).
func (m *merger) closer(mask, best uint64) bool {
	a, b := bits.OnesCount64(mask), bits.OnesCount64(best)
	switch {
	case a == b:
		return m.n.fitter(mask, best)
	case a <= m.widest && b <= m.widest:
		return a > b
	default:
		return a < b
	}
}

// fitter tells whether mask goes before best: fewer NUMA nodes, then nearer
// ones (prefer-closest-numa-nodes), then lower ones.
func (n *Node) fitter(mask, best uint64) bool {
	if n.distances != nil && bits.OnesCount64(mask) == bits.OnesCount64(best) {
		if a, b := n.distance(mask), n.distance(best); a != b {
			return a < b
		}
	}
	return narrower(mask, best)
}

// distance is the sum over all pairs of a mask's NUMA nodes, each with itself
// too (NUMADistances.CalculateAverageFor; masks of one size are compared).
func (n *Node) distance(mask uint64) int {
	sum := 0
	for i := mask; i != 0; i &= i - 1 {
		for j := mask; j != 0; j &= j - 1 {
			sum += n.distances[firstBit(i)*len(n.numaIDs)+firstBit(j)]
		}
	}
	return sum
}

// intersections replaces a by all masks that are the intersection of one of a
// and one of b. A mask is one if and only if pairs with that very intersection
// exist; they are counted for all masks at once: the number of pairs whose
// intersection holds a mask is the product of the numbers of supersets in a and
// in b, and from those sums the counts themselves follow.
func intersections(a, b maskSet, numaNodes int) {
	var bufA, bufB [1 << 8]int64
	countA, countB := bufA[:], bufB[:]
	if size := 1 << numaNodes; size > len(bufA) {
		countA, countB = make([]int64, size), make([]int64, size)
	} else {
		countA, countB = countA[:size], countB[:size]
	}
	a.each(func(mask uint64) { countA[mask] = 1 })
	b.each(func(mask uint64) { countB[mask] = 1 })
	for bit := 1; bit < len(countA); bit <<= 1 {
		for m := range countA {
			if m&bit == 0 {
				countA[m] += countA[m|bit]
				countB[m] += countB[m|bit]
			}
		}
	}
	for m := range countA {
		countA[m] *= countB[m]
	}
	for bit := 1; bit < len(countA); bit <<= 1 {
		for m := range countA {
			if m&bit == 0 {
				countA[m] -= countA[m|bit]
			}
		}
	}
	clear(a)
	for m, c := range countA {
		if c != 0 {
			a.add(uint64(m))
		}
	}
}
