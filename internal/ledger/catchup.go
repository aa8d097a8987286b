package ledger

import (
	"context"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
)

// catchUpPage is how many pods are read at once.
const catchUpPage = 1000

// CatchUp reads from the API, past all caches, which pods are bound, and counts
// those that the watch has not shown yet. Whoever begins to bind calls it first:
// another may have bound until a moment ago.
func (l *Ledger) CatchUp(ctx context.Context) error {
	if err := l.Ready(); err != nil {
		return err
	}
	defer l.mourn()()
	// Without a resourceVersion the API server answers with what is in etcd now.
	o := metav1.ListOptions{Limit: catchUpPage}
	liveOnly(&o)
	for {
		page, err := l.client.Pods(v1.NamespaceAll).List(ctx, o)
		if err != nil {
			return fmt.Errorf("read which pods are bound: %w", err)
		}
		for i := range page.Items {
			stripped, err := stripPod(&page.Items[i])
			if err != nil {
				return fmt.Errorf("read pod %s/%s: %w", page.Items[i].Namespace, page.Items[i].Name, err)
			}
			l.setNewer(stripped.(*v1.Pod))
		}
		if o.Continue = page.Continue; o.Continue == "" {
			return nil
		}
	}
}

// mourn begins to note which pods the watch shows to have ended: a list that was
// read before must not bring them back. The result ends that.
func (l *Ledger) mourn() (done func()) {
	l.catchingUp.Lock()
	l.write.Lock()
	defer l.write.Unlock()
	l.buried = map[types.UID]bool{}
	return func() {
		l.write.Lock()
		defer l.write.Unlock()
		l.buried = nil
		l.catchingUp.Unlock()
	}
}

// setNewer takes in a bound pod unless the watch has shown it as it is, or later.
func (l *Ledger) setNewer(pod *v1.Pod) {
	if pod.Spec.NodeName == "" {
		return
	}
	c := newClaim(pod)
	l.write.Lock()
	defer l.write.Unlock()
	if l.buried[pod.UID] {
		return
	}
	seen, err := l.pods.Pods(pod.Namespace).Get(pod.Name)
	if err != nil || seen.UID != pod.UID || seen.Spec.NodeName == "" {
		l.expect(c)
		return
	}
	if order, err := resourceversion.CompareResourceVersion(seen.ResourceVersion, pod.ResourceVersion); err == nil && order < 0 {
		l.count(c)
	}
}

// expect counts a pod of which the watch has yet to show that it is bound, as a
// promise: should it never do so, the pod is looked up. The caller holds write.
func (l *Ledger) expect(c *claim) {
	n, uid := l.at(c.pod.Spec.NodeName), c.pod.UID
	if n.bound[uid] != nil || n.promises[uid] != nil {
		return
	}
	c.since = time.Now()
	l.setPromised(uid, append(l.promised[uid], n.name))
	n.promises[uid] = c
	l.publish(n)
}
