package allocator

import (
	"math"
	"slices"
)

// choice is how many devices to take of what a pool has. It is one for Prefer,
// which then names them, and for Admit, which foretells it.
type choice struct {
	policy    Policy
	distances Distances
	stocks    []stock
	bridges   [][]string // above each stock's PF, the nearest first
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
func (c *choice) choose(need int64) {
	for need > 0 {
		numa, ok := c.nextNUMANode(need)
		if !ok {
			return
		}
		for need > 0 {
			i := c.nextPF(numa, need)
			if i < 0 {
				break
			}
			c.stocks[i].left--
			c.stocks[i].chosen++
			need--
		}
	}
}

// rank says how good something is to take from: less is better, and the first
// number counts most.
type rank [5]int64

func (r rank) better(than rank) bool { return slices.Compare(r[:], than[:]) < 0 }

func (r *rank) worseIf(i int, is bool) {
	if is {
		r[i] = 1
	}
}

// nextNUMANode chooses the NUMA node to take from. That is one that is used
// already; else one after which no more of them are needed than without it, and
// of these, for PolicyPaired, one with two PFs to take from, then the nearest to
// those used, then the tightest that has all that is needed, or the one with
// most; the lower id on a tie, as the topology manager does.
func (c *choice) nextNUMANode(need int64) (numa int, ok bool) {
	var buf [groupsOnStack]depot
	depots := c.depots(buf[:0])
	begun := slices.ContainsFunc(depots, func(d depot) bool { return d.chosen > 0 })
	fewest := fewestOf(depots, need)
	var best rank
	for i := range depots {
		d := &depots[i]
		if d.left == 0 {
			continue
		}
		r := rank{4: int64(d.numa)}
		if d.chosen == 0 {
			r[0] = 1
			if !fewest.with(d.left) {
				r[0] = 2
			}
			if begun {
				r[2] = c.distance(d.numa, depots)
			} else if c.policy == PolicyPaired && d.left >= need {
				r[1] = c.unpaired(d.numa, need)
			}
		}
		if r[3] = d.left; d.left < need {
			r[3] = math.MaxInt64 - d.left
		}
		if !ok || r.better(best) {
			best, numa, ok = r, d.numa, true
		}
	}
	return numa, ok
}

// depot is what a pool has on one NUMA node.
type depot struct {
	numa         int
	left, chosen int64
}

func (c *choice) depots(out []depot) []depot {
	for i := range c.stocks {
		s := &c.stocks[i]
		at := slices.IndexFunc(out, func(d depot) bool { return d.numa == s.numa })
		if at < 0 {
			at, out = len(out), append(out, depot{numa: s.numa})
		}
		out[at].left += s.left
		out[at].chosen += s.chosen
	}
	return out
}

// fewest are the fewest unused NUMA nodes that have what is needed.
type fewest struct {
	need  int64
	least int64 // what the poorest of them has
	rest  int64 // what the others have together
}

func fewestOf(depots []depot, need int64) fewest {
	var buf [groupsOnStack]int64
	left := buf[:0]
	for i := range depots {
		if depots[i].chosen == 0 {
			left = append(left, depots[i].left)
		}
	}
	slices.Sort(left)
	f := fewest{need: need}
	for i := len(left) - 1; i >= 0 && f.rest+f.least < need; i-- {
		f.rest, f.least = f.rest+f.least, left[i]
	}
	return f
}

// with tells whether a NUMA node that has so many can be one of so few.
func (f *fewest) with(left int64) bool { return left >= f.least || f.rest+left >= f.need }

// distance is how far a NUMA node is from all that are used.
func (c *choice) distance(numa int, depots []depot) int64 {
	var far int64
	for i := range depots {
		if depots[i].chosen > 0 {
			far += c.distances.between(numa, depots[i].numa)
		}
	}
	return far
}

// unpaired is how little a NUMA node does for redundancy: 0 where two PFs have
// equal parts of what is needed, 1 where two have any, 2 where one has all.
func (c *choice) unpaired(numa int, need int64) int64 {
	var most, second int64
	for i := range c.stocks {
		if first, left, _ := c.ofPF(i, numa); !first || left == 0 {
			continue
		} else if left > most {
			most, second = left, most
		} else {
			second = max(second, left)
		}
	}
	switch {
	case second >= need/2 && most+second >= need:
		return 0
	case second > 0:
		return 1
	}
	return 2
}

// ofPF tells what the PF of a stock has left on a NUMA node, and how many of it
// are chosen anywhere; and whether the stock is the PF's first on that node.
func (c *choice) ofPF(i, numa int) (first bool, left, chosen int64) {
	first = c.stocks[i].numa == numa
	for j := range c.stocks {
		s := &c.stocks[j]
		if s.pf != c.stocks[i].pf {
			continue
		}
		chosen += s.chosen
		if s.numa == numa {
			left += s.left
			first = first && j >= i
		}
	}
	return first, left, chosen
}

// nextPF chooses the stock to take from on one NUMA node; -1 when it has none left.
func (c *choice) nextPF(numa int, need int64) int {
	var p pair
	if c.policy == PolicyPaired {
		p = c.pair(numa, need)
	}
	best := -1
	var bestRank rank
	for i := range c.stocks {
		s := &c.stocks[i]
		if s.numa != numa || s.left == 0 {
			continue
		}
		_, left, chosen := c.ofPF(i, numa)
		var r rank
		switch c.policy {
		case PolicySpread:
			r[0], r[1] = chosen, -left // least taken, then most free
		case PolicyPaired:
			r = p.rank(left, chosen)
			if p.used == 1 && chosen == 0 {
				r[2] = int64(c.nearness(i))
			}
		default:
			switch {
			case chosen > 0: // go on with a PF once begun
			case left >= need:
				r[0], r[1] = 1, left // the tightest that has enough
			default:
				r[0], r[1] = 2, -left // else the one with most
			}
		}
		if best < 0 || r.better(bestRank) || r == bestRank && c.policy.nearer(c.nearness(i), c.nearness(best)) {
			best, bestRank = i, r
		}
	}
	return best
}

// nearness is the most bridges that a stock shares with another that is chosen from.
func (c *choice) nearness(i int) int {
	most := 0
	for j := range c.stocks {
		if j != i && c.stocks[j].chosen > 0 {
			most = max(most, sharedBridges(c.bridges[i], c.bridges[j]))
		}
	}
	return most
}

// pair is where PolicyPaired stands.
type pair struct {
	used  int   // PFs that are chosen from
	opens bool  // another PF is to be begun: for the pair, or because those begun have too little
	gives int64 // what that one is to give
}

func (c *choice) pair(numa int, need int64) pair {
	var p pair
	size, here := need, int64(0) // what the begun ones have left here
	for i := range c.stocks {
		s := &c.stocks[i]
		size += s.chosen
		begun, first := false, true
		for j := range c.stocks {
			if c.stocks[j].pf == s.pf {
				begun = begun || c.stocks[j].chosen > 0
				first = first && j >= i
			}
		}
		if begun && first {
			p.used++
		}
		if begun && s.numa == numa {
			here += s.left
		}
	}
	p.opens = p.used < 2 || here < need
	p.gives = math.MaxInt64
	if p.used == 1 {
		// Half of all, and more where the first cannot give the other half.
		p.gives = max(size/2, need-here)
	}
	return p
}

// rank puts a PF to begin first where one is to be begun: the one that has most
// of what it is to give, leaving room for the bridges, then the one with most.
// So the two with most make the pair, and as many pairs as can be stay
// possible. Otherwise it comes from the PF that gave least.
func (p *pair) rank(left, chosen int64) rank {
	if chosen > 0 {
		r := rank{1: chosen, 3: -left}
		r.worseIf(0, p.opens)
		return r
	}
	r := rank{1: -min(left, p.gives), 3: -left}
	r.worseIf(0, !p.opens)
	return r
}
