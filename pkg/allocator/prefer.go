package allocator

import (
	"cmp"
	"math"
	"slices"
	"strings"
)

// Device is one device of a pool, as Prefer sees it.
type Device struct {
	ID        string
	NUMANodes []int  // empty: no topology
	PF        string // PCI address of its PF; empty: none
	// Upstream are the PCI bridges above it, the nearest first: of devices with
	// a PF those above the PF, which all its VFs share (pci_iov_add_virtfn).
	Upstream []string
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
	// pod's bond outlives a port, and on two cards, so that it outlives a card.
	PolicyPaired Policy = "paired"
)

func (p Policy) known() bool {
	return p == PolicyPacked || p == PolicySpread || p == PolicyPaired
}

// Prefer chooses size devices out of available, all of mustInclude among them:
// on as few NUMA nodes as can be, each next one the nearest, within these by
// policy, then by NUMA nodes, PF and ID. Among equal PFs PolicyPacked takes one
// that is near to those already chosen, of the same card or below the same PCI
// bridges, and the others one that is not. The answer is sorted and the same for the same input in any
// order. Ids in mustInclude that are not available are left out; with too few
// devices it returns all there are.
//
// With policy none of the topology manager this is the only word on NUMA nodes
// that anyone has (devicemanager devicesToAllocate hands over every free device).
//
// How many it takes of each PF depends on how many each has, on the distances
// and on the bridges above the PFs, not on the devices' ids: so a scheduler that
// is told these foretells it. All of them are published, [topology.Group] by
// [topology.Group]. Bridges above devices without a PF are not, and choose but
// among these, which count as one PF.
func Prefer(p Policy, d Distances, available []Device, mustInclude []string, size int) []string {
	sorted := slices.Clone(available)
	slices.SortFunc(sorted, func(a, b Device) int {
		return cmp.Or(slices.Compare(a.NUMANodes, b.NUMANodes), strings.Compare(a.PF, b.PF), strings.Compare(a.ID, b.ID))
	})
	c := choice{policy: p, distances: d}
	var picked []*Device
	var left [][]*Device // by stock
	pfs := map[string]int{}
	for i := range sorted {
		d := &sorted[i]
		if i == 0 || d.PF != sorted[i-1].PF || !slices.Equal(d.NUMANodes, sorted[i-1].NUMANodes) {
			if _, known := pfs[d.PF]; !known {
				pfs[d.PF] = len(pfs)
			}
			c.stocks = append(c.stocks, stock{numa: firstNUMANode(d.NUMANodes), pf: pfs[d.PF]})
			c.bridges = append(c.bridges, bridgesAbove(d.PF, d.Upstream))
			left = append(left, nil)
		}
		s := &c.stocks[len(c.stocks)-1]
		if slices.Contains(mustInclude, d.ID) {
			s.chosen++
			picked = append(picked, d)
		} else {
			s.left++
			left[len(left)-1] = append(left[len(left)-1], d)
		}
	}
	c.choose(int64(size - len(picked)))
	for i := range c.stocks {
		picked = pick(p, picked, left[i], len(left[i])-int(c.stocks[i].left))
	}
	ids := make([]string, len(picked))
	for i, d := range picked {
		ids[i] = d.ID
	}
	slices.Sort(ids)
	return ids
}

// bridgesAbove leaves out those of devices without a PF: together they are one
// stock, and sit in different places.
func bridgesAbove(pf string, upstream []string) []string {
	if pf == "" {
		return nil
	}
	return upstream
}

// pick adds count devices of one stock to those that are picked: the first by
// id, without a PF the nearest to what is picked, or the farthest.
func pick(p Policy, picked, from []*Device, count int) []*Device {
	if count == 0 || count == len(from) || from[0].PF != "" {
		return append(picked, from[:count]...)
	}
	nearness := make([]int, len(from)) // to what is picked
	near := func(to *Device) {
		for i, d := range from {
			nearness[i] = max(nearness[i], sharedBridges(d.Upstream, to.Upstream))
		}
	}
	for _, d := range picked {
		near(d)
	}
	gone := make([]bool, len(from))
	for range count {
		best := -1
		for i := range from {
			if !gone[i] && (best < 0 || p.nearer(nearness[i], nearness[best])) {
				best = i
			}
		}
		gone[best] = true
		picked = append(picked, from[best])
		near(from[best])
	}
	return picked
}

// nearer tells which of two numbers of shared bridges is the better. Where a
// pod's devices shall share no link or outlive a card, it is the smaller.
func (p Policy) nearer(a, b int) bool {
	if p == PolicySpread || p == PolicyPaired {
		return a < b
	}
	return a > b
}

// oneCard is nearer than any number of shared bridges.
const oneCard = math.MaxInt

// sharedBridges is how many PCI bridges lie above both, from the root down:
// none for two root ports, some below one switch, and where the bridges are the
// same it is one card with two ports, however deep it sits.
func sharedBridges(a, b []string) int {
	if len(a) > 0 && slices.Equal(a, b) {
		return oneCard
	}
	n := 0
	for n < len(a) && n < len(b) && a[len(a)-1-n] == b[len(b)-1-n] {
		n++
	}
	return n
}
