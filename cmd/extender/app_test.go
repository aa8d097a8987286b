package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	extenderv1 "k8s.io/kube-scheduler/extender/v1"

	"github.com/numalane/numalane/internal/ledger"
	"github.com/numalane/numalane/pkg/topology"
)

// node has two NUMA nodes of 8 cores, with VFs on each.
func node(t testing.TB, name string, vfs ...int) *v1.Node {
	t.Helper()
	tp := topology.NodeTopology{Kubelet: topology.Kubelet{
		Minor: 37, TopologyPolicy: topology.PolicySingleNUMANode,
		TopologyScope: topology.ScopeContainer, CPUPolicy: topology.CPUManagerStatic,
	}}
	pools := topology.NodePools{Pools: []topology.Pool{{Resource: "numalane.io/vf"}}}
	for id, n := range vfs {
		g := topology.CoreGroup{Socket: id, Cache: id}
		for c := range 8 {
			g.CPUs = append(g.CPUs, topology.NewCPUSet(8*id+c))
		}
		tp.NUMANodes = append(tp.NUMANodes, topology.NodeNUMA{ID: id, Cores: []topology.CoreGroup{g}})
		pools.Pools[0].Groups = append(pools.Pools[0].Groups, topology.Group{NUMANodes: []int{id}, PF: fmt.Sprint("0000:0", id, ":00.0"), Total: n, Healthy: n})
	}
	a, errA := topology.Encode(tp)
	b, errB := topology.Encode(pools)
	if errA != nil || errB != nil {
		t.Fatal(errA, errB)
	}
	return &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{topology.TopologyAnnotation: a, topology.PoolsAnnotation: b}}}
}

func lane(name string, cpus, vfs int64) *v1.Pod {
	rl := v1.ResourceList{
		v1.ResourceCPU: *resource.NewQuantity(cpus, resource.DecimalSI), v1.ResourceMemory: resource.MustParse("64Mi"),
		"numalane.io/vf": *resource.NewQuantity(vfs, resource.DecimalSI),
	}
	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID("uid-" + name)},
		Spec:       v1.PodSpec{SchedulerName: "numalane", Containers: []v1.Container{{Name: "app", Resources: v1.ResourceRequirements{Requests: rl, Limits: rl}}}},
		Status:     v1.PodStatus{Phase: v1.PodPending, QOSClass: v1.PodQOSGuaranteed},
	}
}

// start runs a daemon over loopback until the test ends, and returns the
// addresses of the verbs and of health.
func start(t testing.TB, objects ...runtime.Object) (client *fake.Clientset, verbs, health string) {
	t.Helper()
	client = fake.NewClientset(objects...)
	client.PrependReactor("create", "pods", func(a clienttesting.Action) (bool, runtime.Object, error) {
		if a.GetSubresource() != "binding" {
			return false, nil, nil
		}
		b := a.(clienttesting.CreateAction).GetObject().(*v1.Binding)
		pods := v1.SchemeGroupVersion.WithResource("pods")
		obj, err := client.Tracker().Get(pods, b.Namespace, b.Name)
		if err != nil {
			return true, nil, err
		}
		p := obj.(*v1.Pod).DeepCopy()
		p.Spec.NodeName = b.Target.Name
		return true, b, client.Tracker().Update(pods, p, b.Namespace)
	})
	d, err := newApp(options{listen: "127.0.0.1:0", healthListen: "127.0.0.1:0"}, ledger.Policy{}, client, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	verbs, health = "http://"+d.servers[0].Addr().String(), "http://"+d.servers[1].Addr().String()
	for deadline := time.Now().Add(30 * time.Second); ; {
		r, err := http.Get(health + "/readyz")
		if err == nil {
			r.Body.Close()
			if r.StatusCode == http.StatusOK {
				return client, verbs, health
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("not ready: %v", err)
		}
	}
}

func ask[Out any](t testing.TB, url string, in any) (out Out) {
	t.Helper()
	body, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.Post(url, "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if err := json.NewDecoder(r.Body).Decode(&out); err != nil {
		t.Fatalf("%s: %d: %v", url, r.StatusCode, err)
	}
	return out
}

// TestBurst plays kube-scheduler: it filters, prioritizes and binds pods one
// after the other but binds beside the next pod's turn, until no pod finds a
// place. What the nodes have on each NUMA node is given away once, and all of it.
func TestBurst(t *testing.T) {
	const pods = 16
	objects := []runtime.Object{node(t, "n1", 8, 4), node(t, "n2", 2, 6), &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "bare"}}}
	for i := range pods {
		objects = append(objects, lane(fmt.Sprint("p", i), 2, 2))
	}
	client, verbs, health := start(t, objects...)
	names := []string{"n1", "n2", "bare"}
	waiting := make(chan *v1.Pod, pods)
	for i := range pods {
		waiting <- lane(fmt.Sprint("p", i), 2, 2)
	}
	var bindings sync.WaitGroup
	for {
		if len(waiting) == 0 {
			bindings.Wait()
			if len(waiting) == 0 {
				break
			}
		}
		p := <-waiting
		f := ask[extenderv1.ExtenderFilterResult](t, verbs+"/filter", extenderv1.ExtenderArgs{Pod: p, NodeNames: &names})
		if f.Error != "" || len(*f.NodeNames)+len(f.FailedNodes)+len(f.FailedAndUnresolvableNodes) != len(names) {
			t.Fatalf("filter answered %+v", f)
		}
		if len(*f.NodeNames) == 0 {
			continue // unschedulable, for no pod ever goes
		}
		best := (*f.NodeNames)[0]
		var most int64
		for _, s := range ask[extenderv1.HostPriorityList](t, verbs+"/prioritize", extenderv1.ExtenderArgs{Pod: p, NodeNames: f.NodeNames}) {
			if s.Score > most {
				best, most = s.Host, s.Score
			}
		}
		bindings.Go(func() {
			b := ask[extenderv1.ExtenderBindingResult](t, verbs+"/bind", extenderv1.ExtenderBindingArgs{PodName: p.Name, PodNamespace: p.Namespace, PodUID: p.UID, Node: best})
			if b.Error != "" {
				waiting <- p
			}
		})
	}
	list, err := client.CoreV1().Pods("ns").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	on := map[string]int{}
	for i := range list.Items {
		on[list.Items[i].Spec.NodeName]++
	}
	if on["n1"] != 6 || on["n2"] != 4 || on[""] != pods-10 {
		t.Errorf("pods by node: %v, want 6 on n1 and 4 on n2", on)
	}
	r, err := http.Get(health + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil || !strings.Contains(string(text), `numalane_ledger_bindings_total{result="bound"} 10`) {
		t.Errorf("the metrics do not tell of 10 pods bound (%v)", err)
	}
	r, err = http.Post(health+"/bind", "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != http.StatusNotFound {
		t.Errorf("the address for health answers bind with %d, want 404", r.StatusCode)
	}
}

// BenchmarkFilter asks about 5,000 nodes as kube-scheduler does, and beside it
// an extender that sends the same bytes without thinking.
func BenchmarkFilter(b *testing.B) {
	const nodes = 5000
	objects := make([]runtime.Object, nodes)
	names := make([]string, nodes)
	for i := range nodes {
		names[i] = fmt.Sprintf("worker-%04d.cluster.example", i)
		objects[i] = node(b, names[i], i%9, 4)
	}
	_, verbs, _ := start(b, objects...)
	args := extenderv1.ExtenderArgs{Pod: lane("p", 4, 4), NodeNames: &names}
	answer, err := json.Marshal(ask[extenderv1.ExtenderFilterResult](b, verbs+"/filter", args))
	if err != nil {
		b.Fatal(err)
	}
	echo := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			b.Error(err)
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
		_, _ = w.Write(answer)
	}))
	defer echo.Close()
	for _, bb := range []struct{ name, url string }{{"echo", echo.URL}, {"numalane", verbs}} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if out := ask[extenderv1.ExtenderFilterResult](b, bb.url+"/filter", args); out.Error != "" {
					b.Fatal(out.Error)
				}
			}
		})
	}
}
