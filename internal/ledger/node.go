package ledger

import (
	"errors"
	"log/slog"
	"slices"
	"sync/atomic"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/numalane/numalane/pkg/allocator"
	"github.com/numalane/numalane/pkg/topology"
)

// node is what is known of one node. All but now belongs to whoever holds the
// ledger's write lock.
type node struct {
	name     string
	exists   bool // the API has it
	text     published
	topology topology.NodeTopology
	pools    topology.NodePools
	reason   allocator.Reason // why the state is not known; Admitted when it is

	bound    map[types.UID]*claim // exclusive pods that are bound here, not ended
	promises map[types.UID]*claim // and those that are about to be

	now atomic.Pointer[snapshot]
}

// published are the annotations as they were read.
type published struct{ topology, pools string }

func newNode(name string) *node {
	n := &node{name: name, reason: allocator.NoState, bound: map[types.UID]*claim{}, promises: map[types.UID]*claim{}}
	n.now.Store(&absent)
	return n
}

// describe takes in what the node publishes. It tells whether that is new.
func (n *node) describe(obj *v1.Node, log *slog.Logger) bool {
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
	n.topology, n.pools = topology.NodeTopology{}, topology.NodePools{}
}

func (n *node) forgotten() bool { return !n.exists && len(n.bound) == 0 && len(n.promises) == 0 }

// rebuild makes a new snapshot of all that is known.
func (n *node) rebuild(log *slog.Logger, m *metrics) {
	if n.reason != allocator.Admitted {
		n.now.Store(&snapshot{reason: n.reason, unacknowledged: len(n.bound), promised: len(n.promises)})
		return
	}
	state := topology.NodeState{Topology: n.topology, Pools: n.pools}
	var waiting []*claim
	s := &snapshot{promised: len(n.promises)}
	for _, c := range n.bound {
		shares := c.shares(&n.topology, &n.pools)
		switch {
		case len(shares) == 0:
		case n.believes(c, shares, log, m):
			state.Held = append(state.Held, *c.told)
			s.acknowledged++
		default:
			waiting = append(waiting, c)
			s.unacknowledged++
		}
	}
	for _, c := range n.promises {
		if len(c.shares(&n.topology, &n.pools)) > 0 {
			waiting = append(waiting, c)
		}
	}
	base, err := allocator.Compile(&state)
	if err != nil {
		log.Warn("nothing can be foretold for the node", "node", n.name, "err", err)
		s.reason = allocator.Unknown
		n.now.Store(s)
		return
	}
	s.base, s.settled = base, base
	slices.SortFunc(waiting, byAge)
	for _, c := range waiting {
		// A pod that the kubelet is bound to refuse takes nothing. It came here
		// past us, or what it holds is not believed and does not fit either.
		settled, v := s.settled.After(c.request)
		if v.OK() {
			s.settled = settled
			s.pending = append(s.pending, pending{c.pod.UID, c.request})
		}
	}
	n.now.Store(s)
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

// snapshot is a node at one moment. It is never changed.
type snapshot struct {
	reason allocator.Reason // why there is no base; Admitted when there is

	base    *allocator.Node // with what acknowledged pods hold
	pending []pending       // pods that the node has not acknowledged, oldest first
	settled *allocator.Node // base with all pending pods, in that order

	acknowledged, unacknowledged, promised int
}

type pending struct {
	uid     types.UID
	request *allocator.Request
}

// admit asks whether the kubelet will admit the pod and all that are pending,
// whatever order it meets them in.
func (s *snapshot) admit(pod types.UID, r *allocator.Request) allocator.Verdict {
	switch {
	case s.base == nil:
		return allocator.Verdict{Reason: s.reason, Container: -1}
	case len(s.pending) == 0:
		return s.base.Admit(r)
	}
	all := make([]*allocator.Request, 0, len(s.pending)+1)
	for _, p := range s.pending {
		if p.uid != pod {
			all = append(all, p.request)
		}
	}
	return s.base.AdmitInAnyOrder(append(all, r))
}

func (s *snapshot) score(pod types.UID, r *allocator.Request, most int64) int64 {
	if s.base == nil {
		return 0
	}
	if !slices.ContainsFunc(s.pending, func(p pending) bool { return p.uid == pod }) {
		return s.settled.Score(r, most)
	}
	n := s.base
	for _, p := range s.pending {
		if p.uid != pod {
			n, _ = n.After(p.request)
		}
	}
	return n.Score(r, most)
}
