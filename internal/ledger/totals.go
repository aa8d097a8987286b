package ledger

import (
	"slices"

	v1 "k8s.io/api/core/v1"

	"github.com/numalane/numalane/pkg/allocator"
)

// short names what the node has too little of in all, with all that is bound
// or promised there and the pod; empty when there is enough. kube-scheduler has
// asked that before, but binds while it does, and is not the only one.
func (n *node) short(c *claim) string {
	if len(n.allocatable) == 0 {
		return ""
	}
	used := map[string]int64{}
	add := func(c *claim) {
		for _, a := range c.request.Totals() {
			used[a.Resource] += a.Count
		}
	}
	for uid, other := range n.bound {
		if uid != c.pod.UID {
			add(other)
		}
	}
	for uid, other := range n.promises {
		if uid != c.pod.UID {
			add(other)
		}
	}
	wants := c.request.Totals()
	at := slices.IndexFunc(wants, func(a allocator.Total) bool {
		q, has := n.allocatable[v1.ResourceName(a.Resource)]
		if !has || a.Count == 0 {
			return false // not counted here, or left to DRA
		}
		allocatable := q.Value()
		if a.Resource == string(v1.ResourceCPU) {
			allocatable = q.MilliValue()
		}
		return used[a.Resource]+a.Count > allocatable
	})
	if at < 0 {
		return ""
	}
	return wants[at].Resource
}
