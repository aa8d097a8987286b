package publish

import (
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/numalane/numalane/pkg/topology"
)

// podWriter keeps the pods' acknowledgements.
type podWriter struct {
	known  map[string]*object   // by UID of the API
	showed map[string]time.Time // by the kubelet's UID: when its files changed so as to show the pod
	began  bool                 // there was a reading before
}

// prepare makes the writes that the pods need. The second result is when to
// come back; 0: no need. sign is when the kubelet's files changed first that
// this reading is of.
func (w *podWriter) prepare(pods []*v1.Pod, state *topology.NodeState, sign time.Time) (jobs []job, wait time.Duration, err error) {
	w.note(state, sign)
	held := make(map[string]topology.Allocation, len(state.Held))
	for _, a := range state.Held {
		held[a.UID] = a
	}
	alive := make(map[string]bool, len(pods))
	for _, pod := range pods {
		alive[string(pod.UID)] = true
		if ended(pod) {
			continue // its annotation goes with it
		}
		a, holds := held[kubeletUID(pod)]
		j, left, failed := w.prepareOne(pod, a, holds, state)
		if failed != nil {
			err = failed
			continue
		}
		wait = soonest(wait, left)
		if j != nil {
			jobs = append(jobs, *j)
		}
	}
	for uid, o := range w.known {
		if !alive[uid] && !o.writing {
			delete(w.known, uid)
		}
	}
	return jobs, wait, err
}

// note remembers when a pod showed first, in part at least. A pod may be in the
// kubelet's files before it is in our watch.
func (w *podWriter) note(state *topology.NodeState, sign time.Time) {
	if !w.began {
		w.began, sign = true, time.Time{} // what was held before this plugin looked
	}
	showed := make(map[string]time.Time, len(state.Held))
	for _, as := range [][]topology.Allocation{state.Held, state.Pools.Unowned} {
		for i := range as {
			uid := as[i].UID
			if at, known := w.showed[uid]; known {
				showed[uid] = at
			} else {
				showed[uid] = sign
			}
		}
	}
	w.showed = showed
}

// prepareOne makes the write that a pod needs; nil: none.
func (w *podWriter) prepareOne(pod *v1.Pod, a topology.Allocation, holds bool, state *topology.NodeState) (*job, time.Duration, error) {
	want := meta{annotations: map[string]string{}}
	switch {
	case holds:
		if !admitted(pod, &a, state) {
			return nil, 0, nil
		}
		a.UID = string(pod.UID) // the mirror's, for a static pod
		text, err := topology.Encode(a)
		if err != nil {
			return nil, 0, err
		}
		want.annotations[topology.AllocationAnnotation] = text
	case state.Topology.Inexact != "":
		return nil, 0, nil // not seen is not the same as not held
	}
	o := w.object(pod)
	live := o.newest(versionOf(pod, podMeta(pod)))
	switch {
	case want.equal(live.meta):
		if !o.writing {
			o.settle(want)
		}
		return nil, 0, nil
	case o.gone:
		return nil, 0, nil
	case o.writing:
		o.missed = true
		return nil, 0, nil
	}
	j := job{kind: "pod", namespace: pod.Namespace, name: pod.Name, uid: pod.UID, want: want}
	// Of a pod that holds nothing no node says anything.
	j.corrects = o.alien(live.meta) || o.agreed == nil && o.tried == nil && !holds
	if left := o.left(j.corrects); left > 0 {
		return nil, left, nil
	}
	if holds && len(live.annotations) == 0 && !j.corrects {
		j.began = w.showed[kubeletUID(pod)]
	}
	var err error
	j.body, err = patch(live, want)
	return &j, 0, err
}

func (w *podWriter) object(pod *v1.Pod) *object {
	o, ok := w.known[string(pod.UID)]
	if !ok {
		o = &object{}
		w.known[string(pod.UID)] = o
	}
	return o
}

func podMeta(o metav1.Object) meta {
	return meta{annotations: kept(o.GetAnnotations(), topology.AllocationAnnotation)}
}
