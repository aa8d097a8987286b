package publish_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/numalane/numalane/internal/kubelet"
	"github.com/numalane/numalane/internal/publish"
	"github.com/numalane/numalane/pkg/topology"
)

// source is a kubelet whose state the test sets.
type source struct {
	mu      sync.Mutex
	state   topology.NodeState
	err     error
	inputs  []kubelet.Input
	changed chan time.Time
}

func (s *source) Read(_ context.Context, in kubelet.Input) (topology.NodeState, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inputs = append(s.inputs, in)
	return s.state, s.err
}

func (s *source) Changed() <-chan time.Time { return s.changed }

func (s *source) set(change func(*topology.NodeState)) {
	s.mu.Lock()
	change(&s.state)
	s.mu.Unlock()
	s.poke()
}

func (s *source) poke() {
	select {
	case s.changed <- time.Now():
	default:
	}
}

func (s *source) last() kubelet.Input {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.inputs) == 0 {
		return kubelet.Input{}
	}
	return s.inputs[len(s.inputs)-1]
}

var versionField = regexp.MustCompile(`"resourceVersion":"\d+",?|,"resourceVersion":"\d+"`)

// written is one patch that reached the API server.
type written struct {
	Object string // node/n1, pod/lane/cnf
	Body   string
	at     time.Time
}

// api is a fake API server with resource versions, UID preconditions and a
// watch that can be made to lag.
type api struct {
	t      *testing.T
	client *fake.Clientset

	mu      sync.Mutex
	version int
	patches []written
	deny    error            // for patches
	lag     bool             // patches reach the watch only after catchUp
	behind  []runtime.Object // what it has to catch up with
	deaf    bool             // there is no watch and no list
	watches []watch.Interface
	lose    bool // patches are made, and their answers lost
}

func newAPI(t *testing.T, objects ...runtime.Object) *api {
	a := &api{t: t, version: 100, client: fake.NewSimpleClientset(objects...)}
	a.client.PrependReactor("patch", "*", a.patch)
	a.client.PrependReactor("list", "*", a.list)
	a.client.PrependWatchReactor("*", a.watch)
	return a
}

func (a *api) patch(action clienttesting.Action) (bool, runtime.Object, error) {
	p := action.(clienttesting.PatchAction)
	a.mu.Lock()
	defer a.mu.Unlock()
	what := strings.TrimSuffix(p.GetResource().Resource, "s") + "/"
	if p.GetNamespace() != "" {
		what += p.GetNamespace() + "/"
	}
	// Which version a write is of is not what tests compare.
	body := versionField.ReplaceAllString(string(p.GetPatch()), "")
	a.patches = append(a.patches, written{Object: what + p.GetName(), Body: body, at: time.Now()})
	if p.GetPatchType() != types.MergePatchType {
		a.t.Errorf("patch type %s", p.GetPatchType())
	}
	if m := p.(clienttesting.PatchActionImpl).GetPatchOptions().FieldManager; m != "numalane-plugin" {
		a.t.Errorf("field manager %q", m)
	}
	if a.deny != nil {
		return true, nil, a.deny
	}
	obj, err := a.client.Tracker().Get(p.GetResource(), p.GetNamespace(), p.GetName())
	if err != nil {
		return true, nil, err
	}
	obj = obj.DeepCopyObject()
	var sent struct {
		Metadata struct {
			UID                 types.UID
			ResourceVersion     string
			Annotations, Labels map[string]*string
		}
	}
	if err := json.Unmarshal(p.GetPatch(), &sent); err != nil {
		return true, nil, apierrors.NewBadRequest(err.Error())
	}
	m, err := meta.Accessor(obj)
	if err != nil {
		return true, nil, err
	}
	if uid, v := sent.Metadata.UID, sent.Metadata.ResourceVersion; uid != m.GetUID() || v != m.GetResourceVersion() {
		return true, nil, apierrors.NewConflict(p.GetResource().GroupResource(), p.GetName(), fmt.Errorf("precondition: UID %q, version %q", uid, v))
	}
	m.SetAnnotations(merge(m.GetAnnotations(), sent.Metadata.Annotations))
	m.SetLabels(merge(m.GetLabels(), sent.Metadata.Labels))
	a.version++
	m.SetResourceVersion(strconv.Itoa(a.version))
	if a.lose {
		if err := a.client.Tracker().Update(p.GetResource(), obj, p.GetNamespace()); err != nil {
			return true, nil, err
		}
		return true, nil, errors.New("connection reset by peer")
	}
	if a.lag {
		a.behind = append(a.behind, obj)
		return true, obj, nil
	}
	return true, obj, a.client.Tracker().Update(p.GetResource(), obj, p.GetNamespace())
}

func merge(m map[string]string, patch map[string]*string) map[string]string {
	out := map[string]string{}
	for k, v := range m {
		out[k] = v
	}
	for k, v := range patch {
		if v == nil {
			delete(out, k)
		} else {
			out[k] = *v
		}
	}
	return out
}

// update is a write of somebody else.
func (a *api) update(obj runtime.Object) {
	a.t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.version++
	a.put(obj)
}

func (a *api) put(obj runtime.Object) {
	a.t.Helper()
	m, err := meta.Accessor(obj)
	if err != nil {
		a.t.Fatal(err)
	}
	resource := v1.SchemeGroupVersion.WithResource("pods")
	if _, ok := obj.(*v1.Node); ok {
		resource = v1.SchemeGroupVersion.WithResource("nodes")
	}
	if _, err := a.client.Tracker().Get(resource, m.GetNamespace(), m.GetName()); apierrors.IsNotFound(err) {
		err = a.client.Tracker().Create(resource, obj, m.GetNamespace())
		if err != nil {
			a.t.Fatal(err)
		}
		return
	}
	if err := a.client.Tracker().Update(resource, obj, m.GetNamespace()); err != nil {
		a.t.Fatal(err)
	}
}

func (a *api) catchUp() {
	a.t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, obj := range a.behind {
		a.put(obj)
	}
	a.lag, a.behind = false, nil
}

// stopWatches ends the watches, and lets none begin before it is told to.
func (a *api) stopWatches() (letGo func()) {
	a.t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.deaf = true
	for _, w := range a.watches {
		w.Stop()
	}
	a.watches = nil
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.deaf = false
	}
}

func (a *api) watch(action clienttesting.Action) (bool, watch.Interface, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.deaf {
		return true, nil, errors.New("connection refused")
	}
	w, err := a.client.Tracker().Watch(action.GetResource(), action.GetNamespace())
	if err == nil {
		a.watches = append(a.watches, w)
	}
	return true, w, err
}

func (a *api) list(clienttesting.Action) (bool, runtime.Object, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.deaf {
		return true, nil, errors.New("connection refused")
	}
	return false, nil, nil
}

func (a *api) setDeny(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.deny = err
}

// take is what was written since the last call, to pods first: the order of
// writes that are made at once says nothing.
func (a *api) take() []written {
	a.mu.Lock()
	defer a.mu.Unlock()
	w := a.patches
	a.patches = nil
	slices.SortStableFunc(w, func(a, b written) int { return strings.Compare(b.Object, a.Object) })
	return w
}

func (a *api) pod(namespace, name string) *v1.Pod {
	a.t.Helper()
	p, err := a.client.CoreV1().Pods(namespace).Get(a.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		a.t.Fatal(err)
	}
	return p
}

func (a *api) node() *v1.Node {
	a.t.Helper()
	n, err := a.client.CoreV1().Nodes().Get(a.t.Context(), "n1", metav1.GetOptions{})
	if err != nil {
		a.t.Fatal(err)
	}
	return n
}

// logs is what was logged.
type logs struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logs) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *logs) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.buf.String(), text)
}

// lane is a running Publisher and all that it works with. It lives in a
// synctest bubble: its clock stands still until everything waits.
type lane struct {
	*source
	api     *api
	logs    *logs
	changed chan struct{}

	registry *prometheus.Registry

	mu    sync.Mutex
	ready bool
	away  bool
	pools []kubelet.Pool
}

func (l *lane) setReady(ready bool) {
	l.mu.Lock()
	l.ready, l.away = ready, false
	l.mu.Unlock()
	l.changed <- struct{}{}
}

// setAway has no kubelet listen.
func (l *lane) setAway() {
	l.mu.Lock()
	l.ready, l.away = false, true
	l.mu.Unlock()
	l.changed <- struct{}{}
}

// run is a test in a bubble, with a Publisher that has settled.
func run(t *testing.T, objects []runtime.Object, state topology.NodeState, test func(t *testing.T, l *lane), change ...func(*lane)) {
	synctest.Test(t, func(t *testing.T) {
		l := &lane{
			source:  &source{state: state, changed: make(chan time.Time, 1)},
			api:     newAPI(t, objects...),
			logs:    &logs{},
			changed: make(chan struct{}, 1),
			ready:   true, registry: prometheus.NewRegistry(),
			pools: []kubelet.Pool{{Resource: "numalane.io/sriov"}},
		}
		for _, f := range change {
			f(l)
		}
		p, err := publish.New(publish.Options{
			Client: l.api.client, NodeName: "n1", Source: l.source,
			Host:  func() *topology.Host { return &topology.Host{} },
			Pools: func() []kubelet.Pool { l.mu.Lock(); defer l.mu.Unlock(); return l.pools },
			Ready: func() bool { l.mu.Lock(); defer l.mu.Unlock(); return l.ready },
			Away:  func() bool { l.mu.Lock(); defer l.mu.Unlock(); return l.away },

			Changed: l.changed,
			Logger:  slog.New(slog.NewTextHandler(l.logs, nil)),
			Metrics: l.registry,
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		settle()
		test(t, l)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// settle lets all that is under way come to an end; of the bubble's time it
// takes less than freeDelay.
func settle() {
	time.Sleep(400 * time.Millisecond)
	synctest.Wait()
}

func node() *v1.Node {
	n := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", UID: "node-uid", ResourceVersion: "10", Labels: map[string]string{"zone": "a"}}}
	n.Status.NodeInfo.KubeletVersion = "v1.37.2"
	return n
}

// pod is a Guaranteed pod with a regular init container.
func pod() *v1.Pod {
	list := v1.ResourceList{
		v1.ResourceCPU: resource.MustParse("2"), v1.ResourceMemory: resource.MustParse("1Gi"),
		"numalane.io/sriov": resource.MustParse("1"), "example.com/not-a-device": resource.MustParse("1"),
	}
	small := v1.ResourceList{v1.ResourceCPU: resource.MustParse("1"), v1.ResourceMemory: resource.MustParse("1Gi")}
	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "lane", Name: "cnf", UID: "cnf-uid", ResourceVersion: "11"}}
	p.Spec.NodeName = "n1"
	p.Spec.InitContainers = []v1.Container{{Name: "init", Resources: v1.ResourceRequirements{Requests: small, Limits: small}}}
	p.Spec.Containers = []v1.Container{{Name: "app", Resources: v1.ResourceRequirements{Requests: list, Limits: list}}}
	p.Status.Phase = v1.PodPending
	p.Status.QOSClass = v1.PodQOSGuaranteed
	return p
}

func state(held ...topology.Allocation) topology.NodeState {
	s := topology.NodeState{Held: held}
	s.Topology.Kubelet = topology.Kubelet{
		Minor: 37, TopologyPolicy: "single-numa-node", TopologyScope: "pod", CPUPolicy: "static", MemoryPolicy: "Static",
	}
	s.Topology.NUMANodes = []topology.NodeNUMA{{ID: 0}}
	s.Pools.Pools = []topology.Pool{
		{Resource: "numalane.io/sriov", AllocationPolicy: "packed", Groups: []topology.Group{
			{NUMANodes: []int{0}, PF: "0000:3b:00.0", Total: 8, Healthy: 7, Free: 7},
			{NUMANodes: []int{0}, PF: "0000:3c:00.0", Total: 4, Healthy: 4, Free: 4},
			{NUMANodes: []int{1}, PF: "0000:af:00.0", Total: 8, Healthy: 8, Free: 8},
		}},
		{Resource: "vendor.example/gpu", Foreign: true, Groups: []topology.Group{{NUMANodes: []int{1}, Total: 2, Healthy: 2, Free: 2}}},
	}
	return s
}

func held(uid string) topology.Allocation {
	return topology.Allocation{UID: uid, Containers: []topology.ContainerAllocation{
		{
			Name: "app", CPUs: map[int]topology.CPUSet{0: topology.NewCPUSet(4, 5)},
			Memory:  []topology.MemoryAllocation{{Type: "memory", NUMANodes: []int{0}, Size: 1 << 30}},
			Devices: []topology.DeviceAllocation{{Resource: "numalane.io/sriov", NUMANodes: []int{0}, PF: "0000:3b:00.0", IDs: []string{"0000:3b:02.0"}}},
		},
		{Name: "init", CPUs: map[int]topology.CPUSet{0: topology.NewCPUSet(4)}},
	}}
}
