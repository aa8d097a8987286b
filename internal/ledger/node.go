package ledger

import (
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"

	"github.com/numalane/numalane/pkg/allocator"
	"github.com/numalane/numalane/pkg/topology"
)

// node is what is known of one node. All but now belongs to whoever holds the
// ledger's write lock.
type node struct {
	name        string
	exists      bool // the API has it
	text        published
	allocatable v1.ResourceList
	topology    topology.NodeTopology
	pools       topology.NodePools
	reason      allocator.Reason // why the state is not known; Admitted when it is

	bound    map[types.UID]*claim // pods that are bound here, not ended
	promises map[types.UID]*claim // and those that are about to be
	// ghosts have ended, and the kubelet may have met others before or after that.
	ghosts map[types.UID]*claim

	lost time.Time // when a pod that was promised the node last ended without having been acknowledged

	now atomic.Pointer[snapshot]
}

// published are the annotations as they were read.
type published struct{ topology, pools string }

func newNode(name string) *node {
	n := &node{
		name: name, reason: allocator.NoState,
		bound: map[types.UID]*claim{}, promises: map[types.UID]*claim{}, ghosts: map[types.UID]*claim{},
	}
	n.now.Store(&absent)
	return n
}

// describe takes in what the node publishes. It tells whether that is new.
func (n *node) describe(obj *v1.Node, log *slog.Logger) bool {
	if !equality.Semantic.DeepEqual(n.allocatable, obj.Status.Allocatable) {
		n.allocatable = obj.Status.Allocatable
	}
	text := published{obj.Annotations[topology.TopologyAnnotation], obj.Annotations[topology.PoolsAnnotation]}
	if n.exists && n.text == text {
		return false
	}
	n.exists, n.text = true, text
	n.topology, n.pools = topology.NodeTopology{}, topology.NodePools{}
	// Either annotation alone is half a state: without pools every device
	// would count as none of ours, and be admitted.
	if text.topology == "" || text.pools == "" {
		n.reason = allocator.NoState
		return true
	}
	var errTopology, errPools error
	n.topology, errTopology = topology.Decode[topology.NodeTopology](text.topology)
	n.pools, errPools = topology.Decode[topology.NodePools](text.pools)
	err := errors.Join(errTopology, errPools)
	switch {
	case err == nil:
		n.reason = allocator.Admitted
	case errors.Is(err, topology.ErrNewerVersion):
		n.reason = allocator.NewerState
	default:
		n.reason = allocator.UnreadableState
	}
	if err != nil {
		log.Warn("what the node publishes cannot be used", "node", n.name, "reason", n.reason.Code(), "err", err)
	}
	return true
}

// undescribe is for a Node that the API no longer has. Its pods may outlast it.
func (n *node) undescribe() {
	n.exists, n.text, n.reason = false, published{}, allocator.NoState
	n.allocatable, n.topology, n.pools = nil, topology.NodeTopology{}, topology.NodePools{}
}

func (n *node) forgotten() bool { return !n.exists && len(n.bound) == 0 && len(n.promises) == 0 }

// end notes that a pod has ended here.
func (n *node) end(c *claim, moment uint64) {
	delete(n.bound, c.pod.UID)
	delete(n.promises, c.pod.UID)
	if c.request.Exclusive() {
		c.gone = moment
		n.ghosts[c.pod.UID] = c
		if !c.promised.IsZero() && !c.believed {
			n.lost = time.Now()
		}
	}
}

// rebuild makes a new snapshot of all that is known.
func (n *node) rebuild(l *Ledger) {
	if n.reason != allocator.Admitted {
		clear(n.ghosts)
		n.now.Store(&snapshot{reason: n.reason})
		return
	}
	s := &snapshot{text: n.text, lost: n.lost, state: topology.NodeState{Topology: n.topology, Pools: n.pools}}
	// Of a pod that the API has by now, its own claim counts.
	s.state.Pools.Unowned = slices.DeleteFunc(slices.Clone(n.pools.Unowned), func(a topology.Allocation) bool { return n.knows(types.UID(a.UID)) })
	for _, c := range n.claims() {
		shares := c.shares(&n.topology, &n.pools)
		if len(shares) == 0 {
			continue // the node will never say anything about it
		}
		if c.gone == 0 {
			n.hear(l, c, shares)
		}
		switch {
		case c.gone != 0:
		case c.believed:
			s.acknowledged++
		case n.promises[c.pod.UID] != nil:
			s.promised++
		default:
			s.unacknowledged++
			if s.waiting.IsZero() || c.since.Before(s.waiting) {
				s.waiting = c.since
			}
		}
		s.uids = append(s.uids, c.pod.UID)
		s.moves = append(s.moves, c.move())
	}
	if err := s.compile(); err != nil {
		l.log.Warn("nothing can be foretold for the node", "node", n.name, "err", err)
		s.reason = allocator.Unknown
		n.now.Store(s)
		return
	}
	for i, uid := range s.uids {
		if s.traffic.Forgotten(i) {
			delete(n.ghosts, uid)
		}
	}
	n.now.Store(s)
}

// knows tells whether there is a claim of this pod.
func (n *node) knows(uid types.UID) bool {
	return n.bound[uid] != nil || n.promises[uid] != nil || n.ghosts[uid] != nil
}

// claims are all that the state depends on, the oldest first: the order in which
// the kubelet takes pods that wait for it.
func (n *node) claims() []*claim {
	all := make([]*claim, 0, len(n.bound)+len(n.promises)+len(n.ghosts))
	for _, of := range []map[types.UID]*claim{n.bound, n.promises, n.ghosts} {
		for c := range maps.Values(of) {
			if c.request.Exclusive() {
				all = append(all, c)
			}
		}
	}
	slices.SortFunc(all, byAge)
	return all
}

// hear takes in what the node says that a pod holds.
func (n *node) hear(l *Ledger, c *claim, shares map[string]*share) {
	c.believed = n.believes(c, shares, l.log, l.metrics)
	if c.believed && c.settled == 0 {
		c.settled = l.tick()
		n.acknowledge(l, c)
	}
}

// believes tells whether the node has said what the pod holds, believably.
func (n *node) believes(c *claim, shares map[string]*share, log *slog.Logger, m *metrics) bool {
	if c.told == nil && c.unreadable == nil {
		return false
	}
	err, cause := c.unreadable, causeUnreadable
	if err == nil {
		err, cause = disagreement(shares, c.told, &n.topology, &n.pools), causeDisagrees
	}
	if err == nil {
		c.doubt = ""
		return true
	}
	if doubt := err.Error(); doubt != c.doubt {
		c.doubt = doubt
		m.disbelieved.WithLabelValues(cause).Inc()
		log.Warn("an allocation is not believed; the pod counts as not acknowledged",
			"pod", c.pod.Namespace+"/"+c.pod.Name, "node", n.name, "err", err)
	}
	return false
}
