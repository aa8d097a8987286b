package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	componentresource "k8s.io/component-helpers/resource"
	kubeletconfig "k8s.io/kubelet/config/v1beta1"

	"github.com/numalane/numalane/e2e/cluster"
	"github.com/numalane/numalane/internal/sysfstest"
	"github.com/numalane/numalane/pkg/allocator"
	"github.com/numalane/numalane/pkg/topology"
)

// TestForetold puts random pods on a node, past all schedulers, and holds the
// kubelet's answer, and what each container got, against the outcomes foretold
// from the annotations. FORETOLD=n runs n pods a node, SEED=n others.
func TestForetold(t *testing.T) {
	pods, seed := fromEnv(t, "FORETOLD", 20), fromEnv(t, "SEED", 1)
	c := start(t, cluster.Options{})
	scoped := func(scope string, change func(*kubeletconfig.KubeletConfiguration)) func(*kubeletconfig.KubeletConfiguration) {
		return func(k *kubeletconfig.KubeletConfiguration) {
			k.TopologyManagerScope = scope
			if change != nil {
				change(k)
			}
		}
	}
	memory := func(k *kubeletconfig.KubeletConfiguration) {
		reserved := resource.MustParse("1Gi")
		k.MemoryManagerPolicy = topology.MemoryManagerStatic
		k.SystemReserved = map[string]string{"cpu": "1", "memory": "1Gi"}
		k.ReservedMemory = []kubeletconfig.MemoryReservation{{NumaNode: 0, Limits: corev1.ResourceList{corev1.ResourceMemory: reserved}}}
	}
	nodes := []struct {
		name    string
		kubelet func(*kubeletconfig.KubeletConfiguration)
	}{
		{"container", scoped(topology.ScopeContainer, nil)},
		{"pod", scoped(topology.ScopePod, nil)},
		{"memory", scoped(topology.ScopeContainer, memory)},
		{"best-effort", scoped(topology.ScopeContainer, func(k *kubeletconfig.KubeletConfiguration) { k.TopologyManagerPolicy = topology.PolicyBestEffort })},
		{"restricted", scoped(topology.ScopePod, func(k *kubeletconfig.KubeletConfiguration) { k.TopologyManagerPolicy = topology.PolicyRestricted })},
	}
	for i, tt := range nodes {
		m := sysfstest.Uniform(2, 6, 1, sysfstest.X710("0000:3b:00.0", 0, 5), sysfstest.X710("0000:af:00.0", 1, 4))
		n, err := c.StartNode(t.Context(), cluster.NodeSpec{Name: tt.name, Machine: m, Kubelet: tt.kubelet})
		if err != nil {
			t.Fatal(err)
		}
		startPlugin(t, n)
		if err := n.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := n.Allocatable(t.Context(), vf, 9); err != nil {
			t.Fatal(err)
		}
		t.Run(tt.name, func(t *testing.T) {
			f := foretelling{t: t, c: c, node: n, holders: map[string]bool{}, rng: rand.New(rand.NewPCG(uint64(seed), uint64(i)))}
			for range pods {
				f.one()
			}
			t.Logf("%d pods: the kubelet admitted %d and refused %d, the others found no room in all", pods, f.admitted, f.refused)
			// What fits in all is never refused by best-effort.
			if f.admitted == 0 || f.refused == 0 && tt.name != "best-effort" {
				t.Error("all pods met the same end: that shows nothing")
			}
		})
	}
}

func fromEnv(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text, ok := os.LookupEnv(name)
	if !ok {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

type foretelling struct {
	t                 *testing.T
	c                 *cluster.Cluster
	node              *cluster.Node
	rng               *rand.Rand
	made              int
	admitted, refused int
	holders           map[string]bool // admitted pods to which this node binds anything
}

// one foretells and tries one pod.
func (f *foretelling) one() {
	f.t.Helper()
	state, live := f.state()
	p := f.pod()
	if f.rng.IntN(5) == 0 || !f.fits(p, live) {
		// Make room, as kube-scheduler would wait for it.
		for i := range live {
			if f.rng.IntN(2) == 0 || !f.fits(p, nil) {
				f.remove(live[i].Name)
			}
		}
		if state, live = f.state(); !f.fits(p, live) {
			return
		}
	}
	n, err := allocator.Compile(state)
	if err != nil {
		f.t.Fatal(err)
	}
	r := allocator.NewRequest(p)
	verdict := n.Admit(r)
	outcomes, complete := n.Outcomes(r, 100)
	if !complete {
		f.t.Fatalf("pod %s: more than %d outcomes\nasks %s", p.Name, len(outcomes), asks(p))
	}

	create(f.t, f.c, p)
	got := until(f.t, f.c, p.Name, "settled", func(p *corev1.Pod) bool { return taken(p) || p.Status.Phase == corev1.PodFailed })
	if taken(got) != verdict.OK() {
		f.t.Errorf("pod %s: foretold %s in container %d, the kubelet: %s %s %s\nasks %s\nfree: %v",
			p.Name, verdict.Reason.Code(), verdict.Container, got.Status.Phase, got.Status.Reason, got.Status.Message, asks(p), state.Held)
	}
	if !taken(got) {
		f.refused++
		f.remove(p.Name)
		return
	}
	f.admitted++
	if len(holdings(outcomes[0].Containers)) > 0 {
		f.holders[p.Name] = true
		f.compare(until(f.t, f.c, p.Name, "acknowledged", acknowledged), outcomes)
	}
}

// taken tells that the kubelet has admitted a pod. One with an init container
// never runs here: no container without hardware ends.
func taken(p *corev1.Pod) bool {
	return p.Status.Phase != corev1.PodFailed && len(p.Status.ContainerStatuses) > 0
}

// compare holds what each container got against the outcomes foretold.
func (f *foretelling) compare(p *corev1.Pod, outcomes []allocator.Outcome) {
	f.t.Helper()
	a, err := topology.Decode[topology.Allocation](p.Annotations[topology.AllocationAnnotation])
	if err != nil {
		f.t.Fatal(err)
	}
	got := allocator.LandingsOf(&a)
	var diff string
	for i := range outcomes {
		if diff = cmp.Diff(holdings(outcomes[i].Containers), holdings(got)); diff == "" {
			return
		}
	}
	f.t.Errorf("pod %s (-foretold +got):\n%s\nasks %s", p.Name, diff, asks(p))
}

// holdings are the landings of those containers that hold anything, by name.
func holdings(all []allocator.Landing) map[string]allocator.Landing {
	m := map[string]allocator.Landing{}
	for _, l := range all {
		if !l.CPUs.IsEmpty() || len(l.Memory) > 0 || len(l.Devices) > 0 {
			m[l.Container] = l
		}
	}
	return m
}

// pod is a random one: regular init containers, sidecars, fractions of a CPU
// and containers without VFs among them.
func (f *foretelling) pod() *corev1.Pod {
	f.made++
	p := pod(fmt.Sprintf("%s-%03d", f.node.Name, f.made), 1, 0)
	p.Spec.NodeName = f.node.Name
	p.Spec.Containers = nil
	always := corev1.ContainerRestartPolicyAlways
	for i := range 1 + f.rng.IntN(2) {
		p.Spec.Containers = append(p.Spec.Containers, f.container(fmt.Sprint("app", i)))
	}
	if f.rng.IntN(3) == 0 {
		p.Spec.InitContainers = append(p.Spec.InitContainers, f.container("init"))
	}
	if f.rng.IntN(4) == 0 {
		side := f.container("side")
		side.RestartPolicy = &always
		p.Spec.InitContainers = append(p.Spec.InitContainers, side)
	}
	return p
}

func (f *foretelling) container(name string) corev1.Container {
	cpu := resource.NewQuantity(int64(1+f.rng.IntN(4)), resource.DecimalSI)
	if f.rng.IntN(5) == 0 {
		cpu = resource.NewMilliQuantity(1500, resource.DecimalSI)
	}
	rl := corev1.ResourceList{
		corev1.ResourceCPU:    *cpu,
		corev1.ResourceMemory: *resource.NewQuantity(int64(1+f.rng.IntN(6))<<30, resource.BinarySI),
	}
	if n := f.rng.IntN(4); n > 0 {
		rl[vf] = *resource.NewQuantity(int64(n), resource.DecimalSI)
	}
	return corev1.Container{Name: name, Image: "none", Resources: corev1.ResourceRequirements{Requests: rl, Limits: rl}}
}

// state is what the node publishes and its pods hold, once every pod is acknowledged.
func (f *foretelling) state() (*topology.NodeState, []corev1.Pod) {
	f.t.Helper()
	node := published(f.t, f.c, f.node.Name)
	s := &topology.NodeState{}
	var err error
	if s.Topology, err = topology.Decode[topology.NodeTopology](node.Annotations[topology.TopologyAnnotation]); err != nil {
		f.t.Fatal(err)
	}
	if s.Pools, err = topology.Decode[topology.NodePools](node.Annotations[topology.PoolsAnnotation]); err != nil {
		f.t.Fatal(err)
	}
	s.Pools.Unowned = nil // delayed, for people; this node has no pods but the API's
	pods := f.pods()
	for i := range pods {
		if !f.holders[pods[i].Name] {
			continue
		}
		a, err := topology.Decode[topology.Allocation](until(f.t, f.c, pods[i].Name, "acknowledged", acknowledged).Annotations[topology.AllocationAnnotation])
		if err != nil {
			f.t.Fatal(err)
		}
		s.Held = append(s.Held, a)
	}
	return s, pods
}

func (f *foretelling) pods() []corev1.Pod {
	f.t.Helper()
	list, err := f.c.Client.CoreV1().Pods("default").List(f.t.Context(), metav1.ListOptions{FieldSelector: "spec.nodeName=" + f.node.Name})
	if err != nil {
		f.t.Fatal(err)
	}
	return list.Items
}

// fits tells whether the node has enough in all, as kube-scheduler asks before
// it binds, and the kubelet only after it has aligned.
func (f *foretelling) fits(p *corev1.Pod, live []corev1.Pod) bool {
	f.t.Helper()
	node, err := f.c.Client.CoreV1().Nodes().Get(f.t.Context(), f.node.Name, metav1.GetOptions{})
	if err != nil {
		f.t.Fatal(err)
	}
	free := node.Status.Allocatable.DeepCopy()
	for _, pod := range append(live, *p) {
		for name, q := range componentresource.PodRequests(&pod, componentresource.PodResourcesOptions{}) {
			left := free[name]
			left.Sub(q)
			free[name] = left
		}
	}
	for _, q := range free {
		if q.Sign() < 0 {
			return false
		}
	}
	return true
}

func (f *foretelling) remove(name string) {
	f.t.Helper()
	pods := f.c.Client.CoreV1().Pods("default")
	if err := pods.Delete(f.t.Context(), name, metav1.DeleteOptions{}); err != nil {
		f.t.Fatal(err)
	}
	if err := cluster.Wait(f.t.Context(), time.Minute, "pod "+name+" to go", func(context.Context) error {
		for _, p := range f.pods() {
			if p.Name == name {
				return fmt.Errorf("it is %s", p.Status.Phase)
			}
		}
		return nil
	}); err != nil {
		f.t.Fatal(err)
	}
}

func asks(p *corev1.Pod) string {
	text := ""
	for _, c := range append(p.Spec.InitContainers, p.Spec.Containers...) {
		text += fmt.Sprintf("%s{cpu %s, memory %s, vf %d} ", c.Name, c.Resources.Limits.Cpu(), c.Resources.Limits.Memory(), c.Resources.Limits.Name(vf, resource.DecimalSI).Value())
	}
	return text
}
