package publish

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// lastWatchRetry bounds the pause between two tries of a watch. client-go's own
// goes up to a minute, and an API that is back would wait for that to hear what
// its pods hold.
const lastWatchRetry = 2 * time.Second

// watched is what the API has of one kind of object of this node, of each
// object what strip keeps. It is the store of a reflector: an informer's queue,
// its handlers' goroutines and its backoff are more than one reader needs.
type watched[T metav1.Object] struct {
	what  string // nodes, pods
	field fields.Selector
	list  func(context.Context, metav1.ListOptions) (runtime.Object, error)
	watch func(context.Context, metav1.ListOptions) (apiwatch.Interface, error)
	strip func(T) T
	same  func(a, b T) bool

	changed func() // what strip keeps is another
	reached func() // the API answered
	log     *slog.Logger

	mu      sync.Mutex
	objects map[string]T // by namespace/name
	synced  bool
	said    string
}

// run watches until ctx ends.
func (w *watched[T]) run(ctx context.Context, client any) {
	lw := cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = w.field.String()
			list, err := w.list(ctx, o)
			w.tried(ctx, err)
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (apiwatch.Interface, error) {
			o.FieldSelector = w.field.String()
			events, err := w.watch(ctx, o)
			w.tried(ctx, err)
			return events, err
		},
	}, client)
	var kind T
	r := cache.NewReflectorWithOptions(lw, kind, w, cache.ReflectorOptions{
		Name:    "numalane " + w.what,
		Backoff: &wait.Backoff{Duration: 200 * time.Millisecond, Cap: lastWatchRetry, Steps: 8, Factor: 2, Jitter: 1},
	})
	// What fails is said by tried, once.
	r.RunWithContext(klog.NewContext(ctx, klog.Logger{}))
}

// tried says what is missing, once for each kind of failure in a row. The
// reflector tries again by itself.
func (w *watched[T]) tried(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil {
		w.said = ""
		w.reached()
		return
	}
	reason := string(apierrors.ReasonForError(err))
	if w.said == reason+err.Error() || denied(err) && strings.HasPrefix(w.said, reason) {
		return
	}
	w.said = reason + err.Error()
	if denied(err) {
		w.log.Warn("not allowed to watch: nothing is published until it is; apply deploy/plugin-rbac",
			"resource", w.what, "verbs", "get, list, watch", "err", err)
		return
	}
	w.log.Warn("cannot watch, will try again", "resource", w.what, "err", err)
}

func (w *watched[T]) hasSynced() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.synced
}

// all are the objects, in no order.
func (w *watched[T]) all() []T {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Collect(maps.Values(w.objects))
}

func (w *watched[T]) get(key string) (T, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	o, ok := w.objects[key]
	return o, ok
}

// Add, Update, Delete, Replace and Resync make it a [cache.ReflectorStore].
func (w *watched[T]) Add(obj any) error { return w.Update(obj) }

// Update takes in a new version of an object.
func (w *watched[T]) Update(obj any) error {
	o, ok := obj.(T)
	if !ok {
		return fmt.Errorf("watch %s: got a %T", w.what, obj)
	}
	o = w.strip(o)
	w.mu.Lock()
	before, known := w.objects[keyOf(o)]
	w.objects[keyOf(o)] = o
	w.mu.Unlock()
	if !known || !w.same(before, o) {
		w.changed()
	}
	return nil
}

// Delete takes an object away.
func (w *watched[T]) Delete(obj any) error {
	o, ok := obj.(T)
	if !ok {
		return fmt.Errorf("watch %s: got a %T", w.what, obj)
	}
	w.mu.Lock()
	delete(w.objects, keyOf(o))
	w.mu.Unlock()
	w.changed()
	return nil
}

// Replace takes in all there are.
func (w *watched[T]) Replace(list []any, _ string) error {
	objects := make(map[string]T, len(list))
	for _, obj := range list {
		o, ok := obj.(T)
		if !ok {
			return fmt.Errorf("list %s: got a %T", w.what, obj)
		}
		o = w.strip(o)
		objects[keyOf(o)] = o
	}
	w.mu.Lock()
	w.objects, w.synced = objects, true
	w.mu.Unlock()
	w.changed()
	return nil
}

// Resync does nothing: what is here is what the API has.
func (w *watched[T]) Resync() error { return nil }

func keyOf(o metav1.Object) string {
	if ns := o.GetNamespace(); ns != "" {
		return ns + "/" + o.GetName()
	}
	return o.GetName()
}
