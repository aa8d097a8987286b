package publish

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"

	"github.com/numalane/numalane/internal/kubelet"
)

// errNoNode is what a name that no Node has comes to.
var errNoNode = errors.New("the API has no Node of this name: is --node-name right?")

// cluster watches this node and its pods, and of them only what is needed.
type cluster struct {
	client  kubernetes.Interface
	name    string
	changed chan struct{} // has a token after the node or a pod changed
	reached chan struct{} // has a token after the API answered a list or a watch
	nodes   watched[*v1.Node]
	podList watched[*v1.Pod]
}

func newCluster(client kubernetes.Interface, node string, log *slog.Logger) *cluster {
	c := &cluster{client: client, name: node, changed: make(chan struct{}, 1), reached: make(chan struct{}, 1)}
	changed, reached := func() { tell(c.changed) }, func() { tell(c.reached) }
	nodes, pods := client.CoreV1().Nodes(), client.CoreV1().Pods(v1.NamespaceAll)
	c.nodes = watched[*v1.Node]{
		what: "nodes", field: fields.OneTermEqualSelector(metav1.ObjectNameField, node),
		list:  func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return nodes.List(ctx, o) },
		watch: nodes.Watch, strip: stripNode, same: sameNode, changed: changed, reached: reached, log: log,
		objects: map[string]*v1.Node{},
	}
	c.podList = watched[*v1.Pod]{
		what: "pods", field: fields.OneTermEqualSelector("spec.nodeName", node),
		list:  func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return pods.List(ctx, o) },
		watch: pods.Watch, strip: stripPod, same: samePod, changed: changed, reached: reached, log: log,
		objects: map[string]*v1.Pod{},
	}
	return c
}

// start begins to watch. The result ends it and waits for its goroutines.
func (c *cluster) start(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { c.nodes.run(ctx, c.client) })
	wg.Go(func() { c.podList.run(ctx, c.client) })
	return func() {
		cancel()
		wg.Wait()
	}
}

func (c *cluster) synced() bool { return c.nodes.hasSynced() && c.podList.hasSynced() }

func (c *cluster) node() (*v1.Node, error) {
	n, ok := c.nodes.get(c.name)
	if !ok {
		return nil, errNoNode
	}
	return n, nil
}

func (c *cluster) pods() []*v1.Pod {
	pods := c.podList.all()
	slices.SortFunc(pods, func(a, b *v1.Pod) int { return strings.Compare(string(a.UID), string(b.UID)) })
	return pods
}

func tell(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default:
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
