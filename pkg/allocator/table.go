package allocator

import "math/bits"

// table holds an amount for each mask of NUMA nodes, on the stack for up to 8.
type table struct {
	buf  [1 << 8]int64
	long []int64
	numa int
}

// of empties the table for a node's masks.
func (t *table) of(n *Node) *table {
	t.numa = len(n.numaIDs)
	if size := 1 << t.numa; size > len(t.buf) {
		t.long = make([]int64, size)
	}
	return t
}

func (t *table) cells() []int64 {
	if t.long != nil {
		return t.long
	}
	return t.buf[:1<<t.numa]
}

func (t *table) at(mask uint64) int64 { return t.cells()[mask] }

// spread notes an amount that every mask has which holds one of these NUMA nodes.
func (t *table) spread(mask uint64, amount int64) {
	// The masks without any of the NUMA nodes are those within the rest: to
	// lack the amount there is to have it everywhere and lose it there.
	if mask == 0 || amount == 0 {
		return
	}
	cells := t.cells()
	cells[0] += amount
	cells[mask] -= amount
}

// sum turns what spread noted into amounts.
func (t *table) sum() {
	cells := t.cells()
	all := cells[0]
	cells[0] = 0
	full := len(cells) - 1
	// lost[m] sums what is noted at any set of NUMA nodes that m is disjoint
	// with: the sets within m's complement.
	for bit := 1; bit < len(cells); bit <<= 1 {
		for m := range cells {
			if m&bit != 0 {
				cells[m] += cells[m&^bit]
			}
		}
	}
	for m := 0; m <= full/2; m++ {
		cells[m], cells[full-m] = cells[full-m], cells[m]
	}
	for m := range cells {
		cells[m] += all
	}
}

// nextMask goes through all sets of NUMA nodes within a mask in ascending
// order: from 0, which it also ends with.
func nextMask(mask, within uint64) uint64 { return (mask - within) & within }

func size(mask uint64) int { return bits.OnesCount64(mask) }
