package allocator

import (
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/resource"

	"github.com/numalane/numalane/pkg/topology"
)

// total is a sum that the general predicates check.
type total struct {
	name              string
	allocatable, used int64
}

// fixedTotals are checked first and in this order; the others the kubelet goes
// through in none (noderesources fitsRequest).
var fixedTotals = [...]string{"pods", "cpu", "memory", "ephemeral-storage"}

func compileTotals(t *topology.Totals) []total {
	if t == nil {
		return nil
	}
	out := make([]total, 0, len(t.Allocatable))
	for name, allocatable := range t.Allocatable {
		out = append(out, total{name, allocatable, t.Requested[name]})
	}
	slices.SortFunc(out, func(a, b total) int { return compareTotals(a.name, b.name) })
	return out
}

func compareTotals(a, b string) int {
	i, j := slices.Index(fixedTotals[:], a), slices.Index(fixedTotals[:], b)
	switch {
	case i >= 0 && j >= 0:
		return i - j
	case i >= 0:
		return -1
	case j >= 0:
		return 1
	case a < b:
		return -1
	}
	return 1
}

// podTotals is what a pod adds to the sums. unclaimed is without what DRA serves
// (lifecycle removeMissingExtendedResources).
func podTotals(pod *v1.Pod) (all, unclaimed []amount) {
	all = sumsOf(pod)
	if pod.Status.ExtendedResourceClaimStatus == nil {
		return all, all
	}
	pod = pod.DeepCopy()
	drop := func(cs []v1.Container) {
		for i := range cs {
			for name := range cs[i].Resources.Requests {
				if isClaimed(pod, cs[i].Name, string(name)) {
					delete(cs[i].Resources.Requests, name)
				}
			}
		}
	}
	drop(pod.Spec.InitContainers)
	drop(pod.Spec.Containers)
	return all, sumsOf(pod)
}

func sumsOf(pod *v1.Pod) []amount {
	out := []amount{{name: "pods", count: 1}}
	for name, q := range resource.PodRequests(pod, resource.PodResourcesOptions{}) {
		count := q.Value()
		if name == v1.ResourceCPU {
			count = q.MilliValue()
		}
		out = append(out, amount{name: string(name), count: count})
	}
	slices.SortFunc(out, func(a, b amount) int { return compareTotals(a.name, b.name) })
	return out
}

// predicates are the kubelet's general ones as far as they count resources.
// They come after the allocation: what a pod holds that they refuse is free
// again with the next admission. An extended resource that the node does not have
// is nothing to them. It returns the one that is short.
func (a *admission) predicates(wants []amount) (short string, c cause) {
	totals := a.node.totals
	var loose int // of the unordered ones, how many are short
	for i, at := 0, 0; i < len(wants); i++ {
		w := &wants[i]
		for at < len(totals) && compareTotals(totals[at].name, w.name) < 0 {
			at++
		}
		var allocatable, used int64
		switch {
		case at < len(totals) && totals[at].name == w.name:
			allocatable, used = a.allocatable(&totals[at]), totals[at].used
			if allocatable == 0 && a.node.zeroIsDRA && !slices.Contains(fixedTotals[:], w.name) {
				continue
			}
		case totals == nil || a.node.absentIsDRA || !isNative(w.name):
			continue
		}
		if w.count == 0 || w.count <= allocatable-used {
			continue
		}
		if slices.Contains(fixedTotals[:], w.name) {
			return w.name, outOf
		}
		if loose++; loose == 1 || a.fate.pick(2) == 1 {
			short = w.name
		}
	}
	if loose > 0 {
		return short, outOf
	}
	return "", none
}

// isNative tells of a resource that is not one of the fixed ones whether it is
// Kubernetes' own: a node without it has none of it.
func isNative(name string) bool {
	return strings.HasPrefix(name, v1.ResourceHugePagesPrefix) || strings.Contains(name, v1.ResourceDefaultNamespacePrefix)
}

// allocatable is no less than what is given away, for a pod that was given any
// device: an unhealthy one that a pod holds counts again (devicemanager
// UpdatePluginResources, sanitizeNodeAllocatable).
func (a *admission) allocatable(t *total) int64 {
	p := a.node.poolOf(t.name)
	if p == nil || !a.gaveDevices() {
		return t.allocatable
	}
	return max(t.allocatable, p.held+a.given(p))
}

// given is the number of a pool's devices that the pod took.
func (a *admission) given(p *pool) int64 {
	return sum(a.node.room.counts[p.at:p.at+len(p.groups)]) - sum(a.room.counts[p.at:p.at+len(p.groups)])
}

func (a *admission) gaveDevices() bool {
	for i := range a.node.pools {
		if a.given(&a.node.pools[i]) > 0 {
			return true
		}
	}
	return false
}

// totalsAfter are the sums once the pod is admitted.
func (n *Node) totalsAfter(r *Request) []total {
	if n.totals == nil {
		return nil
	}
	after := slices.Clone(n.totals)
	for i := range after {
		after[i].used += find(r.totals, after[i].name)
	}
	return after
}

// poolsAfter are the pools with what has been taken of them counted as held.
func (n *Node) poolsAfter(after *room) []pool {
	if n.totals == nil {
		return n.pools // only the totals ask
	}
	pools := slices.Clone(n.pools)
	for i := range pools {
		p := &pools[i]
		p.held += sum(n.room.counts[p.at:p.at+len(p.groups)]) - sum(after.counts[p.at:p.at+len(p.groups)])
	}
	return pools
}

// Total is what a pod adds to one of a node's sums.
type Total struct {
	Resource string // "pods" for the pod itself
	Count    int64  // CPUs in thousandths, all else in the API's units
}

// Totals are what the general predicates count of the pod, but for what DRA serves.
func (r *Request) Totals() []Total {
	all := make([]Total, len(r.unclaimed))
	for i := range r.unclaimed {
		all[i] = Total{r.unclaimed[i].name, r.unclaimed[i].count}
	}
	return all
}
