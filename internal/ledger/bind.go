package ledger

import (
	"context"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/numalane/numalane/pkg/allocator"
)

const (
	// settleAfter is when a promise that no watch has confirmed is looked up.
	// It is longer than an API server works on a write (requestTimeoutUpperBound
	// of its handlers, 34 s), so that what is not bound by then never will be.
	settleAfter = 40 * time.Second
	// settleEvery is how often promises of that age are looked for.
	settleEvery = 10 * time.Second
)

// Bind binds a pod to a node if its kubelet would still admit it, with all
// that was promised meanwhile. The error says why not, or what the API said.
//
// The promise is made before the API is asked, and stands until the outcome is
// known: a watch that shows the pod bound or gone, an answer that the API did
// not bind it, or a look at the live pod.
func (l *Ledger) Bind(ctx context.Context, b *v1.Binding) error {
	pod, err := l.find(ctx, b)
	if err != nil {
		l.metrics.bindings.WithLabelValues(bindFailed).Inc()
		return err
	}
	if other := elsewhere(l.promisedTo(b.UID), b.Target.Name); other != "" {
		l.metrics.bindings.WithLabelValues(bindRefused).Inc()
		return fmt.Errorf("pod %s/%s may have been bound to node %s: that is found out first", b.Namespace, b.Name, other)
	}
	switch pod.Spec.NodeName {
	case "":
	case b.Target.Name:
		l.metrics.bindings.WithLabelValues(bindDone).Inc()
		return nil // by an earlier request of ours whose answer was lost
	default:
		l.metrics.bindings.WithLabelValues(bindFailed).Inc()
		return fmt.Errorf("pod %s/%s is on node %s already", b.Namespace, b.Name, pod.Spec.NodeName)
	}
	c := newClaim(pod)
	if c.request.Exclusive() && l.snapshot(b.Target.Name).isSuspect() {
		// An error, and not a reason in filter, for it passes by itself: nothing
		// would tell kube-scheduler when to try again.
		l.metrics.bindings.WithLabelValues(bindRefused).Inc()
		return fmt.Errorf("node %s has just lost a pod that it had not acknowledged: its plugin may be down", b.Target.Name)
	}
	v, first := l.promise(b.Target.Name, c)
	if !v.OK() {
		l.metrics.bindings.WithLabelValues(bindRefused).Inc()
		return fmt.Errorf("node %s has meanwhile been promised to others: %s", b.Target.Name, v.Reason)
	}
	err = l.client.Pods(b.Namespace).Bind(ctx, b, metav1.CreateOptions{})
	switch {
	case err == nil, apierrors.IsConflict(err) && l.isBound(ctx, b):
		l.metrics.bindings.WithLabelValues(bindDone).Inc()
		return nil
	case isDefinite(err):
		l.metrics.bindings.WithLabelValues(bindFailed).Inc()
		if first {
			l.retract(b.UID, b.Target.Name)
		}
	default:
		l.metrics.bindings.WithLabelValues(bindUnknown).Inc()
		l.log.Warn("the outcome of a binding is not known; the room stays promised", "pod", b.Namespace+"/"+b.Name, "node", b.Target.Name, "err", err)
	}
	return fmt.Errorf("bind pod %s/%s to node %s: %w", b.Namespace, b.Name, b.Target.Name, err)
}

// isBound tells whether the pod is on its node already: by an earlier request of
// ours whose answer was lost. kube-scheduler must not take that for a failure: it
// would look for another node.
func (l *Ledger) isBound(ctx context.Context, b *v1.Binding) bool {
	pod, err := l.client.Pods(b.Namespace).Get(ctx, b.Name, metav1.GetOptions{})
	return err == nil && pod.UID == b.UID && pod.Spec.NodeName == b.Target.Name
}

// find is the pod of a binding, from the watch or, where that lags, live.
func (l *Ledger) find(ctx context.Context, b *v1.Binding) (*v1.Pod, error) {
	if pod, err := l.pods.Pods(b.Namespace).Get(b.Name); err == nil && pod.UID == b.UID {
		return pod, nil
	}
	pod, err := l.client.Pods(b.Namespace).Get(ctx, b.Name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("read pod %s/%s before binding it: %w", b.Namespace, b.Name, err)
	}
	if pod.UID != b.UID {
		return nil, fmt.Errorf("pod %s/%s has UID %s, not %s: another pod has taken its name", b.Namespace, b.Name, pod.UID, b.UID)
	}
	return pod, nil
}

// promise asks once more, and if the answer is yes makes the promise, all in
// one step. It tells whether this is the first one to the pod here.
func (l *Ledger) promise(name string, c *claim) (v allocator.Verdict, first bool) {
	l.write.Lock()
	defer l.write.Unlock()
	n, uid := l.at(name), c.pod.UID
	if c.request.Exclusive() {
		l.Admit([]string{name}, uid, c.request, func(_ string, said allocator.Verdict) { v = said })
	}
	if v.OK() && n.short(c) != "" {
		v = allocator.Verdict{Reason: allocator.OutOfTotals, Container: -1}
	}
	if !v.OK() || n.bound[uid] != nil {
		// Bound already, the watch says; the API will say so too.
		if n.forgotten() {
			l.publish(n)
		}
		return v, false
	}
	now := time.Now()
	c.since, c.promised, c.bound = now, now, l.tick()
	if old := n.promises[uid]; old != nil {
		c.bound = old.bound // the kubelet may have met it since
	} else {
		l.setPromised(uid, append(l.promised[uid], name))
		first = true
	}
	n.promises[uid] = c
	if c.request.Exclusive() {
		l.publish(n)
	}
	return v, first
}

// retract takes one promise back.
func (l *Ledger) retract(pod types.UID, name string) {
	l.write.Lock()
	defer l.write.Unlock()
	var others []string
	for _, other := range l.promised[pod] {
		if other != name {
			others = append(others, other)
		}
	}
	l.setPromised(pod, others)
	if n := l.nodes[name]; n != nil && n.promises[pod] != nil {
		delete(n.promises, pod)
		l.publish(n)
	}
}

// isDefinite tells that the API did not bind, nor ever will by this request. A
// conflict is not: "already assigned" may be the work of an earlier request of
// ours whose answer was lost.
func isDefinite(err error) bool {
	return apierrors.IsBadRequest(err) || apierrors.IsUnauthorized(err) || apierrors.IsForbidden(err) ||
		apierrors.IsNotFound(err) || apierrors.IsInvalid(err)
}

func (l *Ledger) settleRegularly(ctx context.Context) {
	tick := time.NewTicker(settleEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			l.settle(ctx)
		}
	}
}

// settle looks up the pods of promises that have stood for long.
func (l *Ledger) settle(ctx context.Context) {
	for _, o := range l.overdue() {
		pod, err := l.client.Pods(o.pod.Namespace).Get(ctx, o.pod.Name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err), err == nil && (pod.UID != o.pod.UID || isTerminal(pod) || pod.Spec.NodeName != o.node):
			l.log.Info("a promise is taken back: the pod is not on the node", "pod", o.pod.Namespace+"/"+o.pod.Name, "node", o.node)
			l.retract(o.pod.UID, o.node)
		case err != nil:
			l.log.Warn("the pod of a promise cannot be looked up; the room stays promised", "pod", o.pod.Namespace+"/"+o.pod.Name, "node", o.node, "err", err)
		}
		// Else it is bound there, and the watch will show it.
	}
}

type overdue struct {
	pod  *v1.Pod
	node string
}

func (l *Ledger) overdue() []overdue {
	l.write.Lock()
	defer l.write.Unlock()
	var out []overdue
	for uid, names := range l.promised {
		for _, name := range names {
			if c := l.nodes[name].promises[uid]; time.Since(c.since) >= settleAfter {
				out = append(out, overdue{c.pod, name})
			}
		}
	}
	return out
}
