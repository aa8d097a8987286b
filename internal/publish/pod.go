package publish

import (
	"context"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/numalane/numalane/pkg/topology"
)

// parallelPods is how many pods are acknowledged at once: after a restart of
// the node there may be a hundred.
const parallelPods = 8

// podWriter keeps the pods' acknowledgements.
type podWriter struct {
	client  corev1.PodsGetter
	log     *slog.Logger
	written map[string]*record // by UID of the API
	said    string
}

// podPatch is one pod that differs.
type podPatch struct {
	pod    *v1.Pod
	want   meta
	body   []byte
	result *v1.Pod
	err    error
}

// write patches the pods that differ. The result is when to come back; 0: no need.
func (w *podWriter) write(ctx context.Context, pods []*v1.Pod, state *topology.NodeState) time.Duration {
	held := make(map[string]topology.Allocation, len(state.Held))
	for _, a := range state.Held {
		held[a.UID] = a
	}
	var (
		wait    time.Duration
		patches []*podPatch
		alive   = make(map[string]bool, len(pods))
	)
	for _, pod := range pods {
		alive[string(pod.UID)] = true
		if ended(pod) {
			continue // its annotation goes with it
		}
		a, holds := held[kubeletUID(pod)]
		p, err := w.prepare(pod, a, holds, state)
		if err != nil {
			w.say("cannot write down what a pod holds", pod, err)
			continue
		}
		if p == nil {
			continue
		}
		if left := w.record(pod).retry.left(); left > 0 {
			wait = soonest(wait, left)
			continue
		}
		patches = append(patches, p)
	}
	for uid := range w.written {
		if !alive[uid] {
			delete(w.written, uid)
		}
	}
	var g errgroup.Group
	g.SetLimit(parallelPods)
	for _, p := range patches {
		g.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, apiTimeout)
			defer cancel()
			p.result, p.err = w.client.Pods(p.pod.Namespace).Patch(ctx, p.pod.Name, types.MergePatchType, p.body,
				metav1.PatchOptions{FieldManager: FieldManager})
			return nil
		})
	}
	_ = g.Wait() // each patch has its own error
	for _, p := range patches {
		wait = soonest(wait, w.finish(p))
	}
	return wait
}

// prepare makes the patch that a pod needs; nil: none.
func (w *podWriter) prepare(pod *v1.Pod, a topology.Allocation, holds bool, state *topology.NodeState) (*podPatch, error) {
	live := meta{annotations: kept(pod.Annotations, topology.AllocationAnnotation)}
	if r, ok := w.written[string(pod.UID)]; ok && r.newerThan(pod) {
		live = r.meta
	}
	want := meta{annotations: map[string]string{}}
	switch {
	case holds:
		if !admitted(pod, &a, state) {
			return nil, nil
		}
		a.UID = string(pod.UID) // the mirror's, for a static pod
		text, err := topology.Encode(a)
		if err != nil {
			return nil, err
		}
		want.annotations[topology.AllocationAnnotation] = text
	case state.Topology.Inexact != "":
		return nil, nil // not seen is not the same as not held
	}
	if want.equal(live) {
		return nil, nil
	}
	body, err := patch(live, want, pod.UID)
	return &podPatch{pod: pod, want: want, body: body}, err
}

func (w *podWriter) record(pod *v1.Pod) *record {
	r, ok := w.written[string(pod.UID)]
	if !ok {
		r = &record{}
		w.written[string(pod.UID)] = r
	}
	return r
}

func (w *podWriter) finish(p *podPatch) time.Duration {
	r := w.record(p.pod)
	switch {
	case p.err == nil:
		r.set(p.want, p.result)
		w.said = ""
		w.log.Debug("acknowledged a pod", "pod", p.pod.Namespace+"/"+p.pod.Name, "uid", p.pod.UID)
		return 0
	case apierrors.IsNotFound(p.err), apierrors.IsConflict(p.err):
		// It is gone, or another one has its name: the watch will tell.
		r.retry.failed()
		return 0
	case denied(p.err):
		w.say("not allowed to write to this node's pods: they stay unacknowledged until the plugin may; apply deploy/plugin-rbac", p.pod, p.err)
	default:
		w.say("cannot acknowledge a pod, will try again", p.pod, p.err)
	}
	r.retry.failed()
	return r.retry.left()
}

// say logs a kind of failure once in a row: it may be that of every pod.
func (w *podWriter) say(msg string, pod *v1.Pod, err error) {
	if text := msg + string(apierrors.ReasonForError(err)); text != w.said {
		w.said = text
		w.log.Warn(msg, "pod", pod.Namespace+"/"+pod.Name, "err", err)
	}
}
