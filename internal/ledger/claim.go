package ledger

import (
	"errors"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/numalane/numalane/pkg/allocator"
	"github.com/numalane/numalane/pkg/topology"
)

// claim is a pod that holds, or is about to hold, something of a node.
type claim struct {
	pod     *v1.Pod // stripped
	request *allocator.Request

	// told is what the pod's node says that it holds, and unreadable why that
	// cannot be read. Both are nil when the node has said nothing yet.
	told       *topology.Allocation
	unreadable error

	doubt    string    // why told is not believed, as last counted
	since    time.Time // when it was first counted
	promised time.Time // when the promise was made; zero for a pod that came past us

	// Moments on the ledger's clock, see allocator.Move. settled is when told
	// was first believed; whether it is now, believed says.
	bound, settled, gone uint64
	believed             bool
	foreign              bool // seen bound, and never promised
}

// inherit takes over what is known of an earlier version of the pod.
func (c *claim) inherit(old *claim) {
	c.doubt, c.since, c.promised, c.bound, c.foreign = old.doubt, old.since, old.promised, old.bound, old.foreign
	if c.pod.Annotations[topology.AllocationAnnotation] == old.pod.Annotations[topology.AllocationAnnotation] {
		c.settled, c.believed = old.settled, old.believed
	}
}

// leaving tells that the pod is being deleted.
func (c *claim) leaving() bool { return c.pod.DeletionTimestamp != nil }

// move is the pod in the allocator's words.
func (c *claim) move() allocator.Move {
	m := allocator.Move{Request: c.request, Bound: c.bound, Gone: c.gone, Leaving: c.leaving(), Foreign: c.foreign}
	if c.believed {
		m.Held, m.Settled = c.told, c.settled
	}
	return m
}

// errAnotherUID is an annotation that came with a copy of the pod it was for.
var errAnotherUID = errors.New("the allocation is of another pod UID")

func newClaim(pod *v1.Pod) *claim {
	c := &claim{pod: pod, request: allocator.NewRequest(pod)}
	text, ok := pod.Annotations[topology.AllocationAnnotation]
	if !ok {
		return c
	}
	a, err := topology.Decode[topology.Allocation](text)
	switch {
	case err != nil:
		c.unreadable = err
	case a.UID != string(pod.UID):
		c.unreadable = errAnotherUID
	default:
		c.told = &a
	}
	return c
}

// sameAs tells that a newer version of the pod makes the same claim.
func (c *claim) sameAs(pod *v1.Pod) bool {
	return c.leaving() == (pod.DeletionTimestamp != nil) && equality.Semantic.DeepEqual(c.pod.Annotations, pod.Annotations) &&
		equality.Semantic.DeepEqual(c.pod.Spec, pod.Spec) &&
		equality.Semantic.DeepEqual(c.pod.Status, pod.Status)
}

// byAge is the order in which the kubelet takes pods that wait for it
// (HandlePodAdditions sorts by creation time).
func byAge(a, b *claim) int {
	if d := a.pod.CreationTimestamp.Compare(b.pod.CreationTimestamp.Time); d != 0 {
		return d
	}
	return strings.Compare(a.pod.Namespace+"/"+a.pod.Name, b.pod.Namespace+"/"+b.pod.Name)
}
