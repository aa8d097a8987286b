package allocator

import "slices"

// roomOnStack is the size of a node's counts up to which an admission needs no
// heap: 8 NUMA nodes with 8 pools of one PF a NUMA node, and some hugepages.
const roomOnStack = 128

// Admit is the kubelet's answer to the pod, were it to arrive now.
//
// Under single-numa-node it is exact in NUMA node and amount for both scopes.
// Under the other policies it foresees no refusal for alignment.
func (n *Node) Admit(r *Request) Verdict {
	var freeBuf, reuseBuf [roomOnStack]int64
	a := admission{node: n, free: append(freeBuf[:0], n.free...), reuse: append(reuseBuf[:0], n.free...)}
	clear(a.reuse)
	container, refused := a.run(r, nil)
	if !refused {
		return Verdict{Reason: Admitted, Container: -1}
	}
	return Verdict{Reason: n.why(r, container), Container: container}
}

// After is the node once it has admitted the pod, with the verdict. Where that
// is a refusal the node is the same.
func (n *Node) After(r *Request) (*Node, Verdict) {
	a := admission{node: n, free: slices.Clone(n.free), reuse: make(room, len(n.free))}
	if container, refused := a.run(r, nil); refused {
		return n, Verdict{Reason: n.why(r, container), Container: container}
	}
	after := *n
	after.free = a.free
	return &after, Verdict{Reason: Admitted, Container: -1}
}

// Place tells the NUMA node id of each container, in admission order; -1 for
// one that is not bound to a NUMA node. It is nil when the pod is refused.
func (n *Node) Place(r *Request) []int {
	a := admission{node: n, free: slices.Clone(n.free), reuse: make(room, len(n.free))}
	lands := make([]int, len(r.containers))
	if _, refused := a.run(r, lands); refused {
		return nil
	}
	for i, k := range lands {
		if k >= 0 {
			lands[i] = n.numaIDs[k]
		}
	}
	return lands
}

// admission is one pod on its way through the kubelet's resource managers.
type admission struct {
	node  *Node
	free  room
	reuse room // what init containers have ended with: held, but only for this pod
}

// anywhere is the lane of a container for which no provider had a preference.
const anywhere = -1

// run goes through the containers as topologymanager's scope_container and
// scope_pod do: greedily, without going back. It returns the container that
// was refused, -1 for the pod as a whole. lands, when given, gets the NUMA
// node index of each container.
func (a *admission) run(r *Request, lands []int) (container int, refused bool) {
	lane := anywhere
	podScope := a.node.single && a.node.podScope
	if podScope {
		var ok bool
		if lane, ok = a.lane(&r.pod); !ok {
			return -1, true
		}
	}
	for i := range r.containers {
		c := &r.containers[i]
		if a.node.single && !podScope {
			var ok bool
			if lane, ok = a.lane(&c.demand); !ok {
				return i, true
			}
		}
		if !a.allocate(c, lane) {
			return i, true
		}
		if lands != nil {
			lands[i] = lane
			if !a.bound(&c.demand) {
				lands[i] = anywhere
			}
		}
	}
	return -1, false
}

// bound tells whether any provider has hints for the demand on this node.
func (a *admission) bound(d *demand) bool {
	n := a.node
	if n.cpus && d.cpus > 0 || n.memory && len(d.memory) > 0 {
		return true
	}
	for i := range d.devices {
		if p := n.poolOf(d.devices[i].name); p != nil && p.aligned {
			return true
		}
	}
	return false
}

// lane is the merge of single-numa-node: the lowest NUMA node on which every
// provider that has hints has a one-node hint. Such a hint is always preferred,
// for what is free on one node bounds what it has in all.
func (a *admission) lane(d *demand) (lane int, ok bool) {
	if !a.bound(d) {
		return anywhere, true
	}
	lanes := a.node.everyNUMANode()
	lanes = a.cpuLanes(d, lanes)
	for i := range d.devices {
		lanes = a.deviceLanes(&d.devices[i], lanes)
	}
	for i := range d.memory {
		lanes = a.memoryLanes(&d.memory[i], lanes)
	}
	if lanes == 0 {
		return 0, false
	}
	return firstBit(lanes), true
}

// cpuLanes is cpumanager generateCPUTopologyHints for one-node masks: all
// reusable CPUs must lie in the mask, even if they are not needed.
func (a *admission) cpuLanes(d *demand, lanes uint64) uint64 {
	if !a.node.cpus || d.cpus == 0 {
		return lanes
	}
	numa := len(a.node.numaIDs)
	var reusable int64
	for k := range numa {
		reusable += a.reuse[k]
	}
	for k := range numa {
		if a.reuse[k] != reusable || a.free[k]+a.reuse[k] < d.cpus {
			lanes &^= 1 << k
		}
	}
	return lanes
}

// deviceLanes is devicemanager generateDeviceTopologyHints for one-node masks.
func (a *admission) deviceLanes(want *amount, lanes uint64) uint64 {
	p := a.node.poolOf(want.name)
	if p == nil || !p.aligned {
		return lanes
	}
	for rest := lanes; rest != 0; rest &= rest - 1 {
		k := firstBit(rest)
		var match, hosted int64
		strayed := false
		for i := range p.groups {
			g := &p.groups[i]
			switch {
			case g.touches(1 << k):
				match += a.free[p.at+i] + a.reuse[p.at+i]
				hosted += g.total
			case g.mask != 0 && a.reuse[p.at+i] > 0:
				strayed = true
			}
		}
		if strayed || match < want.count || a.node.hostsOnly && hosted == 0 {
			lanes &^= 1 << k
		}
	}
	return lanes
}

// memoryLanes is memorymanager calculateHints for one-node masks. That it
// returns no list at all where nothing fits, and so "don't care", makes no
// difference here: its Allocate then refuses.
func (a *admission) memoryLanes(want *amount, lanes uint64) uint64 {
	if !a.node.memory {
		return lanes
	}
	m := a.node.memoryOf(want.name)
	if m == nil {
		return 0
	}
	lanes &^= m.grouped
	for k := range a.node.numaIDs {
		if a.free[m.at+k]+a.reuse[m.at+k] < want.count {
			lanes &^= 1 << k
		}
	}
	return lanes
}

// allocate is the Allocate of the three managers, in the kubelet's order:
// devices, CPUs, memory. lane is the hint.
func (a *admission) allocate(c *container, lane int) bool {
	for i := range c.devices {
		if !a.allocateDevices(c.kind, &c.devices[i], lane) {
			return false
		}
	}
	if a.node.cpus && c.cpus > 0 && !a.allocateCPUs(c, lane) {
		return false
	}
	if a.node.memory && a.node.single {
		for i := range c.memory {
			if !a.allocateMemory(c.kind, &c.memory[i], lane) {
				return false
			}
		}
	}
	return true
}

// allocateDevices is devicemanager devicesToAllocate: what can be reused
// first, then the lane's devices, then any.
func (a *admission) allocateDevices(kind containerKind, want *amount, lane int) bool {
	p := a.node.poolOf(want.name)
	if p == nil {
		return true // not a device plugin's resource
	}
	if p.healthy == 0 {
		return false // "no healthy devices present", whatever the number
	}
	need := want.count
	for i := range p.groups {
		need -= a.handOver(kind, p.at+i, need)
	}
	inLane := func(g *group) bool { return lane != anywhere && p.aligned && g.touches(1<<lane) }
	for _, aligned := range []bool{true, false} {
		for i := range p.groups {
			if need > 0 && inLane(&p.groups[i]) == aligned {
				need -= a.take(kind, p.at+i, need)
			}
		}
	}
	return need == 0
}

// allocateCPUs is cpumanager allocateForAdd. It counts on the reusable CPUs
// being taken before free ones.
func (a *admission) allocateCPUs(c *container, lane int) bool {
	numa := len(a.node.numaIDs)
	if t := a.node.fullCores; t > 0 {
		var free int64
		for k := range numa {
			free += a.free[k]
		}
		if c.cpus%t != 0 || c.cpus > free-a.node.splitCores {
			return false
		}
	}
	need := c.cpus
	if lane != anywhere {
		need -= a.handOver(c.kind, lane, need)
		need -= a.take(c.kind, lane, need)
	}
	for k := range numa {
		if k != lane && need > 0 {
			need -= a.handOver(c.kind, k, need)
			need -= a.take(c.kind, k, need)
		}
	}
	return need == 0
}

func (a *admission) allocateMemory(kind containerKind, want *amount, lane int) bool {
	m := a.node.memoryOf(want.name)
	if m == nil || lane == anywhere {
		return false
	}
	need := want.count - a.handOver(kind, m.at+lane, want.count)
	return a.take(kind, m.at+lane, need) == need
}

// handOver gives a container what an init container left at one place. Another
// init container leaves it again; the others keep it.
func (a *admission) handOver(kind containerKind, at int, need int64) int64 {
	got := min(need, a.reuse[at])
	if kind != initial {
		a.reuse[at] -= got
	}
	return got
}

// take gives a container what is free at one place.
func (a *admission) take(kind containerKind, at int, need int64) int64 {
	got := min(need, a.free[at])
	a.free[at] -= got
	if kind == initial {
		a.reuse[at] += got
	}
	return got
}

// why names the reason for a refusal: a request that no state could serve,
// then whether even the empty node would refuse, then whether the node as a whole has too little of one thing.
func (n *Node) why(r *Request, container int) Reason {
	if container >= 0 && n.cpus && n.fullCores > 0 && r.containers[container].cpus%n.fullCores != 0 {
		return SMTAlignment
	}
	empty := admission{node: n, free: slices.Clone(n.empty), reuse: make(room, len(n.empty))}
	if _, refused := empty.run(r, nil); refused {
		return NUMAImpossible
	}
	d := &r.pod
	if container >= 0 {
		d = &r.containers[container].demand
	}
	for i := range d.devices {
		if p := n.poolOf(d.devices[i].name); p != nil && sum(n.free[p.at:p.at+len(p.groups)]) < d.devices[i].count {
			return InsufficientDevices
		}
	}
	cpus := sum(n.free[:len(n.numaIDs)])
	if n.cpus && cpus < d.cpus {
		return InsufficientCPU
	}
	if n.cpus && n.fullCores > 0 && d.cpus > cpus-n.splitCores {
		return SMTAlignment
	}
	for i := range d.memory {
		if m := n.memoryOf(d.memory[i].name); n.memory && m != nil && sum(n.free[m.at:m.at+len(n.numaIDs)]) < d.memory[i].count {
			return InsufficientMemory
		}
	}
	return NUMAUnaligned
}

func sum(r room) int64 {
	var s int64
	for _, v := range r {
		s += v
	}
	return s
}
