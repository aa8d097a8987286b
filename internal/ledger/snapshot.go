package ledger

import (
	"hash/crc32"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/numalane/numalane/pkg/allocator"
	"github.com/numalane/numalane/pkg/topology"
)

// snapshot is a node at one moment. It is never changed; it only remembers.
type snapshot struct {
	// What a question looks at first, side by side: it is of thousands of nodes.
	reason  allocator.Reason // why there is no traffic; Admitted when there is
	traffic *allocator.Traffic
	crowd   crowd // of uids
	memo    memo
	waiting time.Time // since when the node owes an acknowledgement; zero: it does not

	text    published
	state   topology.NodeState // without what pods hold
	uids    []types.UID        // of moves
	index   map[types.UID]int  // the inverse
	moves   []allocator.Move   // pods that count, the oldest first
	settled *allocator.Node    // as it will be when all have come, in that order

	acknowledged, unacknowledged, promised int
	lost                                   time.Time // when it last lost a pod that it had not acknowledged
}

// isSuspect tells whether the node has just lost a pod that it had not
// acknowledged. Deleted pods are among them; but a node whose plugin is down
// refuses every pod that wants its devices, which leaves it the emptiest of all
// nodes, and nothing else tells of that before its next status.
func (s *snapshot) isSuspect() bool { return !s.lost.IsZero() && time.Since(s.lost) < suspectFor }

// isStale tells whether the node has long not said what a pod holds.
func (s *snapshot) isStale() bool { return !s.waiting.IsZero() && time.Since(s.waiting) >= staleAfter }

// absent is the snapshot of a node that nobody has heard of.
var absent = snapshot{reason: allocator.NoState}

func (s *snapshot) compile() error {
	s.index = make(map[types.UID]int, len(s.uids))
	for i, uid := range s.uids {
		s.index[uid] = i
		s.crowd |= crowdOf(uid)
	}
	t, err := allocator.CompileTraffic(&s.state, s.moves)
	if err != nil {
		return err
	}
	s.traffic, s.settled = t, t.Base()
	for i := range s.moves {
		if m := &s.moves[i]; m.Held == nil && m.Gone == 0 {
			// A pod that the kubelet is bound to refuse takes nothing.
			s.settled, _ = s.settled.After(m.Request)
		}
	}
	return nil
}

// crowd has a bit for each of some pods, and tells of most others at a glance
// that they are not among them.
type crowd uint64

func crowdOf(pod types.UID) crowd { return 1 << (crc32.ChecksumIEEE([]byte(pod)) % 64) }

func (s *snapshot) has(pod types.UID) bool {
	_, has := s.index[pod]
	return has
}

// without is the node as if some pods had never come. It is the same where none of
// them has to do with it.
func (s *snapshot) without(pods ...types.UID) *snapshot {
	if s.traffic == nil || !slices.ContainsFunc(pods, s.has) {
		return s
	}
	less := &snapshot{text: s.text, state: s.state, waiting: s.waiting}
	for i, uid := range s.uids {
		if !slices.Contains(pods, uid) {
			less.uids = append(less.uids, uid)
			less.moves = append(less.moves, s.moves[i])
		}
	}
	if err := less.compile(); err != nil {
		less.reason = allocator.Unknown
	}
	return less
}

// admit asks whether the kubelet will admit the pod and all that are on their
// way, whatever order it meets them in.
func (s *snapshot) admit(r *allocator.Request) allocator.Verdict {
	if s.traffic == nil {
		return allocator.Verdict{Reason: s.reason, Container: -1}
	}
	if v := s.memo.of(r.Shape()); v != nil {
		return *v
	}
	v := s.traffic.Admit(r)
	if v.OK() && s.state.Topology.Away {
		v = allocator.Verdict{Reason: allocator.KubeletAway, Container: -1}
	}
	s.memo.note(r.Shape(), v)
	return v
}

func (s *snapshot) score(r *allocator.Request, most int64) int64 {
	if s.traffic == nil {
		return 0
	}
	return s.settled.Score(r, most)
}
