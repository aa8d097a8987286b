package journal

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// Watch writes down what the API tells of Nodes and Pods until ctx ends. It
// returns when it has caught up.
func (j *Journal) Watch(ctx context.Context, client kubernetes.Interface) error {
	f := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(func(obj any) (any, error) {
		if m, err := meta.Accessor(obj); err == nil {
			m.SetManagedFields(nil)
		}
		return obj, nil
	}))
	pods, nodes := f.Core().V1().Pods().Informer(), f.Core().V1().Nodes().Informer()
	_, err := pods.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) { j.See(obj.(*corev1.Pod)) },
		UpdateFunc: func(old, obj any) {
			// After a broken watch another pod may have the name.
			if was, is := old.(*corev1.Pod), obj.(*corev1.Pod); was.UID != is.UID {
				j.Lose(was)
			}
			j.See(obj.(*corev1.Pod))
		},
		DeleteFunc: func(obj any) { j.Lose(last[*corev1.Pod](obj)) },
	})
	if err != nil {
		return fmt.Errorf("watch Pods: %w", err)
	}
	if _, err := nodes.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { j.SeeNode(obj.(*corev1.Node)) },
		UpdateFunc: func(_, obj any) { j.SeeNode(obj.(*corev1.Node)) },
	}); err != nil {
		return fmt.Errorf("watch Nodes: %w", err)
	}
	f.StartWithContext(ctx)
	for kind, ok := range f.WaitForCacheSyncWithContext(ctx).Synced {
		if !ok {
			return fmt.Errorf("watch %s: %w", kind, context.Cause(ctx))
		}
	}
	return nil
}

// last is the object of a deletion, which a broken watch wraps.
func last[T any](obj any) T {
	if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = gone.Obj
	}
	return obj.(T)
}
