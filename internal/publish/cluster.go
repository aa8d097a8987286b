package publish

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/numalane/numalane/internal/kubelet"
	"github.com/numalane/numalane/pkg/topology"
)

// errNoNode is what a name that no Node has comes to.
var errNoNode = errors.New("the API has no Node of this name: is --node-name right?")

// cluster watches this node and its pods, and of them only what is needed.
type cluster struct {
	name    string
	changed chan struct{}
	log     *slog.Logger
	nodes   watched
	podList watched
}

type watched struct {
	what     string
	factory  informers.SharedInformerFactory
	informer cache.SharedIndexInformer
}

func newCluster(client kubernetes.Interface, node string, log *slog.Logger) *cluster {
	watch := func(what, field string, of func(informers.SharedInformerFactory) cache.SharedIndexInformer) watched {
		f := informers.NewSharedInformerFactoryWithOptions(client, 0,
			informers.WithTransform(strip),
			informers.WithTweakListOptions(func(o *metav1.ListOptions) {
				o.FieldSelector = fields.OneTermEqualSelector(field, node).String()
			}))
		return watched{what: what, factory: f, informer: of(f)}
	}
	return &cluster{
		name:    node,
		changed: make(chan struct{}, 1),
		log:     log,
		nodes: watch("nodes", metav1.ObjectNameField, func(f informers.SharedInformerFactory) cache.SharedIndexInformer {
			return f.Core().V1().Nodes().Informer()
		}),
		podList: watch("pods", "spec.nodeName", func(f informers.SharedInformerFactory) cache.SharedIndexInformer {
			return f.Core().V1().Pods().Informer()
		}),
	}
}

// start begins to watch. The result ends it and waits for its goroutines.
func (c *cluster) start(ctx context.Context) (stop func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	for _, w := range []watched{c.nodes, c.podList} {
		if err := w.informer.SetWatchErrorHandlerWithContext(c.onError(w.what)); err != nil {
			cancel()
			return nil, fmt.Errorf("watch %s: %w", w.what, err)
		}
		if _, err := w.informer.AddEventHandler(c.handler()); err != nil {
			cancel()
			return nil, fmt.Errorf("watch %s: %w", w.what, err)
		}
		w.factory.StartWithContext(ctx)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if cache.WaitForCacheSync(ctx.Done(), c.nodes.informer.HasSynced, c.podList.informer.HasSynced) {
			c.tell()
		}
	})
	return func() {
		cancel()
		wg.Wait()
		c.nodes.factory.Shutdown()
		c.podList.factory.Shutdown()
	}, nil
}

func (c *cluster) synced() bool {
	return c.nodes.informer.HasSynced() && c.podList.informer.HasSynced()
}

func (c *cluster) node() (*v1.Node, error) {
	obj, ok, err := c.nodes.informer.GetStore().GetByKey(c.name)
	if err != nil {
		return nil, fmt.Errorf("get node %s: %w", c.name, err)
	}
	if !ok {
		return nil, errNoNode
	}
	return obj.(*v1.Node), nil
}

func (c *cluster) pods() []*v1.Pod {
	objs := c.podList.informer.GetStore().List()
	pods := make([]*v1.Pod, len(objs))
	for i, obj := range objs {
		pods[i] = obj.(*v1.Pod)
	}
	slices.SortFunc(pods, func(a, b *v1.Pod) int { return strings.Compare(string(a.UID), string(b.UID)) })
	return pods
}

func (c *cluster) tell() {
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

func (c *cluster) handler() cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { c.tell() },
		DeleteFunc: func(any) { c.tell() },
		UpdateFunc: func(before, after any) {
			// Most updates are of what strip takes away, as a Node's heartbeat.
			if !same(before, after) {
				c.tell()
			}
		},
	}
}

func same(before, after any) bool {
	switch a := before.(type) {
	case *v1.Pod:
		b := after.(*v1.Pod)
		return a.UID == b.UID && equality.Semantic.DeepEqual(a.Annotations, b.Annotations) &&
			equality.Semantic.DeepEqual(&a.Spec, &b.Spec) && equality.Semantic.DeepEqual(&a.Status, &b.Status)
	case *v1.Node:
		b := after.(*v1.Node)
		return equality.Semantic.DeepEqual(a.Annotations, b.Annotations) && equality.Semantic.DeepEqual(a.Labels, b.Labels) &&
			equality.Semantic.DeepEqual(&a.Status, &b.Status)
	}
	return false
}

// onError says what is missing, once for each kind of failure in a row. The
// reflector tries again by itself, with backoff.
func (c *cluster) onError(what string) cache.WatchErrorHandlerWithContext {
	var mu sync.Mutex
	said := ""
	return func(ctx context.Context, _ *cache.Reflector, err error) {
		if ctx.Err() != nil {
			return
		}
		reason := string(apierrors.ReasonForError(err))
		mu.Lock()
		defer mu.Unlock()
		if said == reason+err.Error() || denied(err) && strings.HasPrefix(said, reason) {
			return
		}
		said = reason + err.Error()
		if denied(err) {
			c.log.Warn("not allowed to watch: nothing is published until it is; apply deploy/plugin-rbac",
				"resource", what, "verbs", "get, list, watch", "err", err)
			return
		}
		c.log.Warn("cannot watch, will try again", "resource", what, "err", err)
	}
}

func denied(err error) bool {
	return apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err)
}

// podsOf tells the kubelet's side of the pods.
func podsOf(pods []*v1.Pod) []kubelet.Pod {
	out := make([]kubelet.Pod, len(pods))
	for i, p := range pods {
		out[i] = kubelet.Pod{UID: kubeletUID(p), Namespace: p.Namespace, Name: p.Name, Ended: ended(p)}
	}
	return out
}

func ended(p *v1.Pod) bool {
	return p.Status.Phase == v1.PodSucceeded || p.Status.Phase == v1.PodFailed
}

// kubeletUID is the UID in the kubelet's files. Of a static pod the API has a
// mirror with a UID of its own, which notes the static one (kubelet/pod,
// CreateMirrorPod).
func kubeletUID(p *v1.Pod) string {
	if uid, ok := p.Annotations[v1.MirrorPodAnnotationKey]; ok {
		return uid
	}
	return string(p.UID)
}

// strip keeps of an object what the publisher reads.
func strip(obj any) (any, error) {
	switch o := obj.(type) {
	case *v1.Node:
		n := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: o.Name, UID: o.UID, ResourceVersion: o.ResourceVersion}}
		n.Annotations = kept(o.Annotations, topology.TopologyAnnotation, topology.PoolsAnnotation)
		n.Labels = kept(o.Labels, topology.PolicyLabel, topology.ScopeLabel)
		for k, v := range o.Labels {
			if strings.HasPrefix(k, topology.PoolLabelPrefix) {
				n.Labels[k] = v
			}
		}
		n.Status.NodeInfo.KubeletVersion = o.Status.NodeInfo.KubeletVersion
		return n, nil
	case *v1.Pod:
		p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: o.Namespace, Name: o.Name, UID: o.UID, ResourceVersion: o.ResourceVersion}}
		p.Annotations = kept(o.Annotations, topology.AllocationAnnotation, v1.MirrorPodAnnotationKey)
		p.Spec.NodeName = o.Spec.NodeName
		p.Spec.Resources = o.Spec.Resources
		p.Spec.InitContainers = stripContainers(o.Spec.InitContainers)
		p.Spec.Containers = stripContainers(o.Spec.Containers)
		p.Status.Phase = o.Status.Phase
		p.Status.QOSClass = o.Status.QOSClass
		p.Status.ExtendedResourceClaimStatus = o.Status.ExtendedResourceClaimStatus
		return p, nil
	}
	return obj, nil // a tombstone
}

func stripContainers(cs []v1.Container) []v1.Container {
	out := make([]v1.Container, len(cs))
	for i := range cs {
		out[i] = v1.Container{Name: cs[i].Name, Resources: cs[i].Resources, RestartPolicy: cs[i].RestartPolicy}
	}
	return out
}

func kept(m map[string]string, keys ...string) map[string]string {
	out := map[string]string{}
	for _, k := range keys {
		if v, ok := m[k]; ok {
			out[k] = v
		}
	}
	return out
}
