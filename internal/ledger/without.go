package ledger

import (
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/numalane/numalane/pkg/allocator"
	"github.com/numalane/numalane/pkg/topology"
)

// AdmitWithout foretells what the node's kubelet will say to the pod once the
// leaving ones have gone.
func (l *Ledger) AdmitWithout(name string, pod types.UID, r *allocator.Request, leaving []types.UID) allocator.Verdict {
	v := l.without(name, leaving).admit(pod, r)
	if l.policy.admits(v.Reason) {
		return allocator.Verdict{Reason: allocator.Admitted, Container: -1}
	}
	return v
}

func (l *Ledger) without(name string, leaving []types.UID) *snapshot {
	l.write.Lock()
	defer l.write.Unlock()
	n := l.nodes[name]
	if n == nil {
		return &absent
	}
	now := n.now.Load()
	if now.base == nil {
		return now
	}
	state := topology.NodeState{Topology: n.topology, Pools: n.pools}
	var waiting []*claim
	for _, cs := range []map[types.UID]*claim{n.bound, n.promises} {
		for uid, c := range cs {
			if slices.Contains(leaving, uid) {
				continue
			}
			shares := c.shares(&n.topology, &n.pools)
			switch {
			case len(shares) == 0:
			case c.told != nil && disagreement(shares, c.told, &n.topology, &n.pools) == nil:
				state.Held = append(state.Held, *c.told)
			default:
				waiting = append(waiting, c)
			}
		}
	}
	base, err := allocator.Compile(&state)
	if err != nil {
		return &snapshot{reason: allocator.Unknown}
	}
	s := &snapshot{base: base, settled: base}
	slices.SortFunc(waiting, byAge)
	for _, c := range waiting {
		if settled, v := s.settled.After(c.request); v.OK() {
			s.settled = settled
			s.pending = append(s.pending, pending{c.pod.UID, c.request})
		}
	}
	return s
}
