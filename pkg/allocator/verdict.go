package allocator

// Reason is why a node is refused to a pod. It is one bounded enumeration for
// FailedNodes texts, events, metrics and logs alike.
type Reason uint8

// The reasons, from "would fit" over "does not fit now" to "never will".
const (
	// Admitted: the kubelet will admit the pod.
	Admitted Reason = iota
	// NUMAUnaligned: no one NUMA node has all that a container (or the pod,
	// by scope) asks for, free at once. The kubelet ends such a pod with
	// TopologyAffinityError.
	NUMAUnaligned
	// InsufficientDevices: fewer healthy free devices on the whole node than asked.
	InsufficientDevices
	// InsufficientCPU: fewer free exclusive CPUs on the whole node than asked.
	InsufficientCPU
	// InsufficientMemory: the memory manager has less free than asked.
	InsufficientMemory
	// SMTAlignment: full-pcpus-only and a request that is not whole cores, or
	// more than the free whole cores. The kubelet's SMTAlignmentError.
	SMTAlignment
	// NUMAImpossible: even with nothing held, no one NUMA node is large
	// enough. Evicting pods cannot help.
	NUMAImpossible
	// InFlux: so many pods are on their way to the node that what it will have
	// left cannot be told yet.
	InFlux
	// NoState: the node publishes nothing.
	NoState
	// UnreadableState: what the node publishes cannot be read or contradicts itself.
	UnreadableState
	// NewerState: what the node publishes is of a newer format version.
	NewerState
	numReasons
)

// String is the reason for people, without numbers or names, so that
// kube-scheduler adds equal ones up: "3 node(s) had …".
func (r Reason) String() string { return reasons[r].text }

// Code is the reason as a metric label or event reason.
func (r Reason) Code() string { return reasons[r].code }

// Unresolvable tells that evicting pods from the node cannot help.
func (r Reason) Unresolvable() bool { return reasons[r].unresolvable }

var reasons = [numReasons]struct {
	code, text   string
	unresolvable bool
}{
	Admitted:            {"Admitted", "admitted", false},
	NUMAUnaligned:       {"NUMAUnaligned", "node(s) had no single NUMA node with enough free CPUs, memory and devices together", false},
	InsufficientDevices: {"InsufficientDevices", "node(s) had too few free healthy devices", false},
	InsufficientCPU:     {"InsufficientCPU", "node(s) had too few free exclusive CPUs", false},
	InsufficientMemory:  {"InsufficientMemory", "node(s) had too little free NUMA memory", false},
	SMTAlignment:        {"SMTAlignment", "node(s) could not give whole physical cores", false},
	NUMAImpossible:      {"NUMAImpossible", "node(s) had no NUMA node large enough", true},
	InFlux:              {"InFlux", "node(s) had too many pods on their way to tell what will be left", false},
	NoState:             {"NoState", "node(s) did not publish their NUMA topology", true},
	UnreadableState:     {"UnreadableState", "node(s) published an unreadable NUMA topology", true},
	NewerState:          {"NewerState", "node(s) published a NUMA topology of a newer format", true},
}

// Verdict is the kubelet's answer to a pod, foretold.
type Verdict struct {
	Reason Reason
	// Container is the index of the container that was refused, in admission
	// order (init containers first); -1 when the pod was refused as a whole.
	Container int
}

// OK tells whether the kubelet will admit the pod.
func (v Verdict) OK() bool { return v.Reason == Admitted }
