package allocator

import "slices"

// Reason is why a node is refused to a pod. It is one bounded enumeration for
// FailedNodes texts, events, metrics and logs alike.
type Reason uint8

// The reasons, from "would fit" over "does not fit now" to "never will".
const (
	// Admitted: the kubelet will admit the pod.
	Admitted Reason = iota
	// NUMAUnaligned: no NUMA node (under the policy restricted: not as few as
	// could do on an empty node) has all that a container, or by scope the pod,
	// asks for, free at once. The kubelet ends such a pod with TopologyAffinityError.
	NUMAUnaligned
	// InsufficientDevices: fewer healthy free devices on the whole node than asked.
	InsufficientDevices
	// InsufficientCPU: fewer free exclusive CPUs on the whole node than asked.
	InsufficientCPU
	// InsufficientMemory: the memory manager has less free than asked.
	InsufficientMemory
	// OutOfTotals: alignment apart, the node as a whole has too little left of
	// something. The kubelet's OutOfcpu and the like.
	OutOfTotals
	// SMTAlignment: full-pcpus-only and a request that is not whole cores, or
	// more than the free whole cores. The kubelet's SMTAlignmentError.
	SMTAlignment
	// NUMAImpossible: the kubelet would refuse the pod even with nothing held.
	// Evicting pods cannot help.
	NUMAImpossible
	// NoSharedPool: under pod scope a pod with pod-level resources whose
	// containers of their own leave nothing for those that share.
	NoSharedPool
	// Undetermined: which devices the kubelet picks is left to chance, or to
	// another vendor's plugin, and it may refuse the pod.
	Undetermined
	// InFlux: so many pods are on their way to the node that what it will have
	// left cannot be told yet.
	InFlux
	// NoState: the node publishes nothing.
	NoState
	// UnreadableState: what the node publishes cannot be read or contradicts itself.
	UnreadableState
	// NewerState: what the node publishes is of a newer format version.
	NewerState
	// KubeletAway: the kubelet does not listen, or has only just started.
	KubeletAway
	// StaleState: the node has long not said what a pod holds that is bound to it,
	// so its plugin may be gone.
	StaleState
	// Unknown: what the node publishes contradicts itself, or its kubelet is
	// of a kind or version whose answers are not known.
	Unknown
	numReasons
)

// String is the reason for people, without numbers or names, so that
// kube-scheduler adds equal ones up: "3 node(s) had …".
func (r Reason) String() string { return reasons[r].text }

// Code is the reason as a metric label or event reason.
func (r Reason) Code() string { return reasons[r].code }

// Unresolvable tells that evicting pods from the node cannot help.
func (r Reason) Unresolvable() bool { return reasons[r].unresolvable }

// Passes tells that the reason is one of the moment, and goes by itself.
func (r Reason) Passes() bool { return r == InFlux || r == KubeletAway }

var reasons = [numReasons]struct {
	code, text   string
	unresolvable bool
}{
	Admitted:            {"Admitted", "admitted", false},
	NUMAUnaligned:       {"NUMAUnaligned", "node(s) had not enough free CPUs, memory and devices together on their NUMA nodes", false},
	InsufficientDevices: {"InsufficientDevices", "node(s) had too few free healthy devices", false},
	InsufficientCPU:     {"InsufficientCPU", "node(s) had too few free exclusive CPUs", false},
	InsufficientMemory:  {"InsufficientMemory", "node(s) had too little free NUMA memory", false},
	OutOfTotals:         {"OutOfTotals", "node(s) had too little left of a resource in all", false},
	SMTAlignment:        {"SMTAlignment", "node(s) could not give whole physical cores", false},
	NUMAImpossible:      {"NUMAImpossible", "node(s) could not align the pod even when empty", true},
	NoSharedPool:        {"NoSharedPool", "node(s) had nothing left for the containers that share the pod's resources", true},
	Undetermined:        {"Undetermined", "node(s) pick devices at random and may refuse the pod", false},
	InFlux:              {"InFlux", "node(s) had too many pods on their way to tell what will be left", false},
	NoState:             {"NoState", "node(s) did not publish their NUMA topology", true},
	UnreadableState:     {"UnreadableState", "node(s) published an unreadable NUMA topology", true},
	NewerState:          {"NewerState", "node(s) published a NUMA topology of a newer format", true},
	KubeletAway:         {"KubeletAway", "node(s) had a kubelet that was down or starting", true},
	StaleState:          {"StaleState", "node(s) have long not published what their pods hold", true},
	Unknown:             {"Unknown", "node(s) published a state that contradicts itself or a kubelet that is not known", true},
}

// Verdict is the kubelet's answer to a pod, foretold.
type Verdict struct {
	Reason Reason
	// Container is the index of the container that was refused, in admission
	// order (init containers first); -1 when the pod was refused as a whole.
	Container int

	cause cause
	short string // what the general predicates found too little of
}

// OK tells whether the kubelet will admit the pod.
func (v Verdict) OK() bool { return v.Reason == Admitted }

// KubeletReason is the reason that the kubelet gives in the pod's status;
// empty for a pod that it admits, or of which nothing can be told.
func (v Verdict) KubeletReason() string {
	switch v.cause {
	case alignment:
		return "TopologyAffinityError"
	case smtAlignment:
		return "SMTAlignmentError"
	case emptyPool:
		return "EmptyPodSharedPoolError"
	case unexpected:
		return "UnexpectedAdmissionError"
	case outOf:
		return "OutOf" + v.short
	default:
		return ""
	}
}

// cause is where in the kubelet a pod was refused.
type cause uint8

const (
	none         cause = iota
	alignment          // by the topology manager's policy
	smtAlignment       // by the CPU manager, for the sake of whole cores
	emptyPool          // by the managers, for containers that would share nothing
	unexpected         // by a manager that has too little
	outOf              // by the general predicates, which come last
)

// why names the reason for a refusal: a request that no state could serve,
// then whether even the empty node would refuse, then whether the node as a
// whole has too little of one thing.
func (n *Node) why(q *ask, container int, c cause) Reason {
	d := &q.pod
	if container >= 0 {
		d = &q.containers[container].demand
	}
	switch {
	case c == emptyPool:
		return NoSharedPool
	case n.static && n.cpuOpts.wholeCores && d.cpus%int64(n.cpu.perCore) != 0:
		return SMTAlignment
	case n.impossible(q):
		return NUMAImpossible
	}
	for i := range d.devices {
		if p := n.poolOf(d.devices[i].name); p != nil && sum(n.room.counts[p.at:p.at+len(p.groups)]) < d.devices[i].count {
			return InsufficientDevices
		}
	}
	if n.static && int64(n.room.cpus.size()) < d.cpus {
		return InsufficientCPU
	}
	if c == smtAlignment {
		return SMTAlignment
	}
	for i := range d.memory {
		if kind := n.memoryKind(d.memory[i].name); kind >= 0 {
			at := n.mem[kind].at
			if sum(n.room.counts[at:at+len(n.numaIDs)]) < d.memory[i].count {
				return InsufficientMemory
			}
		}
	}
	return NUMAUnaligned
}

// impossible tells whether the node would refuse the pod with nothing held.
func (n *Node) impossible(q *ask) bool {
	var f fate
	a := admission{node: n, fate: &f, memory: &reusableMemory{}}
	a.room = room{cpus: n.empty.cpus, counts: slices.Clone(n.empty.counts)}
	a.reuse.counts = make([]int64, len(n.empty.counts))
	_, c := a.run(q)
	return c != none
}
