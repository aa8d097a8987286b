package kubelet

import (
	"iter"
	"maps"
	"reflect"
	"slices"

	"k8s.io/utils/cpuset"

	"github.com/numalane/numalane/pkg/topology"
)

// deviations are the CPUs that live pods hold and the next admission may give
// away nevertheless, and those that nobody holds and it will not, once it has
// taken back what ended pods held (cpumanager removeStaleState).
func (s *CPUState) deviations(allocatable topology.CPUSet, live map[string]bool) (contended, leaked topology.CPUSet) {
	freed := []cpuset.CPUSet{s.Default.CPUSet}
	var sets []cpuset.CPUSet
	for uid, containers := range s.Containers {
		into := &freed
		if live[uid] {
			into = &sets
		}
		// What a pod holds as a whole goes with the last of its containers, and
		// their parts of it count for nothing.
		if whole, ok := s.Pods[uid]; ok {
			*into = append(*into, whole.CPUSet)
			continue
		}
		for _, set := range containers {
			*into = append(*into, set.CPUSet)
		}
	}
	free, held := cpuset.New().Union(freed...), cpuset.New().Union(sets...)
	return topology.CPUSet{CPUSet: free.Intersection(held)},
		topology.CPUSet{CPUSet: allocatable.Difference(free).Difference(held)}
}

// accounts are those of the NUMA nodes whose account is not simply what they
// have less what live pods hold there, once what ended pods held is taken back;
// all that may come of it, for that is done in no order.
func (s *MemoryState) accounts(live map[string]bool) [][]topology.MemoryAccount {
	plain := s.data.empty()
	spread := map[int]bool{}
	var ended [][]memoryBlock
	entangled := false
	for _, uid := range slices.Sorted(maps.Keys(s.data.Entries)) {
		for _, blocks := range s.data.blocksOf(uid) {
			for _, b := range blocks {
				entangled = entangled || len(b.NUMAAffinity) > 1
				if !live[uid] {
					continue
				}
				if len(b.NUMAAffinity) > 1 {
					for _, id := range b.NUMAAffinity {
						spread[id] = true
					}
				}
				plain.take(&b)
			}
			if !live[uid] && len(blocks) > 0 {
				ended = append(ended, blocks)
			}
		}
	}
	if !entangled {
		ended = [][]memoryBlock{slices.Concat(ended...)} // the order makes no difference
	}
	var out [][]topology.MemoryAccount
	for order := range orders(len(ended)) {
		account := s.data.clone()
		for _, i := range order {
			for _, b := range ended[i] {
				account.release(&b)
			}
		}
		a := account.except(plain, spread)
		if !slices.ContainsFunc(out, func(o []topology.MemoryAccount) bool { return reflect.DeepEqual(o, a) }) {
			out = append(out, a)
		}
	}
	return out
}

// maxOrdered is how many things are put into every order; of more, each is put
// first once, forwards and backwards.
const maxOrdered = 5

// orders are permutations of the numbers below n.
func orders(n int) iter.Seq[[]int] {
	return func(yield func([]int) bool) {
		order := make([]int, n)
		for i := range order {
			order[i] = i
		}
		if n > maxOrdered {
			for range 2 * n {
				if !yield(order) {
					return
				}
				order = append(order[1:], order[0])
				if order[0] == 0 {
					slices.Reverse(order)
				}
			}
			return
		}
		var permute func(k int) bool
		permute = func(k int) bool {
			if k == n {
				return yield(order)
			}
			for i := k; i < n; i++ {
				order[k], order[i] = order[i], order[k]
				if !permute(k + 1) {
					return false
				}
				order[k], order[i] = order[i], order[k]
			}
			return true
		}
		permute(0)
	}
}

// except tells of the NUMA nodes that are given or differ from the plain account.
func (m machineState) except(plain machineState, given map[int]bool) []topology.MemoryAccount {
	var out []topology.MemoryAccount
	for _, id := range slices.Sorted(maps.Keys(m)) {
		n := m[id]
		if !given[id] && n.equal(plain[id]) {
			continue
		}
		a := topology.MemoryAccount{NUMANode: id, Free: map[string]uint64{}}
		if n.NumberOfAssignments > 0 {
			a.With = slices.Sorted(slices.Values(n.Cells))
		}
		for kind, m := range n.MemoryMap {
			a.Free[kind] = m.Free
		}
		out = append(out, a)
	}
	return out
}

// blocksOf are the blocks of a pod that stand for what it holds: those of the
// pod as a whole, else those of its containers, by name.
func (d *memoryData) blocksOf(uid string) [][]memoryBlock {
	if p, ok := d.PodEntries[uid]; ok && len(p.MemoryBlocks) > 0 {
		return [][]memoryBlock{p.MemoryBlocks}
	}
	var all [][]memoryBlock
	for _, name := range slices.Sorted(maps.Keys(d.Entries[uid])) {
		all = append(all, d.Entries[uid][name])
	}
	return all
}

// machineState is the memory manager's NUMANodeMap.
type machineState map[int]*numaMemory

func (d *memoryData) clone() machineState {
	m := machineState{}
	for id, n := range d.MachineState {
		c := n
		c.MemoryMap = maps.Clone(n.MemoryMap)
		m[id] = &c
	}
	return m
}

func (d *memoryData) empty() machineState {
	m := d.clone()
	for id, n := range m {
		n.NumberOfAssignments, n.Cells = 0, []int{id}
		for kind, t := range n.MemoryMap {
			t.Free, t.Reserved = t.Allocatable, 0
			n.MemoryMap[kind] = t
		}
	}
	return m
}

// take is memorymanager updateMachineState.
func (m machineState) take(b *memoryBlock) {
	left := b.Size
	for _, id := range b.NUMAAffinity {
		n, ok := m[id]
		if !ok {
			continue
		}
		n.NumberOfAssignments++
		n.Cells = b.NUMAAffinity
		t := n.MemoryMap[b.Type]
		got := min(left, t.Free)
		t.Free -= got
		t.Reserved += got
		left -= got
		n.MemoryMap[b.Type] = t
	}
}

// release is memorymanager releaseMemory: it takes from the lower NUMA nodes
// first, whosever memory that is.
func (m machineState) release(b *memoryBlock) {
	left := b.Size
	for _, id := range b.NUMAAffinity {
		n, ok := m[id]
		if !ok {
			continue
		}
		if n.NumberOfAssignments--; n.NumberOfAssignments == 0 {
			n.Cells = []int{id}
		}
		t := n.MemoryMap[b.Type]
		got := min(left, t.Reserved)
		t.Free += got
		t.Reserved -= got
		left -= got
		n.MemoryMap[b.Type] = t
	}
}

// equal compares what decides an admission.
func (n *numaMemory) equal(o *numaMemory) bool {
	return (n.NumberOfAssignments > 0) == (o.NumberOfAssignments > 0) && slices.Equal(n.Cells, o.Cells) &&
		maps.EqualFunc(n.MemoryMap, o.MemoryMap, func(a, b memoryTable) bool { return a.Free == b.Free })
}
