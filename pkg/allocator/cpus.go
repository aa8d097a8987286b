package allocator

// cpuOptions are the CPU manager's policy options that decide what a pod gets
// (cpumanager/policy_options.go). strict-cpu-reservation is none of them: it
// keeps pods of the shared pool off the reserved CPUs.
type cpuOptions struct {
	wholeCores      bool // full-pcpus-only
	acrossNUMA      bool // distribute-cpus-across-numa
	bySocket        bool // align-by-socket
	spreadCores     bool // distribute-cpus-across-cores
	byCache         bool // prefer-align-cpus-by-uncorecache
	newDistribution bool // distribute-cpus-across-numa as of 1.37
}

// cpuHints are the masks that would do for so many exclusive CPUs (cpumanager
// generateCPUTopologyHints). All that init containers left must lie in the
// mask, even if it is not needed.
func (a *admission) cpuHints(count int64, hints, preferred maskSet) {
	n := a.node
	clear(hints)
	clear(preferred)
	var bufTotal, bufFree table
	total, free := bufTotal.of(n), bufFree.of(n)
	var left, within, hosts uint64
	for k := range n.cpu.numa {
		g := &n.cpu.numa[k]
		if g.size == 0 {
			continue
		}
		hosts |= 1 << k
		total.spread(1<<k, int64(g.size))
		reusable := g.set.shared(&a.reuse.cpus)
		if reusable > 0 {
			within |= 1 << k
		}
		left += uint64(reusable)
		free.spread(1<<k, int64(g.set.shared(&a.room.cpus)))
	}
	total.sum()
	free.sum()
	least := size(hosts)
	for mask := nextMask(0, hosts); mask != 0; mask = nextMask(mask, hosts) {
		if total.at(mask) >= count {
			least = min(least, size(mask))
		}
		if within&^mask == 0 && int64(left)+free.at(mask) >= count {
			hints.add(mask)
		}
	}
	hints.each(func(mask uint64) {
		if size(mask) == least || n.cpuOpts.bySocket && n.socketAligned(mask, least) {
			preferred.add(mask)
		}
	})
}

// socketAligned is cpumanager isHintSocketAligned: the mask is on no more
// sockets than so many NUMA nodes need.
func (n *Node) socketAligned(mask uint64, least int) bool {
	perSocket := n.cpu.withCPUs / len(n.cpu.sockets)
	if perSocket == 0 {
		return false
	}
	cpus := n.cpu.inMask(mask)
	_, sockets := n.cpu.onSockets(&cpus)
	return sockets == (least+perSocket-1)/perSocket
}

// cpuLanes are cpuHints of one NUMA node each, all of them preferred.
func (a *admission) cpuLanes(count int64, lanes uint64) uint64 {
	reusable := a.reuse.cpus.size()
	for rest := lanes; rest != 0; rest &= rest - 1 {
		g := &a.node.cpu.numa[firstBit(rest)]
		here := 0
		if reusable > 0 {
			here = g.set.shared(&a.reuse.cpus)
		}
		if g.size == 0 || here != reusable || int64(g.set.shared(&a.room.cpus)+here) < count {
			lanes &^= rest & -rest
		}
	}
	return lanes
}

// allocateCPUs is cpumanager allocateForAdd.
func (a *admission) allocateCPUs(kind containerKind, count int64, h hint) cause {
	if c := a.checkWholeCores(count); c != none {
		return c
	}
	if a.onlyVerdict {
		if int64(a.room.cpus.size()+a.reuse.cpus.size()) < count {
			return unexpected
		}
		return none
	}
	got, ok := a.takeCPUs(count, h, &a.reuse.cpus)
	if !ok {
		return unexpected
	}
	if kind == initial {
		a.reuse.cpus = a.reuse.cpus.or(&got)
	} else {
		a.reuse.cpus = a.reuse.cpus.without(&got)
	}
	a.lands.cpus(&got)
	return none
}

// checkWholeCores is cpumanager enforceSMTAlignment. Free CPUs whose core has a
// reserved sibling are not to be had under full-pcpus-only.
func (a *admission) checkWholeCores(count int64) cause {
	if !a.node.cpuOpts.wholeCores {
		return none
	}
	free := a.room.cpus.without(&a.node.cpu.reservedCores)
	if count%int64(a.node.cpu.perCore) != 0 || count > int64(free.size()) {
		return smtAlignment
	}
	return none
}

// takeCPUs is cpumanager allocateCPUs: of the hint's NUMA nodes, or their
// sockets, first, and what is missing of all that is left.
func (a *admission) takeCPUs(count int64, h hint, reusable *cpuBits) (cpuBits, bool) {
	t := a.node.cpu
	available := a.room.cpus.or(reusable)
	var got cpuBits
	if h.mask != 0 {
		near := t.inMask(h.mask)
		if a.node.cpuOpts.bySocket {
			near, _ = t.onSockets(&near)
		}
		near = near.and(&available)
		var ok bool
		if got, ok = a.node.take(&near, min(int(count), near.size())); !ok {
			return cpuBits{}, false
		}
	}
	rest := available.without(&got)
	more, ok := a.node.take(&rest, int(count)-got.size())
	if !ok {
		return cpuBits{}, false
	}
	got = got.or(&more)
	a.room.cpus = a.room.cpus.without(&got)
	return got, true
}

// take is cpumanager takeByTopology.
func (n *Node) take(available *cpuBits, count int) (cpuBits, bool) {
	if !n.cpuOpts.acrossNUMA {
		return n.cpu.takePacked(available, count, n.cpuOpts.spreadCores, n.cpuOpts.byCache)
	}
	group := 1
	if n.cpuOpts.wholeCores {
		group = n.cpu.perCore
	}
	return n.cpu.takeDistributed(available, count, group, &n.cpuOpts)
}
