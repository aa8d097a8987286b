package allocator

import "math/bits"

// maxCPUs is the largest machine that is compiled. A fixed size keeps a set a
// value: it is copied, changed and compared without the heap.
const maxCPUs = 1024

// cpuBits is a set of CPUs, by their position in cpuTopology.ids.
type cpuBits [maxCPUs / 64]uint64

func (s *cpuBits) add(i int) { s[i>>6] |= 1 << (i & 63) }

func (s *cpuBits) size() int {
	n := 0
	for _, w := range s {
		n += bits.OnesCount64(w)
	}
	return n
}

// shared is the size of the intersection.
func (s *cpuBits) shared(o *cpuBits) int {
	n := 0
	for i, w := range s {
		if w != 0 {
			n += bits.OnesCount64(w & o[i])
		}
	}
	return n
}

func (s *cpuBits) intersects(o *cpuBits) bool {
	for i, w := range s {
		if w&o[i] != 0 {
			return true
		}
	}
	return false
}

func (s *cpuBits) and(o *cpuBits) cpuBits {
	var r cpuBits
	for i, w := range s {
		r[i] = w & o[i]
	}
	return r
}

func (s *cpuBits) or(o *cpuBits) cpuBits {
	var r cpuBits
	for i, w := range s {
		r[i] = w | o[i]
	}
	return r
}

func (s *cpuBits) without(o *cpuBits) cpuBits {
	var r cpuBits
	for i, w := range s {
		r[i] = w &^ o[i]
	}
	return r
}

// each calls f for the members in ascending order until it returns false.
func (s *cpuBits) each(f func(i int) bool) {
	for w, word := range s {
		for ; word != 0; word &= word - 1 {
			if !f(w<<6 + bits.TrailingZeros64(word)) {
				return
			}
		}
	}
}
