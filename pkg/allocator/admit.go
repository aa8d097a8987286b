package allocator

import (
	"slices"

	"github.com/numalane/numalane/pkg/topology"
)

const (
	// countsOnStack is the size of a room up to which an admission needs no
	// heap: 8 NUMA nodes with 8 pools of one PF a NUMA node, and some hugepages.
	countsOnStack = 128
	// maskWordsOnStack is maskWords of 8 NUMA nodes.
	maskWordsOnStack = 4
)

// maxOutcomes bounds the states that chance, or pods on their way in any
// order, may lead to. Beyond it nothing can be promised.
const maxOutcomes = 16

// Admit is the kubelet's answer to the pod, were it to arrive now. Where the
// kubelet picks devices at random and it matters, a pod that it may refuse is
// refused with Undetermined.
func (n *Node) Admit(r *Request) Verdict {
	var roomBuf, reuseBuf [countsOnStack]int64
	var f fate
	first := n.admit(r, roomBuf[:0], reuseBuf[:0], &f)
	for i := 1; f.next(); i++ {
		if i == maxOutcomes || n.admit(r, roomBuf[:0], reuseBuf[:0], &f).OK() != first.OK() {
			return Verdict{Reason: Undetermined, Container: -1}
		}
	}
	for _, other := range n.others {
		if other.Admit(r).OK() != first.OK() {
			return Verdict{Reason: Undetermined, Container: -1}
		}
	}
	return first
}

func (n *Node) admit(r *Request, roomBuf, reuseBuf []int64, f *fate) Verdict {
	q := n.ask(r)
	var memory reusableMemory
	a := admission{node: n, fate: f, memory: &memory}
	a.room = room{cpus: n.room.cpus, counts: append(roomBuf, n.room.counts...)}
	a.reuse.counts = append(reuseBuf, n.room.counts...)
	clear(a.reuse.counts)
	a.skipLast = n.cpu.even && !n.cpuOpts.acrossNUMA && n.totals == nil
	return a.verdict(q, n.countedOf(r))
}

// verdict lets the pod through the kubelet's two admit handlers that count
// resources: the topology manager's, and the general predicates.
func (a *admission) verdict(q *ask, totals []amount) Verdict {
	container, c := a.run(q)
	if c != none {
		return Verdict{Reason: a.node.why(q, container, c), Container: container, cause: c}
	}
	if short, c := a.predicates(totals); c != none {
		return Verdict{Reason: OutOfTotals, Container: -1, cause: c, short: short}
	}
	return Verdict{Reason: Admitted, Container: -1}
}

// admission is one pod on its way through the kubelet's resource managers.
type admission struct {
	node   *Node
	room   room
	reuse  room            // what init containers have ended with: held, but only for this pod
	memory *reusableMemory // the same of memory
	fate   *fate
	lands  *landings // nil when only the verdict is asked for

	// skipLast: what the last container takes cannot change the verdict once it
	// is known to fit.
	skipLast    bool
	onlyVerdict bool
}

// run goes through the containers as topologymanager's scopes do: greedily,
// without going back. It returns the container that was refused, -1 for the pod as a whole.
func (a *admission) run(q *ask) (container int, c cause) {
	n := a.node
	var h hint
	podScope := n.podScope && n.policy != policyNone
	if podScope {
		var ok bool
		if h, ok = a.affinity(&q.pod, q); !ok {
			return -1, alignment
		}
		if q.asWhole {
			return -1, a.allocateWhole(q, h)
		}
	}
	for i := range q.containers {
		ct := &q.containers[i]
		a.onlyVerdict = a.skipLast && i == len(q.containers)-1
		if n.policy != policyNone && !podScope {
			var ok bool
			if h, ok = a.affinity(&ct.demand, nil); !ok {
				return i, alignment
			}
		}
		a.lands.begin(ct.name)
		if c := a.allocate(ct, q, h); c != none {
			return i, c
		}
	}
	return -1, none
}

// affinity asks the three hint providers about a demand and merges their
// hints. whole is given for a pod with pod-level resources, which has rules of its own.
func (a *admission) affinity(d *demand, whole *ask) (hint, bool) {
	if whole != nil && !whole.asWhole {
		whole = nil
	}
	if a.node.policy == policySingle {
		return a.lane(d, whole)
	}
	var bufs [4][maskWordsOnStack]uint64
	words := maskWords(len(a.node.numaIDs))
	set := func(i int) maskSet {
		if words > maskWordsOnStack {
			return make(maskSet, words)
		}
		return bufs[i][:words]
	}
	m := merger{n: a.node, preferred: set(0), reached: set(1), keep: a.node.policy == policyBestEffort}
	a.merge(&m, d, whole, set(2), set(3))
	h := m.best()
	return h, h.preferred || m.keep
}

func (a *admission) merge(m *merger, d *demand, whole *ask, hints, preferred maskSet) {
	n := a.node
	for i := range d.devices {
		if p := n.poolOf(d.devices[i].name); p != nil && p.aligned {
			a.deviceHints(p, d.devices[i].count, hints, preferred)
			m.add(hints, preferred)
		}
	}
	if n.static && d.cpus > 0 {
		if whole != nil && whole.noSharedCPUs {
			m.impossible = true
		} else {
			a.cpuHints(d.cpus, hints, preferred)
			m.add(hints, preferred)
		}
	}
	if n.memory && len(d.memory) > 0 {
		var buf [4]wantMemory
		want, ok := n.memoryWanted(buf[:0], d)
		if !ok || whole != nil && whole.noSharedMemory {
			m.impossible = true
			return
		}
		// Where nothing fits there is no list at all, so "don't care".
		if a.memoryHints(want, hints, preferred); !hints.isEmpty() {
			for range want {
				m.add(hints, preferred)
			}
		}
	}
}

// lane is the merge of single-numa-node: the lowest NUMA node on which every
// provider that has hints has a one-node hint.
func (a *admission) lane(d *demand, whole *ask) (hint, bool) {
	n := a.node
	lanes := n.everyNUMANode()
	bound := false
	for i := range d.devices {
		if p := n.poolOf(d.devices[i].name); p != nil && p.aligned {
			bound = true
			lanes = a.deviceLanes(p, d.devices[i].count, lanes)
		}
	}
	if n.static && d.cpus > 0 {
		bound = true
		if whole != nil && whole.noSharedCPUs {
			return hint{}, false
		}
		lanes = a.cpuLanes(d.cpus, lanes)
	}
	if n.memory && len(d.memory) > 0 {
		var buf [4]wantMemory
		want, ok := n.memoryWanted(buf[:0], d)
		if !ok || whole != nil && whole.noSharedMemory {
			return hint{}, false
		}
		if m := a.memoryLanes(want); m != 0 || a.memoryFitsAnywhere(want) {
			bound = true
			lanes &= m
		}
	}
	switch {
	case !bound || len(n.numaIDs) == 1 && lanes != 0:
		return hint{preferred: true}, true
	case lanes == 0:
		return hint{}, false
	}
	return hint{mask: lanes & -lanes, preferred: true}, true
}

// allocate is the Allocate of the three managers, in the kubelet's order:
// devices, CPUs, memory.
func (a *admission) allocate(c *container, q *ask, h hint) cause {
	n := a.node
	for i := range c.devices {
		want := &c.devices[i]
		if n.claims && want.claimed {
			continue
		}
		// A name without a pool is not a device plugin's.
		if p := n.poolOf(want.name); p != nil && !a.allocateDevices(c.kind, p, want.count, h) {
			return unexpected
		}
	}
	if n.static && c.cpus > 0 {
		if cause := a.allocateCPUs(c.kind, c.cpus, h); cause != none {
			return cause
		}
	}
	if n.memory && (len(c.memory) > 0 || n.emptyMemory && q.guaranteed) {
		return a.allocateMemory(c.kind, &c.demand, h)
	}
	return none
}

// allocateWhole is AllocatePod of the managers, for a pod with pod-level
// resources under pod scope: one allocation that its containers share or split.
// The device manager has no part in it: such a pod gets no devices (devicemanager AllocatePod).
func (a *admission) allocateWhole(q *ask, h hint) cause {
	n := a.node
	a.lands.begin(topology.WholePod)
	if n.static && q.pod.cpus > 0 {
		if q.noSharedCPUs {
			return emptyPool
		}
		if c := a.checkWholeCores(q.pod.cpus); c != none {
			return c
		}
		got, ok := a.takeCPUs(q.pod.cpus, h, &cpuBits{})
		if !ok || !q.splits(got.size()) {
			return unexpected
		}
		a.lands.cpus(&got)
	}
	if n.memory && q.guaranteed {
		if q.noSharedMemory {
			return emptyPool
		}
		return a.allocateMemory(app, &q.pod, h)
	}
	return none
}

// After is the node once it has admitted the pod, with the verdict. Where that
// is a refusal the node is the same. Of several outcomes it is one.
func (n *Node) After(r *Request) (*Node, Verdict) {
	var f fate
	o := n.outcome(r, &f)
	return o.After, o.Verdict
}

func (n *Node) clone() room {
	return room{cpus: n.room.cpus, counts: slices.Clone(n.room.counts)}
}

func sum(counts []int64) int64 {
	var s int64
	for _, v := range counts {
		s += v
	}
	return s
}
