package allocator

import (
	"slices"

	"github.com/numalane/numalane/pkg/topology"
)

// stake is what one pod holds of a node's room.
type stake struct {
	cpus   cpuBits
	counts []int64 // as room.counts; NUMA nodes that memory is given away with are 0
}

// likeness is by what two rooms of one node must be equal to answer every pod
// alike.
type likeness uint8

const (
	byBit   likeness = iota // CPU by CPU
	byLane                  // so many of each on every NUMA node
	byTotal                 // so many of each
)

// likeness follows from what the kubelet's answer depends on. Under
// single-numa-node all that a container gets comes from one NUMA node, under
// best-effort and none alignment refuses nobody; which CPUs are free matters
// where cores must be whole, or a request may span NUMA nodes and be refused.
// From which PFs devices come matters where that decides from which NUMA nodes:
// on a machine of one NUMA node even single-numa-node offers devices that are
// elsewhere (its hint of all NUMA nodes is none), and PolicyPaired goes by the PFs.
func (n *Node) likeness() likeness {
	switch {
	case n.static && (!n.cpu.even || n.cpuOpts.wholeCores), n.podLevel:
		return byBit
	case n.policy == policySingle && !n.stray:
		return byLane
	case (n.policy == policyNone || n.policy == policyBestEffort) && !n.memory:
		return byTotal
	}
	return byBit
}

// refusesMore tells whether the node, with more room, admits the pod whenever
// it does with less: all that it asks for goes to one place, which stays.
func (n *Node) refusesMore(r *Request) bool {
	switch n.likeness() {
	case byTotal:
		return true
	case byLane:
		q := n.ask(r)
		if n.podScope {
			return !q.asWhole
		}
		asking := 0
		for i := range q.containers {
			if !q.containers[i].isEmpty() {
				asking++
			}
		}
		return asking <= 1
	}
	return false
}

// stakeOf reads what a pod's node says that it holds; nil where what becomes of
// the room when it comes or goes cannot be told.
func (n *Node) stakeOf(a *topology.Allocation) *stake {
	if n.static && !n.cpu.even || len(n.others) > 0 {
		return nil
	}
	s := &stake{counts: make([]int64, len(n.room.counts))}
	held := []topology.Allocation{*a}
	for i := range n.pools {
		p := &n.pools[i]
		for j := range p.groups {
			g := &p.groups[j]
			healthy, _ := heldOf(p.resource, &topology.Group{NUMANodes: g.numaNodes, PF: g.pfAddress, Unhealthy: g.unhealthy}, held)
			s.counts[p.at+j] = int64(healthy)
		}
	}
	for i := range a.Containers {
		c := &a.Containers[i]
		if n.static {
			for _, set := range c.CPUs {
				cpus := n.cpu.bits(set)
				s.cpus = s.cpus.or(&cpus)
			}
		}
		if !n.memory {
			continue
		}
		for _, m := range c.Memory {
			kind := n.memoryKind(m.Type)
			if kind < 0 || len(m.NUMANodes) != 1 {
				return nil
			}
			k, ok := slices.BinarySearch(n.numaIDs, m.NUMANodes[0])
			if !ok {
				return nil
			}
			s.counts[n.mem[kind].at+k] += int64(m.Size)
		}
	}
	s.cpus = s.cpus.and(&n.empty.cpus)
	return s
}

// takenBy is what is gone of the room of n in after; false where memory that is
// given away together has changed.
func (n *Node) takenBy(after *Node) (*stake, bool) {
	s := &stake{cpus: n.room.cpus.without(&after.room.cpus), counts: make([]int64, len(n.room.counts))}
	for i := range s.counts {
		if n.memory && i >= n.cellsAt {
			if size(uint64(after.room.counts[i])) > 1 && after.room.counts[i] != n.room.counts[i] {
				return nil, false
			}
			continue
		}
		s.counts[i] = n.room.counts[i] - after.room.counts[i]
	}
	return s, true
}

// place is the node once a pod holds what it is known to hold; false where that
// is not free.
func (n *Node) place(s *stake) (*Node, bool) { return n.shift(s, 1) }

// release is the node once a pod has gone; false where the node has that already.
func (n *Node) release(s *stake) (*Node, bool) { return n.shift(s, -1) }

func (n *Node) shift(s *stake, by int64) (*Node, bool) {
	after := *n
	after.room = n.clone()
	like := n.likeness()
	if n.static && !after.shiftCPUs(s, by, like) {
		return nil, false
	}
	for i := range n.pools {
		if !after.shiftDevices(&n.pools[i], s, by, like) {
			return nil, false
		}
	}
	for i := range n.mem {
		for k := range n.numaIDs {
			at := n.mem[i].at + k
			after.room.counts[at] -= by * s.counts[at]
			if free := after.room.counts[at]; free < 0 || free > n.mem[i].allocatable[k] {
				return nil, false
			}
			if by > 0 && s.counts[at] > 0 && after.room.counts[n.cellsAt+k] == 0 {
				after.room.counts[n.cellsAt+k] = 1 << k
			}
		}
	}
	after.ungroup()
	return &after, true
}

// ungroup forgets with whom the memory of a NUMA node was given away once all
// of it is free (memorymanager releaseMemory).
func (n *Node) ungroup() {
	for k := range n.numaIDs {
		free := len(n.mem) > 0
		for i := range n.mem {
			free = free && n.room.counts[n.mem[i].at+k] == n.mem[i].allocatable[k]
		}
		if free {
			n.room.counts[n.cellsAt+k] = 0
		}
	}
}

// shiftCPUs takes a pod's CPUs or gives them back. Where only numbers matter
// they may be others than in the way that is looked at.
func (n *Node) shiftCPUs(s *stake, by int64, like likeness) bool {
	from, to := n.room.cpus, n.empty.cpus.without(&n.room.cpus)
	if by < 0 {
		from, to = to, from
	}
	switch like {
	case byBit:
		if s.cpus.shared(&from) != s.cpus.size() {
			return false
		}
		from, to = from.without(&s.cpus), to.or(&s.cpus)
	case byTotal:
		if !shiftAny(&from, &to, &s.cpus, s.cpus.size(), &n.empty.cpus) {
			return false
		}
	case byLane:
		for k := range n.cpu.numa {
			g := &n.cpu.numa[k]
			if count := s.cpus.shared(&g.set); count > 0 && !shiftAny(&from, &to, &s.cpus, count, &g.set) {
				return false
			}
		}
	}
	if by < 0 {
		from = to
	}
	n.room.cpus = from
	return true
}

// shiftAny moves so many CPUs of a part of the machine, the wanted ones first.
func shiftAny(from, to, wanted *cpuBits, count int, part *cpuBits) bool {
	first, rest := from.and(part), from.and(part)
	first = first.and(wanted)
	rest = rest.without(wanted)
	if first.size()+rest.size() < count {
		return false
	}
	var moved cpuBits
	for _, set := range []*cpuBits{&first, &rest} {
		set.each(func(i int) bool {
			if count == 0 {
				return false
			}
			moved.add(i)
			count--
			return true
		})
	}
	*from, *to = from.without(&moved), to.or(&moved)
	return true
}

// shiftDevices does the same for a pool.
func (n *Node) shiftDevices(p *pool, s *stake, by int64, like likeness) bool {
	free, all := n.room.counts[p.at:p.at+len(p.groups)], n.empty.counts[p.at:p.at+len(p.groups)]
	for i, count := range s.counts[p.at : p.at+len(p.groups)] {
		// Its own group first, then those that make no difference.
		for pass := 0; pass < 2 && count > 0; pass++ {
			for j := range free {
				if (pass == 0) != (i == j) || pass == 1 && !(like == byTotal || like == byLane && p.groups[j].mask == p.groups[i].mask) {
					continue
				}
				got := min(count, free[j])
				if by < 0 {
					got = min(count, all[j]-free[j])
				}
				free[j] -= by * got
				count -= got
			}
		}
		if count > 0 {
			return false
		}
	}
	return true
}

// alike tells whether two rooms of one node answer every pod alike.
func (n *Node) alike(o *Node) bool { return n.likeRooms(&n.room, &o.room) }

func (n *Node) alikeStakes(a, b *stake) bool {
	return n.likeRooms(&room{a.cpus, a.counts}, &room{b.cpus, b.counts})
}

func (n *Node) likeRooms(a, b *room) bool {
	like := n.likeness()
	if like == byBit {
		return a.cpus == b.cpus && slices.Equal(a.counts, b.counts)
	}
	for k := range n.cpu.numa {
		if like == byLane && n.static && a.cpus.shared(&n.cpu.numa[k].set) != b.cpus.shared(&n.cpu.numa[k].set) {
			return false
		}
	}
	if n.static && a.cpus.size() != b.cpus.size() {
		return false
	}
	memoryAt := len(a.counts)
	if n.memory {
		memoryAt = n.cellsAt - len(n.mem)*len(n.numaIDs)
	}
	for i := range n.pools {
		if !n.pools[i].alike(a.counts, b.counts, like) {
			return false
		}
	}
	return slices.Equal(a.counts[memoryAt:], b.counts[memoryAt:])
}

func (p *pool) alike(a, b []int64, like likeness) bool {
	a, b = a[p.at:p.at+len(p.groups)], b[p.at:p.at+len(p.groups)]
	if like == byTotal {
		return sum(a) == sum(b)
	}
	for i := range p.groups {
		var x, y int64
		for j := range p.groups {
			if p.groups[j].mask == p.groups[i].mask {
				x, y = x+a[j], y+b[j]
			}
		}
		if x != y {
			return false
		}
	}
	return true
}
