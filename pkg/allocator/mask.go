package allocator

import "math/bits"

// maxMergedNUMANodes is how many NUMA nodes the policies best-effort and
// restricted are foretold for: their hints are sets of NUMA node sets, of which
// there are 2 to the power of this. The kubelet itself starts with more than 8
// only if max-allowable-numa-nodes allows it.
const maxMergedNUMANodes = 16

// maskSet is a set of NUMA node masks: bit m stands for mask m.
type maskSet []uint64

// maskWords is how many words a maskSet has for so many NUMA nodes.
func maskWords(numaNodes int) int { return (1<<numaNodes + 63) / 64 }

func (s maskSet) add(mask uint64)      { s[mask>>6] |= 1 << (mask & 63) }
func (s maskSet) has(mask uint64) bool { return s[mask>>6]&(1<<(mask&63)) != 0 }

func (s maskSet) isEmpty() bool {
	for _, w := range s {
		if w != 0 {
			return false
		}
	}
	return true
}

func (s maskSet) intersect(o maskSet) {
	for i := range s {
		s[i] &= o[i]
	}
}

// each calls f for the masks in ascending order.
func (s maskSet) each(f func(mask uint64)) {
	for i, w := range s {
		for ; w != 0; w &= w - 1 {
			f(uint64(i<<6 + bits.TrailingZeros64(w)))
		}
	}
}

// narrowest is the least number of NUMA nodes of any mask.
func (s maskSet) narrowest() int {
	least := 64
	s.each(func(mask uint64) { least = min(least, bits.OnesCount64(mask)) })
	return least
}

// firstBit is the index of the lowest NUMA node of a mask.
func firstBit(mask uint64) int { return bits.TrailingZeros64(mask) }

// narrower orders masks as the kubelet's bitmask IsNarrowerThan does: fewer
// NUMA nodes, then lower ones.
func narrower(a, b uint64) bool {
	if x, y := bits.OnesCount64(a), bits.OnesCount64(b); x != y {
		return x < y
	}
	return a < b
}
