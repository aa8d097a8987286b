package allocator

// pool is a device resource. Its groups' counts start at room.counts[at].
type pool struct {
	resource string
	policy   Policy // how our own plugin chooses; empty for another vendor's, of which it is not known
	aligned  bool   // some device says where it sits, so the kubelet computes hints
	healthy  int64
	held     int64 // healthy or not
	at       int
	groups   []group
	bridges  [][]string // above each group's PF, for Prefer's choice
	hosts    uint64     // NUMA nodes that hints are made of
	most     []int64    // devices that so many of them have at the most; where hints are merged
}

// group are the devices of a pool that share NUMA nodes and PF.
type group struct {
	mask  uint64 // NUMA nodes by index; 0 for devices that name none, or only ones that the machine does not have
	numa  int    // id of the first NUMA node; noTopology without
	pf    int
	total int64

	numaNodes []int // as published, with pfAddress and unhealthy
	pfAddress string
	unhealthy []string // ids
}

// touches tells whether a device of the group matches a mask: with several
// NUMA nodes any of them will do (bitmask AnySet).
func (g *group) touches(mask uint64) bool { return g.mask&mask != 0 }

// placed tells whether the devices name NUMA nodes at all.
func (g *group) placed() bool { return g.numa != noTopology }

// deviceHints are the masks that would do for a device request (devicemanager
// generateDeviceTopologyHints). Which are preferred follows from all devices
// that the resource has, held and unhealthy ones too.
func (a *admission) deviceHints(p *pool, count int64, hints, preferred maskSet) {
	n := a.node
	clear(hints)
	clear(preferred)
	free, reuse := a.room.counts[p.at:], a.reuse.counts[p.at:]
	var have int64
	for i := range p.groups {
		have += free[i] + reuse[i]
	}
	if have < count {
		return
	}
	var buf table
	match := buf.of(n)
	for i := range p.groups {
		match.spread(p.groups[i].mask, free[i]+reuse[i])
	}
	match.sum()
	least := 1
	for least < size(p.hosts) && p.most[least] < count {
		least++
	}
	for mask := nextMask(0, p.hosts); mask != 0; mask = nextMask(mask, p.hosts) {
		if match.at(mask) >= count && !a.strays(p, mask) {
			hints.add(mask)
		}
	}
	hints.each(func(mask uint64) {
		if size(mask) == least {
			preferred.add(mask)
		}
	})
}

// countMost works out what a set of NUMA nodes of each size has at the most, were
// nothing held and all devices well: the size of the smallest that could do.
func (p *pool) countMost(n *Node) {
	var buf table
	total := buf.of(n)
	for i := range p.groups {
		total.spread(p.groups[i].mask, p.groups[i].total)
	}
	total.sum()
	p.most = make([]int64, size(p.hosts)+1)
	for mask := nextMask(0, p.hosts); mask != 0; mask = nextMask(mask, p.hosts) {
		p.most[size(mask)] = max(p.most[size(mask)], total.at(mask))
	}
}

// strays tells whether an init container left a device outside the mask: all of
// them must lie in it, even if they are not needed.
func (a *admission) strays(p *pool, mask uint64) bool {
	for i := range p.groups {
		if g := &p.groups[i]; a.reuse.counts[p.at+i] > 0 && g.placed() && !g.touches(mask) {
			return true
		}
	}
	return false
}

// deviceLanes are deviceHints of one NUMA node each. Such a hint is always
// preferred, for what is free on one node bounds what it has in all.
func (a *admission) deviceLanes(p *pool, count int64, lanes uint64) uint64 {
	lanes &= p.hosts
	for rest := lanes; rest != 0; rest &= rest - 1 {
		lane := rest & -rest
		var match int64
		for i := range p.groups {
			if p.groups[i].touches(lane) {
				match += a.room.counts[p.at+i] + a.reuse.counts[p.at+i]
			}
		}
		if match < count || a.strays(p, lane) {
			lanes &^= lane
		}
	}
	return lanes
}

// allocateDevices is devicemanager devicesToAllocate: what can be reused first,
// then devices of the hint's NUMA nodes, then any; within each as our plugin
// prefers, and where it is not asked in any way: what another vendor's prefers
// is not known.
func (a *admission) allocateDevices(kind containerKind, p *pool, count int64, h hint) bool {
	if p.healthy == 0 {
		return false // "no healthy devices present", whatever the number
	}
	if count == 0 {
		return true
	}
	free, reuse := a.room.counts[p.at:p.at+len(p.groups)], a.reuse.counts[p.at:p.at+len(p.groups)]
	reusable, available := sum(reuse), sum(free)
	if reusable < count && available < count-reusable {
		return false
	}
	if a.onlyVerdict {
		return true
	}
	var buf [groupsOnStack]stock
	t := taking{admission: a, pool: p, need: count}
	t.choice = choice{policy: p.policy, distances: a.node.between, stocks: buf[:0], bridges: p.bridges}
	for i := range p.groups {
		t.stocks = append(t.stocks, stock{numa: p.groups[i].numa, pf: p.groups[i].pf})
	}
	if p.aligned {
		t.hint = h.mask
	}
	t.atRandom(reuse, everywhere)
	var near int64
	for i := range p.groups {
		if t.in(withinHint, i) {
			near += free[i]
		}
	}
	if t.need < near {
		t.preferred(free, withinHint)
		t.atRandom(free, withinHint)
	} else {
		t.atRandom(free, withinHint) // all of them
		t.preferred(free, everywhere)
		t.atRandom(free, everywhere)
	}
	for i := range t.stocks {
		got := t.stocks[i].chosen
		a.lands.device(p, i, got)
		if kind == initial {
			reuse[i] += got // what was free and what was reused alike
		}
	}
	return t.need == 0
}

// groupsOnStack is the number of a pool's groups up to which choosing needs no heap.
const groupsOnStack = 32

// taking is one resource of one container on its way.
type taking struct {
	*admission
	choice // its stocks' chosen counts up
	pool   *pool
	hint   uint64 // 0 where devices are not told apart by NUMA nodes
	need   int64
}

// place is a part of a pool, as devicemanager filterByAffinity splits it.
type place uint8

const (
	everywhere place = iota
	withinHint       // devices of the hint's NUMA nodes
)

func (t *taking) in(w place, i int) bool {
	return w == everywhere || t.pool.groups[i].touches(t.hint)
}

// preferred takes what our plugin names out of the devices that are offered
// (callGetPreferredAllocationIfAvailable).
func (t *taking) preferred(from []int64, offered place) {
	if t.policy == "" || t.need <= 0 {
		return
	}
	var buf [groupsOnStack]int64
	before := buf[:0]
	for i := range t.stocks {
		t.stocks[i].left = 0
		if t.in(offered, i) {
			t.stocks[i].left = from[i]
		}
		before = append(before, t.stocks[i].left)
	}
	t.choose(t.need)
	for i := range t.stocks {
		took := before[i] - t.stocks[i].left
		from[i] -= took
		t.need -= took
	}
}

// atRandom takes what is still needed out of a part of the pool, in whatever
// way: the kubelet goes through a map, or by another vendor's preference.
func (t *taking) atRandom(from []int64, part place) {
	var rest int64
	for i := range t.stocks {
		if t.in(part, i) {
			rest += from[i]
		}
	}
	for i := range t.stocks {
		if t.need <= 0 {
			return
		}
		if !t.in(part, i) {
			continue
		}
		rest -= from[i]
		most, least := min(t.need, from[i]), max(0, t.need-rest)
		got := most
		if least < most {
			got = most - int64(t.fate.pick(int(most-least+1)))
		}
		from[i] -= got
		t.need -= got
		t.stocks[i].chosen += got
	}
}
