package allocator

import (
	"cmp"
	"slices"
)

// Device is one device of a pool, as Prefer sees it.
type Device struct {
	ID        string
	NUMANodes []int  // empty: no topology
	PF        string // PCI address of its PF; empty: none
}

// Policy is how Prefer chooses among devices that are equal as to NUMA nodes.
type Policy string

const (
	// PolicyPacked fills one PF before it begins the next, so that whole PFs
	// stay free.
	PolicyPacked Policy = "packed"
	// PolicyBalanced spreads over PFs, so that a pod's devices share as little
	// of a link as can be.
	PolicyBalanced Policy = "balanced"
)

// Prefer chooses size devices out of available, all of mustInclude among them:
// on as few NUMA nodes as can be, within these by policy, and then by ID. The
// answer is sorted and the same for the same input in any order. Ids in
// mustInclude that are not available are left out; with too few devices it
// returns all there are.
//
// With policy none of the topology manager this is the only word on NUMA nodes
// that anyone has (devicemanager devicesToAllocate hands over every free device).
func Prefer(p Policy, available []Device, mustInclude []string, size int) []string {
	picked := make([]string, 0, max(0, min(size, len(available))))
	var pool, must []Device
	for _, d := range available {
		if slices.Contains(mustInclude, d.ID) {
			must = append(must, d)
			picked = append(picked, d.ID)
		} else {
			pool = append(pool, d)
		}
	}
	for len(picked) < size && len(pool) > 0 {
		numa := numaNodeFor(pool, must, size-len(picked))
		here := slices.DeleteFunc(slices.Clone(pool), func(d Device) bool { return numaNode(d) != numa })
		for len(picked) < size && len(here) > 0 {
			d := here[next(p, here, must, size-len(picked))]
			picked = append(picked, d.ID)
			must = append(must, d)
			same := func(o Device) bool { return o.ID == d.ID }
			here = slices.DeleteFunc(here, same)
			pool = slices.DeleteFunc(pool, same)
		}
	}
	slices.Sort(picked)
	return picked
}

// numaNodeFor chooses the NUMA node to take the next devices from: one that
// is used already, else the tightest that has all that is needed, else the one
// with most; the lower id on a tie, as the topology manager does.
func numaNodeFor(pool, chosen []Device, need int) int {
	count := map[int]int{}
	for _, d := range pool {
		count[numaNode(d)]++
	}
	used := map[int]bool{}
	for _, d := range chosen {
		used[numaNode(d)] = true
	}
	rank := func(numa int) (r [4]int) {
		if !used[numa] {
			r[0] = 1
		}
		if n := count[numa]; n >= need {
			r[2] = n
		} else {
			r[1], r[2] = 1, -n
		}
		r[3] = numa
		return r
	}
	best, first := 0, true
	for numa := range count {
		a, b := rank(numa), rank(best)
		if first || slices.Compare(a[:], b[:]) < 0 {
			best, first = numa, false
		}
	}
	return best
}

// next is the index of the device to take from one NUMA node.
func next(p Policy, here, chosen []Device, need int) int {
	free, taken := map[string]int{}, map[string]int{}
	for _, d := range here {
		free[d.PF]++
	}
	for _, d := range chosen {
		taken[d.PF]++
	}
	rank := func(d Device) int {
		if p == PolicyBalanced {
			return taken[d.PF]*len(here) - free[d.PF] // least taken, then most free
		}
		switch n := free[d.PF]; {
		case taken[d.PF] > 0:
			return -1 // go on with a PF once begun
		case n >= need:
			return n // the tightest that has enough
		default:
			return 2*len(here) - n // else the one with most
		}
	}
	best := 0
	for i := range here {
		if c := cmp.Or(cmp.Compare(rank(here[i]), rank(here[best])), cmp.Compare(here[i].ID, here[best].ID)); c < 0 {
			best = i
		}
	}
	return best
}

// noTopology sorts devices that do not say where they sit behind all others.
const noTopology = 1 << 30

func numaNode(d Device) int {
	if len(d.NUMANodes) == 0 {
		return noTopology
	}
	return d.NUMANodes[0]
}
