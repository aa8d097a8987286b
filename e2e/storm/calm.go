package storm

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	componentresource "k8s.io/component-helpers/resource"

	"github.com/numalane/numalane/e2e/storm/journal"
	"github.com/numalane/numalane/e2e/storm/judge"
	"github.com/numalane/numalane/pkg/allocator"
	"github.com/numalane/numalane/pkg/topology"
)

const (
	// stuckAfter is how long a pod must have had a place on a quiet cluster, and
	// not got it, to be stuck.
	stuckAfter = 30 * time.Second
	// quietFor is how long nothing may have happened when no pod has a place.
	quietFor = 4 * time.Second
	// mostCalm is the longest wait for quiet.
	mostCalm = 100 * time.Second
)

// scene is the cluster at a moment, as the API tells it.
type scene struct {
	nodes map[string]*site
	// underway are pods that something has still to happen to, waiting those
	// without a node; each with why.
	underway, waiting map[string]string
	placeable         map[string]string // those waiting that some node would admit
	print             string            // the same for two scenes between which nothing happened
}

// site is one node with what its pods hold.
type site struct {
	node    *allocator.Node
	err     error
	unready bool
	pub     journal.Publication
	held    []topology.Allocation
	bound   []*corev1.Pod
}

func (s *Storm) look() *scene {
	sc := &scene{nodes: map[string]*site{}, underway: map[string]string{}, waiting: map[string]string{}, placeable: map[string]string{}}
	now := journal.Moment{At: time.Now()}
	for _, name := range s.journal.Nodes() {
		on := s.journal.On(name)
		pub, _ := on.Node.At(now)
		sc.nodes[name] = &site{unready: on.Node.Unready, pub: pub}
	}
	var print strings.Builder
	var waiting []journal.Pod
	for _, p := range s.journal.Live() {
		fmt.Fprintf(&print, "%s %s %v %v %d\n", p.UID, p.Node, p.Admitted.Version, p.Deleting.Version, len(p.Acks))
		switch st := sc.nodes[p.Node]; {
		case p.Node == "":
			waiting = append(waiting, p)
		case st == nil:
			sc.underway[p.Name] = "its node is not there"
		default:
			st.take(&p, sc, now)
		}
	}
	sc.print = print.String()
	for _, st := range sc.nodes {
		st.node, st.err = judge.Compile(&st.pub, st.held, st.bound)
	}
	for i := range waiting {
		p := &waiting[i]
		sc.waiting[p.Name] = p.Unschedulable
		r := allocator.NewRequest(p.Spec)
		for name, st := range sc.nodes {
			if st.err == nil && !st.unready && st.fits(p.Spec) && st.node.Admit(r).OK() {
				sc.placeable[p.Name] = fmt.Sprintf("node %s would admit it; asks %s; kube-scheduler: %s", name, journal.Asks(p.Spec), p.Unschedulable)
			}
		}
	}
	return sc
}

// take counts a pod that is bound to the site.
func (st *site) take(p *journal.Pod, sc *scene, now journal.Moment) {
	st.bound = append(st.bound, p.Spec)
	held := p.HeldAt(now)
	if held != nil {
		st.held = append(st.held, *held)
	}
	switch {
	case !p.Deleting.IsZero():
		sc.underway[p.Name] = "it is being deleted on node " + p.Node
	case p.Admitted.IsZero():
		sc.underway[p.Name] = "it is bound to node " + p.Node + " and neither runs nor has failed"
	case held == nil && st.owes(p):
		sc.underway[p.Name] = "node " + p.Node + " has not acknowledged it"
	}
}

// fits tells whether the node has enough in all, as kube-scheduler counts: to the
// kubelet a resource that the node does not list is nothing.
func (st *site) fits(pod *corev1.Pod) bool {
	free := st.pub.Allocatable.DeepCopy()
	for _, p := range append(slices.Clip(st.bound), pod) {
		for name, q := range componentresource.PodRequests(p, componentresource.PodResourcesOptions{}) {
			left := free[name]
			left.Sub(q)
			free[name] = left
		}
	}
	for _, q := range free {
		if q.Sign() < 0 {
			return false
		}
	}
	return true
}

// owes tells whether the node has to acknowledge a pod.
func (st *site) owes(p *journal.Pod) bool {
	t, err := topology.Decode[topology.NodeTopology](st.pub.Topology)
	if err != nil {
		return true
	}
	pools, err := topology.Decode[topology.NodePools](st.pub.Pools)
	if err != nil {
		return true
	}
	return len(allocator.NewRequest(p.Spec).Due(&t, &pools)) > 0
}

// calm waits until nothing more happens, and returns what is stuck.
func (s *Storm) calm(ctx context.Context) (*scene, []string, error) {
	begin, since := time.Now(), time.Now()
	before := ""
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		sc := s.look()
		if sc.print != before {
			before, since = sc.print, time.Now()
		}
		quiet := time.Since(since)
		if len(sc.underway) == 0 && len(sc.placeable) == 0 && quiet >= quietFor {
			return sc, nil, nil
		}
		if quiet >= stuckAfter {
			return sc, sc.stuck(), nil
		}
		if time.Since(begin) > mostCalm {
			return sc, sc.stuck(), fmt.Errorf("it is not quiet after %s: %d pods underway, %d wait", mostCalm, len(sc.underway), len(sc.waiting))
		}
		select {
		case <-ctx.Done():
			return nil, nil, context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// stuck are the pods that should have gone on.
func (sc *scene) stuck() []string {
	var out []string
	for _, set := range []map[string]string{sc.placeable, sc.underway} {
		for name, why := range set {
			out = append(out, "pod "+name+": "+why)
		}
	}
	return out
}
