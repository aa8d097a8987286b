package ledger

import (
	"context"
	"fmt"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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

// setNewer takes in a pod unless the watch has shown it as it is, or later.
func (l *Ledger) setNewer(pod *v1.Pod) {
	if seen, err := l.pods.Pods(pod.Namespace).Get(pod.Name); err == nil && seen.UID == pod.UID {
		if c, err := resourceversion.CompareResourceVersion(seen.ResourceVersion, pod.ResourceVersion); err == nil && c >= 0 {
			return
		}
	}
	l.setPod(pod)
}
