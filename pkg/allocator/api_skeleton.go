package allocator

import (
	v1 "k8s.io/api/core/v1"

	"github.com/numalane/numalane/pkg/topology"
)

// SKELETON: real implementation in the works; signatures are final.

type Request struct{ exclusive bool }

// NewRequest reads of a pod all that a NUMA-aware admission depends on.
func NewRequest(pod *v1.Pod) *Request { return &Request{} }

// Exclusive tells whether the pod asks for anything that a NUMA node must give
// (exclusive CPUs, NUMA-bound memory, devices). Others are admitted anywhere.
func (r *Request) Exclusive() bool { return r.exclusive }

// Node is a NodeState compiled for admission. It is immutable.
type Node struct{}

// Compile reads a NodeState; an error tells how it contradicts itself.
func Compile(s *topology.NodeState) (*Node, error) { return &Node{}, nil }

// Admit is the kubelet's answer to the pod, were it to arrive now.
func (n *Node) Admit(r *Request) Verdict { return Verdict{Container: -1} }

// After is the node once it has admitted the pod, and the verdict. When the
// verdict is a refusal the node is returned as it was.
func (n *Node) After(r *Request) (*Node, Verdict) { return n, Verdict{Container: -1} }

// Score says how useful the room is that the pod leaves on the node, from 0 to
// max, higher is better. The pod must be admitted there.
func (n *Node) Score(r *Request, max int64) int64 { return 0 }

// Device is one device of a pool as Prefer sees it.
type Device struct {
	ID        string
	NUMANodes []int  // empty: no topology
	PF        string // PCI address of its PF; empty: none
}

// Policy is how Prefer chooses among devices on equal NUMA terms.
type Policy string

const (
	PolicyPacked   Policy = "packed"   // fill one PF before the next
	PolicyBalanced Policy = "balanced" // spread over PFs
)

// Prefer chooses size devices out of available, mustInclude among them: on as
// few NUMA nodes as can be, then by policy, then by ID order. It never fails: with too few it
// returns what there is.
func Prefer(p Policy, available []Device, mustInclude []string, size int) []string { return nil }
