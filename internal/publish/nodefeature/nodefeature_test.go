package nodefeature_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/numalane/numalane/internal/kubelet"
	"github.com/numalane/numalane/internal/publish/nodefeature"
)

func pools(healthy bool) []kubelet.Pool {
	vf := func(id string, numa []int, pf string) kubelet.Device {
		return kubelet.Device{ID: id, NUMANodes: numa, PF: pf, PFName: "ens1f0", Speed: 10000, Link: "up", Healthy: true}
	}
	a := kubelet.Pool{Resource: "intel.com/a", Devices: []kubelet.Device{
		vf("0000:3b:02.1", []int{1}, "0000:3b:00.0"), vf("0000:3b:02.0", []int{1}, "0000:3b:00.0"), vf("0000:18:02.0", []int{0}, "0000:18:00.0"),
	}}
	a.Devices[0].Healthy = healthy
	return []kubelet.Pool{
		a,
		{Resource: "amazon.com/ena", Devices: []kubelet.Device{{ID: "0000:00:06.0", Healthy: true}}},
		{Resource: "intel.com/none"},
	}
}

func TestSpec(t *testing.T) {
	instance := func(attributes map[string]any) any { return map[string]any{"attributes": attributes} }
	want := map[string]any{"features": map[string]any{"instances": map[string]any{"numalane.pool": map[string]any{"elements": []any{
		instance(map[string]any{"resource": "amazon.com/ena", "total": "1", "healthy": "1"}),
		instance(map[string]any{
			"resource": "intel.com/a", "numaNode": "0", "pf": "0000:18:00.0", "pfName": "ens1f0", "speed": "10000", "link": "up",
			"total": "1", "healthy": "1",
		}),
		instance(map[string]any{
			"resource": "intel.com/a", "numaNode": "1", "pf": "0000:3b:00.0", "pfName": "ens1f0", "speed": "10000", "link": "up",
			"total": "2", "healthy": "1",
		}),
	}}}}}
	if d := cmp.Diff(want, nodefeature.Spec(pools(false))); d != "" {
		t.Errorf("spec (-want +got):\n%s", d)
	}
}

// node is a Writer with an API that counts.
type node struct {
	mu      sync.Mutex
	pools   []kubelet.Pool
	ready   bool
	fail    error
	applied []*unstructured.Unstructured
	tries   int
	changed chan struct{}
}

func (n *node) set(change func()) {
	n.mu.Lock()
	change()
	n.mu.Unlock()
	n.changed <- struct{}{}
}

// run starts a Writer in the test's bubble.
func (n *node) run(t *testing.T) {
	n.changed = make(chan struct{})
	features := dynamicfake.NewSimpleDynamicClient(runtime.NewScheme())
	features.PrependReactor("patch", "nodefeatures", func(a clienttesting.Action) (bool, runtime.Object, error) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.tries++
		if n.fail != nil {
			return true, nil, n.fail
		}
		p := a.(clienttesting.PatchAction)
		u := &unstructured.Unstructured{}
		if err := u.UnmarshalJSON(p.GetPatch()); err != nil {
			t.Error(err)
		}
		if p.GetNamespace() != "numalane" || p.GetName() != "numalane-n1" {
			t.Errorf("wrote %s/%s", p.GetNamespace(), p.GetName())
		}
		n.applied = append(n.applied, u)
		return true, u, nil
	})
	w := nodefeature.New(nodefeature.Options{
		Features: features, Nodes: fake.NewClientset(&v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", UID: "u1"}}),
		Namespace: "numalane", NodeName: "n1", Changed: n.changed,
		Pools: func() []kubelet.Pool { n.mu.Lock(); defer n.mu.Unlock(); return n.pools },
		Ready: func() bool { n.mu.Lock(); defer n.mu.Unlock(); return n.ready },
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// after lets the bubble's time pass, and says how many writes there were and
// how many tries.
func (n *node) after(d time.Duration) (writes, tries int) {
	time.Sleep(d)
	synctest.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.applied), n.tries
}

func TestWritesOnChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &node{pools: pools(true)}
		n.run(t)
		if w, _ := n.after(time.Minute); w != 0 {
			t.Fatalf("%d writes while the kubelet listens to nobody", w)
		}
		n.set(func() { n.ready = true })
		if w, _ := n.after(time.Minute); w != 1 {
			t.Fatalf("%d writes, want 1", w)
		}
		first := n.applied[0]
		owner := []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: "n1", UID: "u1"}}
		if first.GetKind() != "NodeFeature" || first.GetLabels()["nfd.node.kubernetes.io/node-name"] != "n1" || !cmp.Equal(first.GetOwnerReferences(), owner) {
			t.Errorf("wrote %v", first)
		}
		if d := cmp.Diff(nodefeature.Spec(pools(true)), first.Object["spec"]); d != "" {
			t.Errorf("spec (-want +got):\n%s", d)
		}
		n.set(func() {})
		if w, _ := n.after(time.Minute); w != 1 {
			t.Errorf("%d writes after a change of something else, want 1", w)
		}
		n.set(func() { n.pools = pools(false) })
		n.set(func() { n.pools = nil })
		n.set(func() { n.pools = pools(false) })
		if w, _ := n.after(time.Minute); w != 2 {
			t.Errorf("%d writes after several changes at once, want 2", w)
		}
	})
}

func TestWaitsForNFD(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &node{pools: pools(true), ready: true, fail: apierrors.NewNotFound(nodefeature.Resource.GroupResource(), "")}
		n.run(t)
		if w, tries := n.after(time.Hour); w != 0 || tries < 12 || tries > 40 {
			t.Errorf("%d writes and %d tries in an hour without NFD, want 0 and one in some minutes", w, tries)
		}
		n.set(func() { n.fail = errors.New("refused") })
		n.set(func() { n.fail = nil })
		if w, _ := n.after(10 * time.Minute); w != 1 {
			t.Errorf("%d writes once NFD is there, want 1", w)
		}
	})
}
