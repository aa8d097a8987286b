package allocator

import "math/bits"

// memoryType is a kind of memory. Its NUMA nodes' free bytes start at room.counts[at].
type memoryType struct {
	name        string
	at          int
	allocatable []int64 // by NUMA node
}

// reusableMemory is what init containers of the pod ended with. It is to be had
// again for an allocation on just the same NUMA nodes (memorymanager
// getPodReusableMemory).
type reusableMemory []memoryLeft

type memoryLeft struct {
	mask uint64
	kind int // index into Node.mem
	size int64
}

func (m reusableMemory) find(mask uint64, kind int) int {
	for i := range m {
		if m[i].mask == mask && m[i].kind == kind {
			return i
		}
	}
	return -1
}

func (a *admission) memoryReusable(mask uint64, kind int) int64 {
	if i := a.memory.find(mask, kind); i >= 0 {
		return (*a.memory)[i].size
	}
	return 0
}

// cells is the mask of the allocation that a NUMA node was last part of; 0 when
// it holds none (NUMANodeState.Cells, where one without any has itself alone).
func (a *admission) cells(numa int) uint64 { return uint64(a.room.counts[a.node.cellsAt+numa]) }

// memoryFree is what the NUMA nodes of a mask have free together.
func (a *admission) memoryFree(mask uint64, kind int) int64 {
	var free int64
	at := a.node.mem[kind].at
	for ; mask != 0; mask &= mask - 1 {
		free += a.room.counts[at+firstBit(mask)]
	}
	return free
}

// mayTake tells whether an allocation of this mask may be made beside those
// that there are: a NUMA node serves either allocations of its own or those of
// one group (memorymanager calculateHints).
func (a *admission) mayTake(mask uint64) bool {
	for rest := mask; rest != 0; rest &= rest - 1 {
		c := a.cells(firstBit(rest))
		if size(mask) == 1 {
			return size(c) <= 1
		}
		if c != 0 && c != mask {
			return false
		}
	}
	return true
}

// memoryFits tells whether a mask has room for all types at once.
func (a *admission) memoryFits(want []wantMemory, mask uint64) bool {
	if !a.mayTake(mask) {
		return false
	}
	for _, w := range want {
		if a.memoryFree(mask, w.kind)+a.memoryReusable(mask, w.kind) < w.size {
			return false
		}
	}
	return true
}

// wantMemory is a request in terms of the node's types.
type wantMemory struct {
	kind int
	size int64
}

// memoryWanted turns a demand into the node's types; false when it has no such type.
func (n *Node) memoryWanted(buf []wantMemory, d *demand) ([]wantMemory, bool) {
	for i := range d.memory {
		kind := n.memoryKind(d.memory[i].name)
		if kind < 0 {
			return nil, false
		}
		buf = append(buf, wantMemory{kind, d.memory[i].count})
	}
	return buf, true
}

// memoryHints are the masks that would do for memory of all types together
// (memorymanager calculateHints), and the number of NUMA nodes of the preferred ones.
func (a *admission) memoryHints(want []wantMemory, hints, preferred maskSet) {
	n := a.node
	clear(hints)
	clear(preferred)
	all := n.everyNUMANode()
	least := size(all)
	for mask := nextMask(0, all); mask != 0; mask = nextMask(mask, all) {
		if !n.memoryHolds(want, mask) {
			continue
		}
		least = min(least, size(mask))
		if a.memoryFits(want, mask) {
			hints.add(mask)
		}
	}
	hints.each(func(mask uint64) {
		if size(mask) == least {
			preferred.add(mask)
		}
	})
}

// memoryHolds tells whether the NUMA nodes of a mask would do with nothing held.
func (n *Node) memoryHolds(want []wantMemory, mask uint64) bool {
	for _, w := range want {
		var has int64
		for rest := mask; rest != 0; rest &= rest - 1 {
			has += n.mem[w.kind].allocatable[firstBit(rest)]
		}
		if has < w.size {
			return false
		}
	}
	return true
}

// memoryLanes are memoryHints of one NUMA node each, all of them preferred.
func (a *admission) memoryLanes(want []wantMemory) uint64 {
	var lanes uint64
	for rest := a.node.everyNUMANode(); rest != 0; rest &= rest - 1 {
		if lane := rest & -rest; a.memoryFits(want, lane) {
			lanes |= lane
		}
	}
	return lanes
}

// memoryFitsAnywhere tells whether there is any hint at all. Where there is
// none the memory manager has no wish, and refuses later.
func (a *admission) memoryFitsAnywhere(want []wantMemory) bool {
	if len(a.node.numaIDs) > maxMergedNUMANodes {
		return true
	}
	all := a.node.everyNUMANode()
	for mask := nextMask(0, all); mask != 0; mask = nextMask(mask, all) {
		if a.memoryFits(want, mask) {
			return true
		}
	}
	return false
}

// allocateMemory is memorymanager Allocate: on the NUMA nodes of the hint, on
// more if these are not enough, on its own choice where there is no hint.
func (a *admission) allocateMemory(kind containerKind, d *demand, h hint) cause {
	var buf [4]wantMemory
	want, ok := a.node.memoryWanted(buf[:0], d)
	if !ok {
		return unexpected
	}
	if h.mask == 0 {
		if len(want) == 0 {
			return unexpected // no hints come of no request (getDefaultHint)
		}
		found, ok := a.bestMemoryHint(want, 0)
		if !ok || h.preferred && !found.preferred {
			return unexpected
		}
		h = found
	}
	if !a.memorySuffices(want, h.mask) {
		found, ok := a.bestMemoryHint(want, h.mask)
		if !ok || h.preferred && !found.preferred {
			return unexpected
		}
		h = found
	}
	if size(h.mask) > 1 && !a.mayTake(h.mask) {
		return unexpected
	}
	if a.onlyVerdict {
		return none
	}
	for _, w := range want {
		a.takeMemory(h.mask, w)
	}
	a.memory.keep(kind, h.mask, want)
	a.lands.memory(h.mask, want)
	return none
}

// memorySuffices is memorymanager isAffinitySatisfyRequest, which does not
// count what could be reused.
func (a *admission) memorySuffices(want []wantMemory, mask uint64) bool {
	for _, w := range want {
		if a.memoryFree(mask, w.kind) < w.size {
			return false
		}
	}
	return true
}

// bestMemoryHint is the narrowest hint that holds a mask (memorymanager
// getDefaultHint, extendTopologyManagerHint).
func (a *admission) bestMemoryHint(want []wantMemory, holding uint64) (hint, bool) {
	n := a.node
	all := n.everyNUMANode()
	if len(n.numaIDs) > maxMergedNUMANodes {
		return hint{}, false
	}
	least := size(all)
	var best uint64
	for mask := nextMask(0, all); mask != 0; mask = nextMask(mask, all) {
		if !n.memoryHolds(want, mask) {
			continue
		}
		least = min(least, size(mask))
		if mask&holding == holding && (best == 0 || narrower(mask, best)) && a.memoryFits(want, mask) {
			best = mask
		}
	}
	return hint{mask: best, preferred: size(best) == least}, best != 0
}

// takeMemory is memorymanager updateMachineState, less what is reused.
func (a *admission) takeMemory(mask uint64, w wantMemory) {
	need := max(0, w.size-a.memoryReusable(mask, w.kind))
	for rest := mask; rest != 0; rest &= rest - 1 {
		k := firstBit(rest)
		a.room.counts[a.node.cellsAt+k] = int64(mask)
		free := &a.room.counts[a.node.mem[w.kind].at+k]
		got := min(need, max(0, *free))
		*free -= got
		need -= got
	}
}

// keep is memorymanager updatePodReusableMemory.
func (m *reusableMemory) keep(kind containerKind, mask uint64, want []wantMemory) {
	for _, w := range want {
		i := m.find(mask, w.kind)
		if i < 0 && kind == initial {
			i = len(*m)
			*m = append(*m, memoryLeft{mask: mask, kind: w.kind})
		}
		switch {
		case i < 0:
		case kind == initial:
			(*m)[i].size = max((*m)[i].size, w.size)
		default:
			(*m)[i].size = max(0, (*m)[i].size-w.size)
		}
	}
}

// everyNUMANode is the mask of all NUMA nodes.
func (n *Node) everyNUMANode() uint64 {
	return ^uint64(0) >> (64 - len(n.numaIDs))
}

// ids are the NUMA nodes of a mask.
func (n *Node) ids(mask uint64) []int {
	ids := make([]int, 0, bits.OnesCount64(mask))
	for ; mask != 0; mask &= mask - 1 {
		ids = append(ids, n.numaIDs[firstBit(mask)])
	}
	return ids
}
