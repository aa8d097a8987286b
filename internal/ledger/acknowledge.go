package ledger

import (
	"slices"
	"time"

	"github.com/numalane/numalane/pkg/allocator"
)

// acknowledge notes how long a node took to say what a pod holds, and whether
// it is what was foretold. The last snapshot is from before the node spoke.
func (n *node) acknowledge(l *Ledger, c *claim) {
	if c.promised.IsZero() {
		return // it came past us, or before us: nothing was foretold
	}
	l.metrics.acknowledged.Observe(time.Since(c.promised).Seconds())
	s := n.now.Load()
	i, known := s.index[c.pod.UID]
	if s.traffic == nil || s.text != n.text || !known || s.moves[i].Held != nil {
		return
	}
	expected, known := s.traffic.Expected(i, c.told)
	if expected || !known {
		return
	}
	pod := c.pod.Namespace + "/" + c.pod.Name
	if s.overtaken(i, c) {
		l.metrics.overtaken.Inc()
		l.log.Info("a pod met less on its node than the API had shown: another had ended there already", "pod", pod, "node", n.name)
		return
	}
	l.metrics.mispredicted.Inc()
	l.log.Error("a pod holds what was not foretold", "pod", pod, "node", n.name, "held", c.told.Containers, "on", s.traffic.Base().String(), "among", s.traffic.Unsettled())
}

// overtaken tells whether a pod holds what it would hold if others had ended of
// which the API did not know: the kubelet counts a pod as ended when its
// containers have, and tells a moment later (kubelet_pods.go filterOutInactivePods).
func (s *snapshot) overtaken(pod int, c *claim) bool {
	var standing []int
	for i := range s.moves {
		if m := &s.moves[i]; m.Held != nil && m.Gone == 0 && !m.Leaving {
			standing = append(standing, i)
		}
	}
	for _, i := range standing {
		moves := slices.Clone(s.moves)
		moves[i].Leaving = true
		t, err := allocator.CompileTraffic(&s.state, moves)
		if err != nil {
			continue
		}
		if expected, _ := t.Expected(pod, c.told); expected {
			return true
		}
	}
	return false
}
