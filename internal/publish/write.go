package publish

import (
	"context"
	"errors"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1 "k8s.io/client-go/kubernetes/typed/core/v1"
)

// apiTimeout bounds one write. Others go on meanwhile.
const apiTimeout = 5 * time.Second

// objects are those of one kind in the API.
type objects interface {
	get(ctx context.Context, namespace, name string) (metav1.Object, meta, error)
	patch(ctx context.Context, namespace, name string, body []byte) (metav1.Object, meta, error)
}

// job is one write: a body that turns one version of an object into what it shall be.
type job struct {
	kind            string // node, pod
	namespace, name string
	uid             types.UID
	want            meta
	body            []byte
	corrects        bool
	began           time.Time // of a pod: when its admission first showed; zero: not known
}

// outcome is what came of a job.
type outcome struct {
	job
	result string
	seen   *version // what the object is now, as far as the API told
	err    error
}

// The results of a write, as the metric has them.
const (
	written     = "written"
	conflict    = "conflict"    // another version is there
	gone        = "gone"        // there is no such object
	forbidden   = "denied"      // rights are missing
	unreachable = "unreachable" // no answer, or one that the API is not well
	refused     = "refused"     // the API says that the write itself is wrong
)

func results() []string {
	return []string{written, conflict, gone, forbidden, unreachable, refused}
}

func resultOf(err error) string {
	var status apierrors.APIStatus
	switch {
	case err == nil:
		return written
	case apierrors.IsConflict(err):
		return conflict
	case apierrors.IsNotFound(err):
		return gone
	case denied(err):
		return forbidden
	case !errors.As(err, &status) || status.Status().Code >= 500 || apierrors.IsTooManyRequests(err):
		return unreachable
	}
	return refused
}

// do makes the write. Where another version is there it looks at that one, so
// that the next try need not wait for the watch.
func (j job) do(ctx context.Context, api objects) outcome {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	obj, m, err := api.patch(ctx, j.namespace, j.name, j.body)
	out := outcome{job: j, result: resultOf(err), err: err}
	if out.result == conflict {
		obj, m, err = api.get(ctx, j.namespace, j.name)
		if apierrors.IsNotFound(err) {
			out.result = gone
		}
	}
	if err == nil {
		v := versionOf(obj, m)
		out.seen = &v
	}
	return out
}

type nodeAPI struct{ client corev1.NodeInterface }

func (a nodeAPI) get(ctx context.Context, _, name string) (metav1.Object, meta, error) {
	return nodeAnswer(a.client.Get(ctx, name, metav1.GetOptions{}))
}

func (a nodeAPI) patch(ctx context.Context, _, name string, body []byte) (metav1.Object, meta, error) {
	return nodeAnswer(a.client.Patch(ctx, name, types.MergePatchType, body, metav1.PatchOptions{FieldManager: FieldManager}))
}

func nodeAnswer(n *v1.Node, err error) (metav1.Object, meta, error) {
	if err != nil {
		return nil, meta{}, err
	}
	annotations, labels := nodeMetaOf(n)
	return n, meta{annotations, labels}, nil
}

type podAPI struct{ client corev1.PodsGetter }

func (a podAPI) get(ctx context.Context, namespace, name string) (metav1.Object, meta, error) {
	return podAnswer(a.client.Pods(namespace).Get(ctx, name, metav1.GetOptions{}))
}

func (a podAPI) patch(ctx context.Context, namespace, name string, body []byte) (metav1.Object, meta, error) {
	return podAnswer(a.client.Pods(namespace).Patch(ctx, name, types.MergePatchType, body, metav1.PatchOptions{FieldManager: FieldManager}))
}

func podAnswer(p *v1.Pod, err error) (metav1.Object, meta, error) {
	if err != nil {
		return nil, meta{}, err
	}
	return p, podMeta(p), nil
}
