// Package e2e holds the lane: tests on a real control plane, real kubelets and
// our real binaries, all in a box that leaves nothing behind.
package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/numalane/numalane/e2e/cluster"
	"github.com/numalane/numalane/e2e/demo"
	"github.com/numalane/numalane/internal/sysfstest"
	"github.com/numalane/numalane/pkg/topology"
)

const vf corev1.ResourceName = "numalane.io/vf"

const pools = `{"resourceList": [{"resourcePrefix": "numalane.io", "resourceName": "vf", "selectors": {"vendors": ["8086"], "devices": ["154c"]}}]}`

func TestMain(m *testing.M) {
	if _, err := cluster.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func bin(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join(".cache", "bin"))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// start brings up a control plane with a scheduler that asks our extender.
func start(t *testing.T, o cluster.Options) *cluster.Cluster {
	t.Helper()
	o.Bin, o.Progress = bin(t), t.Logf
	c, err := cluster.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, p := range c.Processes() {
				t.Logf("the end of the log of %s:\n%s", p.Name, p.Tail())
			}
		}
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	_, addr, err := c.StartExtender(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.StartScheduler(t.Context(), "scheduler", filepath.Join("..", "deploy", "scheduler-config.yaml"), addr); err != nil {
		t.Fatal(err)
	}
	return c
}

// node brings up a node with our plugin, whose flags come after those of the
// lane and win over them.
func node(t *testing.T, c *cluster.Cluster, name string, m sysfstest.Machine, want int64, flags ...string) *cluster.Node {
	t.Helper()
	n, err := c.StartNode(t.Context(), cluster.NodeSpec{Name: name, Machine: m})
	if err != nil {
		t.Fatal(err)
	}
	startPlugin(t, n, flags...)
	began := time.Now()
	if err := n.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("node %s is ready after %s", name, time.Since(began).Round(time.Millisecond))
	if err := n.Allocatable(t.Context(), vf, want); err != nil {
		t.Fatal(err)
	}
	t.Logf("and has its VFs after %s", time.Since(began).Round(time.Millisecond))
	return n
}

func startPlugin(t *testing.T, n *cluster.Node, flags ...string) {
	t.Helper()
	file := filepath.Join(n.Dir, "pools.json")
	if err := os.WriteFile(file, []byte(pools), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := n.StartPlugin(file, flags...); err != nil {
		t.Fatal(err)
	}
}

// published waits for what a node publishes, and returns the Node.
func published(t *testing.T, c *cluster.Cluster, name string) *corev1.Node {
	t.Helper()
	var n *corev1.Node
	if err := cluster.Wait(t.Context(), time.Minute, "the annotations of node "+name, func(ctx context.Context) error {
		var err error
		if n, err = c.Client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{}); err != nil {
			return err
		}
		if n.Annotations[topology.TopologyAnnotation] == "" || n.Annotations[topology.PoolsAnnotation] == "" {
			return fmt.Errorf("annotations %v", n.Annotations)
		}
		if top, err := topology.Decode[topology.NodeTopology](n.Annotations[topology.TopologyAnnotation]); err == nil && top.Away {
			return errors.New("its kubelet is away")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return n
}

func pod(name string, cpus, vfs int64) *corev1.Pod {
	rl := corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewQuantity(cpus, resource.DecimalSI),
		corev1.ResourceMemory: resource.MustParse("64Mi"),
		vf:                    *resource.NewQuantity(vfs, resource.DecimalSI),
	}
	none := int64(0)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"},
		Spec: corev1.PodSpec{
			SchedulerName: "numalane", TerminationGracePeriodSeconds: &none,
			Containers: []corev1.Container{{Name: "c", Image: "none", Resources: corev1.ResourceRequirements{Requests: rl, Limits: rl}}},
		},
	}
}

func create(t *testing.T, c *cluster.Cluster, p *corev1.Pod) {
	t.Helper()
	if _, err := c.Client.CoreV1().Pods(p.Namespace).Create(t.Context(), p, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// until waits for a pod to be as wanted, and returns it.
func until(t *testing.T, c *cluster.Cluster, name, what string, holds func(*corev1.Pod) bool) *corev1.Pod {
	t.Helper()
	var p *corev1.Pod
	began := time.Now()
	err := cluster.Wait(t.Context(), time.Minute, "pod "+name+" to be "+what, func(ctx context.Context) error {
		var err error
		if p, err = c.Client.CoreV1().Pods("default").Get(ctx, name, metav1.GetOptions{}); err != nil {
			return err
		}
		if !holds(p) {
			return fmt.Errorf("it is %s on node %q, conditions %v", p.Status.Phase, p.Spec.NodeName, p.Status.Conditions)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s is %s after %s", name, what, time.Since(began).Round(time.Millisecond))
	return p
}

func running(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodRunning }

func acknowledged(p *corev1.Pod) bool { return p.Annotations[topology.AllocationAnnotation] != "" }

func unschedulable(p *corev1.Pod) bool {
	for _, cond := range p.Status.Conditions {
		if cond.Type == corev1.PodScheduled && cond.Reason == corev1.PodReasonUnschedulable {
			return true
		}
	}
	return false
}

// TestDemo is the promise: plain kube-scheduler has pods refused, with
// numalane none is and all are aligned.
func TestDemo(t *testing.T) {
	var out strings.Builder
	d := demo.Demo{Out: &out, Bin: bin(t), Deploy: filepath.Join("..", "deploy")}
	t.Cleanup(func() {
		if err := d.Stop(); err != nil {
			t.Error(err)
		}
	})
	line, err := d.Run(t.Context())
	t.Log(out.String())
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`^demo: plain kube-scheduler: (\d+) of (\d+) refused by the kubelet; numalane: (\d+) of (\d+) refused, (\d+) of (\d+) aligned$`).FindStringSubmatch(line)
	if m == nil {
		t.Fatalf("last line %q", line)
	}
	if n := m[2]; m[1] == "0" || m[3] != "0" || m[5] != n || m[4] != n || m[6] != n {
		t.Errorf("%s: want some refused without, none with, and all %s aligned", line, n)
	}
}

// TestContract follows a pod: what the node publishes before it comes, what
// the pod's node says that it holds, and the room that it gives back.
func TestContract(t *testing.T) {
	c := start(t, cluster.Options{})
	n := node(t, c, "n1", sysfstest.Uniform(2, 4, 2, sysfstest.X710("0000:3b:00.0", 0, 1), sysfstest.X710("0000:af:00.0", 1, 2)), 3)

	live := published(t, c, n.Name)
	top, err := topology.Decode[topology.NodeTopology](live.Annotations[topology.TopologyAnnotation])
	if err != nil {
		t.Fatal(err)
	}
	if k := top.Kubelet; k.Minor != 37 || k.TopologyPolicy != topology.PolicySingleNUMANode || k.TopologyScope != topology.ScopeContainer || k.CPUPolicy != topology.CPUManagerStatic || top.Inexact != "" {
		t.Errorf("published kubelet %+v, inexact %q", k, top.Inexact)
	}
	if got := live.Labels[topology.PoolLabelPrefix+"numalane.io_vf"]; got != "2" {
		t.Errorf("pool label %q, want the 2 VFs of NUMA node 1", got)
	}
	if got := live.Labels[topology.PolicyLabel]; got != topology.PolicySingleNUMANode {
		t.Errorf("policy label %q", got)
	}

	// Only NUMA node 1 has two VFs.
	create(t, c, pod("two", 2, 2))
	p := until(t, c, "two", "running and acknowledged", func(p *corev1.Pod) bool { return running(p) && acknowledged(p) })
	a, err := topology.Decode[topology.Allocation](p.Annotations[topology.AllocationAnnotation])
	if err != nil {
		t.Fatal(err)
	}
	if a.UID != string(p.UID) || len(a.Containers) != 1 {
		t.Fatalf("allocation %+v of pod %s", a, p.UID)
	}
	held := a.Containers[0]
	if cpus, ok := held.CPUs[1]; !ok || cpus.Size() != 2 || len(held.CPUs) != 1 {
		t.Errorf("holds CPUs %v, want 2 of NUMA node 1", held.CPUs)
	}
	if len(held.Devices) != 1 || len(held.Devices[0].IDs) != 2 || fmt.Sprint(held.Devices[0].NUMANodes) != "[1]" || held.Devices[0].PF != "0000:af:00.0" {
		t.Errorf("holds devices %+v, want 2 of NUMA node 1 and PF 0000:af:00.0", held.Devices)
	}

	// One VF is left, on NUMA node 0: two do not fit, and the pod is told so
	// instead of being refused.
	create(t, c, pod("later", 2, 2))
	until(t, c, "later", "unschedulable", unschedulable)
	if err := c.Client.CoreV1().Pods("default").Delete(t.Context(), "two", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	until(t, c, "later", "running", running)
}

// TestVFsCome: a machine without VFs keeps its plugin, and VFs that come are
// given away.
func TestVFsCome(t *testing.T) {
	c := start(t, cluster.Options{})
	const pf = "0000:3b:00.0"
	m := sysfstest.Uniform(2, 4, 1, sysfstest.X710(pf, 1, 0))
	n := node(t, c, "n1", m, 0)
	if _, err := m.SetVFs(n.Sysfs(), pf, 2); err != nil {
		t.Fatal(err)
	}
	if err := n.Allocatable(t.Context(), vf, 2); err != nil {
		t.Fatal(err)
	}
	create(t, c, pod("p", 1, 2))
	until(t, c, "p", "running", running)
}

// TestKubeletRestart: the plugin registers again, and a pod that ran before
// still holds what it held.
func TestKubeletRestart(t *testing.T) {
	c := start(t, cluster.Options{})
	n := node(t, c, "n1", sysfstest.Uniform(2, 4, 1, sysfstest.X710("0000:3b:00.0", 0, 2)), 2)
	create(t, c, pod("before", 1, 1))
	before := until(t, c, "before", "running and acknowledged", func(p *corev1.Pod) bool { return running(p) && acknowledged(p) })
	n.Kubelet.Kill()
	if err := n.StartKubelet(); err != nil {
		t.Fatal(err)
	}
	create(t, c, pod("after", 1, 1))
	until(t, c, "after", "running", running)
	create(t, c, pod("no-room", 1, 1))
	until(t, c, "no-room", "unschedulable", unschedulable)
	still := until(t, c, "before", "running", running)
	if still.UID != before.UID || still.Annotations[topology.AllocationAnnotation] != before.Annotations[topology.AllocationAnnotation] {
		t.Errorf("held %s, now %s", before.Annotations[topology.AllocationAnnotation], still.Annotations[topology.AllocationAnnotation])
	}
}
