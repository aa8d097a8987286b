package extender

import (
	"cmp"
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	extenderv1 "k8s.io/kube-scheduler/extender/v1"

	"github.com/numalane/numalane/pkg/allocator"
)

// What became of a candidate.
const (
	keptVictims    = "kept"    // the given victims suffice
	changedVictims = "changed" // others go, or more
	droppedNode    = "dropped" // nothing that may be evicted helps
)

// pairsAmong bounds the pods among which every two are tried.
const pairsAmong = 16

// search is for the victims on one node.
type search struct {
	nodes   Evictions
	node    string
	pod     *v1.Pod
	request *allocator.Request
}

// victims are those given if the node admits the pod without them. Else, and if
// it may look further, as few others as are needed go as well, and those of
// the given ones stay of which neither the kubelet nor kube-scheduler has use.
// Without a way there are none.
//
// What is not known is which PodDisruptionBudgets there are. So every pod that
// was not given counts as one violation, and none is taken off for a pod that
// stays: the number is never too low, and kube-scheduler prefers the nodes
// whose victims it chose itself.
func (s *search) victims(given *extenderv1.MetaVictims, further bool) (*extenderv1.MetaVictims, string) {
	leaving := make([]types.UID, len(given.Pods))
	for i, p := range given.Pods {
		leaving[i] = types.UID(p.UID)
	}
	if s.admits(leaving) {
		return given, keptVictims
	}
	none := &extenderv1.MetaVictims{}
	if !further {
		return none, droppedNode
	}
	known := s.nodes.Evictable(s.node, priority(s.pod))
	var others []*v1.Pod
	for _, p := range known {
		if !slices.Contains(leaving, p.UID) {
			others = append(others, p)
		}
	}
	more := s.fewest(leaving, others)
	if len(more) == 0 {
		return none, droppedNode
	}
	out := &extenderv1.MetaVictims{NumPDBViolations: given.NumPDBViolations + int64(len(more))}
	for _, uid := range inOrder(s.spare(leaving, more, known), more, known) {
		out.Pods = append(out.Pods, &extenderv1.MetaPod{UID: string(uid)})
	}
	return out, changedVictims
}

func (s *search) admits(leaving []types.UID) bool {
	return s.nodes.AdmitWithout(s.node, s.pod.UID, s.request, leaving).OK()
}

// fewest are the pods that must leave besides those that do anyway: none of a
// higher priority than must be, as kube-scheduler compares nodes by their most
// important victim first; and then no more than must be, which is tried for
// one pod and for two. Beyond that it is as SelectVictimsOnNode has it: all
// go, and stay one by one if the pod fits even so, the most important first.
//
// More room may turn a yes into a no (allocator.Traffic), so what
// is returned has been asked about just so.
func (s *search) fewest(leaving []types.UID, pool []*v1.Pod) []*v1.Pod {
	slices.SortFunc(pool, lessImportant)
	reach := 0
	for i := range pool {
		last := i+1 == len(pool) || priority(pool[i+1]) > priority(pool[i])
		if last && s.admits(with(leaving, pool[:i+1]...)) {
			reach = i + 1
			break
		}
	}
	pool = pool[:reach]
	for i := range pool {
		if s.admits(with(leaving, pool[i])) {
			return pool[i : i+1]
		}
	}
	for i := 0; i < len(pool) && len(pool) <= pairsAmong; i++ {
		for j := range i {
			if pair := []*v1.Pod{pool[j], pool[i]}; s.admits(with(leaving, pair...)) {
				return pair
			}
		}
	}
	for i := len(pool) - 1; i >= 0; i-- {
		if fewer := slices.Delete(slices.Clone(pool), i, i+1); s.admits(with(leaving, fewer...)) {
			pool = fewer
		}
	}
	return pool
}

// spare returns the given victims but those who may stay now that others go.
// kube-scheduler had a reason for each, and its totals know of pods that are
// not known here. So one may stay only if what the pod asks for is given back
// by others in its stead, and nothing but resources can have been the reason.
func (s *search) spare(given []types.UID, more, known []*v1.Pod) []types.UID {
	if !asksResourcesOnly(s.pod) {
		return given
	}
	need := requests(s.pod)
	spared := v1.ResourceList{}
	room := v1.ResourceList{}
	for _, p := range more {
		add(room, requests(p))
	}
	stay := 0
	byImportance := slices.Clone(known)
	slices.SortFunc(byImportance, func(a, b *v1.Pod) int { return lessImportant(b, a) })
	for _, p := range byImportance {
		i := slices.Index(given, p.UID)
		if i < 0 || stay == len(more) || keepsOthersAway(p) {
			continue
		}
		total := v1.ResourceList{}
		add(total, spared)
		add(total, requests(p))
		if !covers(room, total, need) {
			continue
		}
		if fewer := slices.Delete(slices.Clone(given), i, i+1); s.admits(with(fewer, more...)) {
			given, spared = fewer, total
			stay++
		}
	}
	return given
}

// inOrder puts the most important pod first, which kube-scheduler takes the
// first to be (pickOneNodeForPreemption). The given ones are in that order; of
// those that are not known here the priority is not known either, and they go
// behind.
func inOrder(given []types.UID, more, known []*v1.Pod) []types.UID {
	rank := map[types.UID]int32{}
	for _, p := range known {
		rank[p.UID] = priority(p)
	}
	out := slices.Clone(given)
	for _, p := range more {
		at := slices.IndexFunc(out, func(uid types.UID) bool {
			r, ok := rank[uid]
			return !ok || r < priority(p)
		})
		if at < 0 {
			at = len(out)
		}
		out = slices.Insert(out, at, p.UID)
	}
	return out
}

func with(leaving []types.UID, pods ...*v1.Pod) []types.UID {
	out := slices.Clone(leaving)
	for _, p := range pods {
		out = append(out, p.UID)
	}
	return out
}

func priority(p *v1.Pod) int32 {
	if p.Spec.Priority == nil {
		return 0
	}
	return *p.Spec.Priority
}

// lessImportant is by priority, and then the younger first.
func lessImportant(a, b *v1.Pod) int {
	return cmp.Or(
		cmp.Compare(priority(a), priority(b)),
		b.CreationTimestamp.Compare(a.CreationTimestamp.Time),
		cmp.Compare(a.UID, b.UID))
}
