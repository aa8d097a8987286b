package ledger_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/numalane/numalane/internal/ledger"
	"github.com/numalane/numalane/pkg/allocator"
	"github.com/numalane/numalane/pkg/topology"
)

const vfs = "numalane.io/vf"

// pf is the PF of a NUMA node's VFs.
func pf(numa int) string { return fmt.Sprintf("0000:%d0:00.0", numa+1) }

// machine is a node of single-threaded cores with one PF a NUMA node.
type machine struct {
	cores, vfs []int // per NUMA node
	edit       func(*topology.NodeTopology, *topology.NodePools)
}

// two is 4 cores and 4 VFs, and 4 cores and 2 VFs.
var two = machine{cores: []int{4, 4}, vfs: []int{4, 2}}

func (m machine) state() (topology.NodeTopology, topology.NodePools) {
	t := topology.NodeTopology{Kubelet: topology.Kubelet{
		Minor: 37, TopologyPolicy: topology.PolicySingleNUMANode, TopologyScope: topology.ScopeContainer, CPUPolicy: topology.CPUManagerStatic,
	}}
	p := topology.NodePools{Pools: []topology.Pool{{Resource: vfs}}}
	cpu := 0
	for id, cores := range m.cores {
		g := topology.CoreGroup{Socket: id, Cache: id}
		for range cores {
			g.CPUs = append(g.CPUs, topology.NewCPUSet(cpu))
			cpu++
		}
		t.NUMANodes = append(t.NUMANodes, topology.NodeNUMA{ID: id, Cores: []topology.CoreGroup{g}})
		if m.vfs[id] > 0 {
			p.Pools[0].Groups = append(p.Pools[0].Groups, topology.Group{NUMANodes: []int{id}, PF: pf(id), Total: m.vfs[id], Healthy: m.vfs[id]})
		}
	}
	if m.edit != nil {
		m.edit(&t, &p)
	}
	return t, p
}

func encode[T topology.Document](t testing.TB, doc T) string {
	t.Helper()
	s, err := topology.Encode(doc)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (m machine) node(t testing.TB, name string) *v1.Node {
	t.Helper()
	tp, pools := m.state()
	return &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{
		topology.TopologyAnnotation: encode(t, tp), topology.PoolsAnnotation: encode(t, pools),
	}}}
}

// born is when the first pod of a test was made.
var born = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// pod asks for whole CPUs and VFs in one container, app; of no QoS class but
// Guaranteed.
func pod(name, cpu string, vf int64) *v1.Pod {
	rl := v1.ResourceList{v1.ResourceCPU: resource.MustParse(cpu), v1.ResourceMemory: resource.MustParse("64Mi")}
	if vf > 0 {
		rl[vfs] = *resource.NewQuantity(vf, resource.DecimalSI)
	}
	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID("uid-" + name), CreationTimestamp: metav1.NewTime(born)},
		Spec:       v1.PodSpec{Containers: []v1.Container{{Name: "app", Image: "registry.example/app", Resources: v1.ResourceRequirements{Requests: rl, Limits: rl}}}},
		Status:     v1.PodStatus{Phase: v1.PodPending, QOSClass: v1.PodQOSGuaranteed},
	}
}

func on(node string, p *v1.Pod) *v1.Pod {
	p.Spec.NodeName = node
	return p
}

// acknowledged is the pod with what its node says that it holds: CPUs and VFs
// of one NUMA node.
func acknowledged(t testing.TB, p *v1.Pod, numa int, cpus []int, vf int) *v1.Pod {
	t.Helper()
	c := topology.ContainerAllocation{Name: "app"}
	if len(cpus) > 0 {
		c.CPUs = map[int]topology.CPUSet{numa: topology.NewCPUSet(cpus...)}
	}
	if vf > 0 {
		d := topology.DeviceAllocation{Resource: vfs, NUMANodes: []int{numa}, PF: pf(numa)}
		for i := range vf {
			d.IDs = append(d.IDs, fmt.Sprintf("0000:%d0:02.%d-%s", numa+1, i, p.Name))
		}
		c.Devices = []topology.DeviceAllocation{d}
	}
	return says(t, p, topology.Allocation{UID: string(p.UID), Containers: []topology.ContainerAllocation{c}})
}

func says(t testing.TB, p *v1.Pod, a topology.Allocation) *v1.Pod {
	t.Helper()
	out := p.DeepCopy()
	out.Annotations = map[string]string{topology.AllocationAnnotation: encode(t, a)}
	return out
}

// cluster is a ledger on an API that is a fake, in a bubble of its own time.
type cluster struct {
	*ledger.Ledger
	t      *testing.T
	client *fake.Clientset
	reg    *prometheus.Registry
}

// inCluster runs a test in a bubble, with a ledger that has caught up with the
// objects. The fake API binds pods.
func inCluster(t *testing.T, policy ledger.Policy, objects []runtime.Object, test func(t *testing.T, c *cluster)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{t: t, client: fake.NewClientset(objects...), reg: prometheus.NewRegistry()}
		c.client.PrependReactor("create", "pods", c.bindPod)
		l, err := ledger.New(c.client, policy, slog.New(slog.NewTextHandler(io.Discard, nil)), c.reg)
		if err != nil {
			t.Fatal(err)
		}
		c.Ledger = l
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- l.Run(ctx) }()
		for !l.HasSynced() {
			time.Sleep(time.Millisecond) // of the bubble: passes at once
		}
		test(t, c)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// bindPod does what BindingREST does.
func (c *cluster) bindPod(action clienttesting.Action) (bool, runtime.Object, error) {
	if action.GetSubresource() != "binding" {
		return false, nil, nil
	}
	b := action.(clienttesting.CreateAction).GetObject().(*v1.Binding)
	obj, err := c.client.Tracker().Get(podsResource, b.Namespace, b.Name)
	if err != nil {
		return true, nil, err
	}
	p := obj.(*v1.Pod).DeepCopy()
	if p.UID != b.UID || p.Spec.NodeName != "" {
		return true, nil, conflict(b.Name)
	}
	p.Spec.NodeName = b.Target.Name
	return true, b, c.client.Tracker().Update(podsResource, p, b.Namespace)
}

var podsResource = v1.SchemeGroupVersion.WithResource("pods")

// put makes or changes an object in the API, and waits until the ledger has seen it.
func (c *cluster) put(obj runtime.Object) {
	c.t.Helper()
	var err error
	switch o := obj.(type) {
	case *v1.Pod:
		if _, err = c.client.CoreV1().Pods(o.Namespace).Update(c.t.Context(), o, metav1.UpdateOptions{}); err != nil {
			_, err = c.client.CoreV1().Pods(o.Namespace).Create(c.t.Context(), o, metav1.CreateOptions{})
		}
	case *v1.Node:
		if _, err = c.client.CoreV1().Nodes().Update(c.t.Context(), o, metav1.UpdateOptions{}); err != nil {
			_, err = c.client.CoreV1().Nodes().Create(c.t.Context(), o, metav1.CreateOptions{})
		}
	}
	if err != nil {
		c.t.Fatal(err)
	}
	synctest.Wait()
}

func (c *cluster) deletePod(name string) {
	c.t.Helper()
	if err := c.client.CoreV1().Pods("ns").Delete(c.t.Context(), name, metav1.DeleteOptions{}); err != nil {
		c.t.Fatal(err)
	}
	synctest.Wait()
}

func (c *cluster) bind(p *v1.Pod, node string) error {
	err := c.Bind(c.t.Context(), &v1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name, UID: p.UID},
		Target:     v1.ObjectReference{Kind: "Node", Name: node},
	})
	synctest.Wait()
	return err
}

func (c *cluster) admit(node string, p *v1.Pod) (v allocator.Verdict) {
	c.Admit([]string{node}, p.UID, allocator.NewRequest(p), func(_ string, said allocator.Verdict) { v = said })
	return v
}

// want asks for a pod that nobody knows.
func (c *cluster) want(node string, p *v1.Pod, want allocator.Reason) {
	c.t.Helper()
	if got := c.admit(node, p).Reason; got != want {
		c.t.Errorf("%s of %s CPUs and %s VFs on %s: %s, want %s", p.Name, p.Spec.Containers[0].Resources.Requests.Cpu(), vfCount(p), node, got.Code(), want.Code())
	}
}

func vfCount(p *v1.Pod) string {
	q := p.Spec.Containers[0].Resources.Limits[vfs]
	return q.String()
}

// metric is the value of one series.
func (c *cluster) metric(name, label string) float64 {
	c.t.Helper()
	families, err := c.reg.Gather()
	if err != nil {
		c.t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && m.GetLabel()[0].GetValue() == label {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	c.t.Fatalf("no metric %s with %s", name, label)
	return 0
}

// total is the value of a metric without labels: of a histogram, how much it has counted.
func (c *cluster) total(name string) float64 {
	c.t.Helper()
	families, err := c.reg.Gather()
	if err != nil {
		c.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			m := f.GetMetric()[0]
			return m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	c.t.Fatalf("no metric %s", name)
	return 0
}

// checkError wants a text in an error, or no error for an empty one.
func checkError(t *testing.T, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("%v, want no error", err)
	case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
		t.Errorf("%v, want %q in it", err, want)
	}
}
