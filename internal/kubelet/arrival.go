package kubelet

import (
	"context"
	"time"
)

// arrival is a kubelet that has started, until it has gone through its pods. It
// admits those that its first list has before its managers take back what ended
// pods held (kubelet.go syncLoopIteration marks a source as ready after its first
// pods; UpdateAllocatedDevices and removeStaleState wait for that). The sign is
// that PodResources lists every pod that the API has on the node: a pod is
// listed from the moment when its admission begins.
type arrival struct {
	since   time.Time
	watched bool      // its start was seen; else it may have been there for long
	covered time.Time // since when all pods are listed
}

const (
	// arrivedAfter is how long all pods must be listed: the last of them was only
	// begun with when it came up.
	arrivedAfter = 200 * time.Millisecond
	// emptyFor is how long a kubelet without pods is given: it waits for its Node
	// before it lists its pods (config/apiserver.go), a second.
	emptyFor = 3 * time.Second
	// arrivesWithin is when no sign is waited for any longer.
	arrivesWithin = 20 * time.Second
	// lookAgain is for what no file tells.
	lookAgain = 100 * time.Millisecond
)

// arrived tells whether the kubelet has gone through its pods.
func (r *Reader) arrived(ctx context.Context, s *Snapshot, in *Input) bool {
	a := r.arrival
	if a == nil {
		return true
	}
	now := time.Now()
	if s.Active == nil {
		s.Active, _ = askActive(ctx, r.podResources) // not to be told is not to be listed
	}
	if live, all := s.lists(in); !all || live == 0 && a.watched && now.Sub(a.since) < emptyFor {
		a.covered = time.Time{}
	} else if a.covered.IsZero() {
		a.covered = now
	}
	switch {
	case !a.covered.IsZero() && (!a.watched || now.Sub(a.covered) >= arrivedAfter):
	case now.Sub(a.since) >= arrivesWithin:
		r.log.Warn("the kubelet does not list all pods that the API has on this node; the node counts as there all the same")
	default:
		return false
	}
	r.arrival = nil
	return true
}

// lists tells how many pods that live the API has on the node, and whether the
// kubelet lists them all.
func (s *Snapshot) lists(in *Input) (live int, all bool) {
	listed := make(map[podName]bool, len(s.Active))
	for i := range s.Active {
		listed[podName{s.Active[i].Namespace, s.Active[i].Name}] = true
	}
	all = s.Active != nil
	for i := range in.Pods {
		if p := &in.Pods[i]; !p.Ended {
			live++
			all = all && listed[podName{p.Namespace, p.Name}]
		}
	}
	return live, all
}
