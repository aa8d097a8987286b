package allocator

import (
	"cmp"
	"slices"
	"strings"
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
	// PolicySpread spreads over PFs, so that a pod's devices share as little
	// of a link as can be.
	PolicySpread Policy = "spread"
	// PolicyPaired takes the devices from two PFs in equal parts, so that a
	// pod's bond outlives a port.
	PolicyPaired Policy = "paired"
)

// Prefer chooses size devices out of available, all of mustInclude among them:
// on as few NUMA nodes as can be, within these by policy, then by NUMA nodes,
// PF and ID. The answer is sorted and the same for the same input in any order.
// Ids in mustInclude that are not available are left out; with too few devices it
// returns all there are.
//
// With policy none of the topology manager this is the only word on NUMA nodes
// that anyone has (devicemanager devicesToAllocate hands over every free device).
//
// How many it takes of each PF depends on how many each has, not on their ids:
// so a scheduler that knows the numbers alone foretells it.
func Prefer(p Policy, available []Device, mustInclude []string, size int) []string {
	sorted := slices.Clone(available)
	slices.SortFunc(sorted, func(a, b Device) int {
		return cmp.Or(slices.Compare(a.NUMANodes, b.NUMANodes), strings.Compare(a.PF, b.PF), strings.Compare(a.ID, b.ID))
	})
	picked := make([]string, 0, max(0, min(size, len(available))))
	var stocks []stock
	var ids [][]string // of those left, by stock
	pfs := map[string]int{}
	for i := range sorted {
		d := &sorted[i]
		if i == 0 || d.PF != sorted[i-1].PF || !slices.Equal(d.NUMANodes, sorted[i-1].NUMANodes) {
			if _, known := pfs[d.PF]; !known {
				pfs[d.PF] = len(pfs)
			}
			stocks, ids = append(stocks, stock{numa: firstNUMANode(d.NUMANodes), pf: pfs[d.PF]}), append(ids, nil)
		}
		at := len(stocks) - 1
		if slices.Contains(mustInclude, d.ID) {
			stocks[at].chosen++
			picked = append(picked, d.ID)
		} else {
			stocks[at].left++
			ids[at] = append(ids[at], d.ID)
		}
	}
	before := slices.Clone(stocks)
	choose(p, stocks, int64(size-len(picked)))
	for i := range stocks {
		picked = append(picked, ids[i][:before[i].left-stocks[i].left]...)
	}
	slices.Sort(picked)
	return picked
}

// stock is what a pool has of the devices that share NUMA nodes and PF.
type stock struct {
	numa         int // the first NUMA node; noTopology without
	pf           int // the same number for the same PF
	left, chosen int64
}

// noTopology sorts devices that do not say where they sit behind all others.
const noTopology = 1 << 30

func firstNUMANode(nodes []int) int {
	if len(nodes) == 0 {
		return noTopology
	}
	return nodes[0]
}

// choose moves need devices from left to chosen, or all there are.
func choose(p Policy, stocks []stock, need int64) {
	for need > 0 {
		numa, ok := nextNUMANode(stocks, need)
		if !ok {
			return
		}
		for need > 0 {
			s := nextPF(p, stocks, numa, need)
			if s == nil {
				break
			}
			s.left--
			s.chosen++
			need--
		}
	}
}

// nextNUMANode chooses the NUMA node to take from: one that is used already,
// else the tightest that has all that is needed, else the one with most; the
// lower id on a tie, as the topology manager does.
func nextNUMANode(stocks []stock, need int64) (numa int, ok bool) {
	var best [4]int64
	for i := range stocks {
		if stocks[i].left == 0 {
			continue
		}
		var left, chosen int64
		for j := range stocks {
			if stocks[j].numa == stocks[i].numa {
				left += stocks[j].left
				chosen += stocks[j].chosen
			}
		}
		rank := [4]int64{0, 0, left, int64(stocks[i].numa)}
		if chosen == 0 {
			rank[0] = 1
		}
		if left < need {
			rank[1], rank[2] = 1, -left
		}
		if !ok || slices.Compare(rank[:], best[:]) < 0 {
			best, numa, ok = rank, stocks[i].numa, true
		}
	}
	return numa, ok
}

// nextPF chooses the stock to take from on one NUMA node; nil when it has none left.
func nextPF(p Policy, stocks []stock, numa int, need int64) *stock {
	var here int64
	for i := range stocks {
		if stocks[i].numa == numa {
			here += stocks[i].left
		}
	}
	var best *stock
	var bestRank int64
	for i := range stocks {
		s := &stocks[i]
		if s.numa != numa || s.left == 0 {
			continue
		}
		var left, chosen int64
		for j := range stocks {
			if stocks[j].pf == s.pf {
				chosen += stocks[j].chosen
				if stocks[j].numa == numa {
					left += stocks[j].left
				}
			}
		}
		var rank int64
		switch {
		case p == PolicySpread:
			rank = chosen*here - left // least taken, then most free
		case chosen > 0:
			rank = -1 // go on with a PF once begun
		case left >= need:
			rank = left // the tightest that has enough
		default:
			rank = 2*here - left // else the one with most
		}
		if best == nil || rank < bestRank {
			best, bestRank = s, rank
		}
	}
	return best
}
