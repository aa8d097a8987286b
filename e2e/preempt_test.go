package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/numalane/numalane/e2e/cluster"
	"github.com/numalane/numalane/internal/sysfstest"
	"github.com/numalane/numalane/pkg/topology"
)

// bare brings up a control plane and nothing of ours.
func bare(t *testing.T, o cluster.Options) *cluster.Cluster {
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
	return c
}

// preemption is a cluster of one node with two VFs on each of two NUMA nodes.
type preemption struct {
	*cluster.Cluster
	t        *testing.T
	extender string
}

// TestPreempt: kube-scheduler chooses victims by totals. Where they help they
// go; where others would, those go instead; and where none would, nobody does.
func TestPreempt(t *testing.T) {
	c := bare(t, cluster.Options{})
	_, addr, err := c.StartExtender(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.StartScheduler(t.Context(), "scheduler", filepath.Join("..", "deploy", "scheduler-config.yaml"), addr); err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]int32{"low": 10, "middle": 100, "high": 1000, "highest": 2000} {
		pc := &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Value: value}
		if _, err := c.Client.SchedulingV1().PriorityClasses().Create(t.Context(), pc, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	node(t, c, "n1", sysfstest.Uniform(2, 4, 1, sysfstest.X710("0000:3b:00.0", 0, 2), sysfstest.X710("0000:af:00.0", 1, 2)), 4)
	p := &preemption{c, t, addr}

	// Two VFs each: whoever goes leaves both of one NUMA node.
	p.place("kept", []string{"low", "middle"}, 2)
	p.important("kept-high")
	until(t, c, "kept-high", "running", running)
	p.gone("kept-0")
	p.untouched("kept-1")
	p.counted("kept", 1)
	p.clear()

	// One VF each. By totals the two of low priority are to go, one of each
	// NUMA node, and the kubelet would refuse the pod all the same. One of them
	// and its neighbour do.
	p.place("changed", []string{"low", "middle", "low", "middle"}, 1)
	p.important("changed-high")
	until(t, c, "changed-high", "running", running)
	p.counted("changed", 1)
	p.gone("changed-2")
	p.gone("changed-3")
	p.untouched("changed-0", "changed-1")
	p.clear()

	// Again, but the neighbours are too important.
	p.place("dropped", []string{"low", "highest", "low", "highest"}, 1)
	p.important("dropped-high")
	until(t, c, "dropped-high", "unschedulable", unschedulable)
	p.counted("dropped", 1)
	p.untouched("dropped-0", "dropped-1", "dropped-2", "dropped-3")
}

// place runs pods of these priorities, one after the other: the kubelet fills
// NUMA node 0 first. Each is a second younger than the one before, for the API has
// whole seconds and of two of one age chance says which is to go.
func (p *preemption) place(prefix string, classes []string, vfs int64) {
	p.t.Helper()
	for i, class := range classes {
		name := fmt.Sprintf("%s-%d", prefix, i)
		one := pod(name, 1, vfs)
		grace := int64(1)
		one.Spec.PriorityClassName, one.Spec.TerminationGracePeriodSeconds = class, &grace
		create(p.t, p.Cluster, one)
		got := until(p.t, p.Cluster, name, "running and acknowledged", func(p *corev1.Pod) bool { return running(p) && acknowledged(p) })
		a, err := topology.Decode[topology.Allocation](got.Annotations[topology.AllocationAnnotation])
		if err != nil {
			p.t.Fatal(err)
		}
		if numa, want := a.Containers[0].Devices[0].NUMANodes[0], i*2/len(classes); numa != want {
			p.t.Fatalf("%s is on NUMA node %d, the test wants it on %d", name, numa, want)
		}
		if err := cluster.Wait(p.t.Context(), 10*time.Second, "another second", func(context.Context) error {
			if time.Now().Unix() <= got.CreationTimestamp.Unix() {
				return fmt.Errorf("it is still that of %s", name)
			}
			return nil
		}); err != nil {
			p.t.Fatal(err)
		}
	}
}

// important asks for two VFs of one NUMA node.
func (p *preemption) important(name string) {
	p.t.Helper()
	one := pod(name, 1, 2)
	one.Spec.PriorityClassName = "high"
	create(p.t, p.Cluster, one)
}

func (p *preemption) gone(name string) {
	p.t.Helper()
	if err := cluster.Wait(p.t.Context(), 30*time.Second, "pod "+name+" to go", func(ctx context.Context) error {
		_, err := p.Client.CoreV1().Pods("default").Get(ctx, name, metav1.GetOptions{})
		if err == nil {
			return fmt.Errorf("it is there")
		}
		return nil
	}); err != nil {
		p.t.Error(err)
	}
}

func (p *preemption) untouched(names ...string) {
	p.t.Helper()
	for _, name := range names {
		got, err := p.Client.CoreV1().Pods("default").Get(p.t.Context(), name, metav1.GetOptions{})
		switch {
		case err != nil:
			p.t.Errorf("pod %s: %v", name, err)
		case got.DeletionTimestamp != nil || !running(got):
			p.t.Errorf("pod %s is %s, to be deleted at %v: want it to run on", name, got.Status.Phase, got.DeletionTimestamp)
		}
	}
}

// counted waits until the extender has so often decided this.
func (p *preemption) counted(outcome string, least float64) {
	p.t.Helper()
	if err := cluster.Wait(p.t.Context(), 30*time.Second, "a candidate to be "+outcome, func(ctx context.Context) error {
		got, err := metric(ctx, p.extender, fmt.Sprintf("numalane_extender_preemption_candidates_total{victims=%q}", outcome))
		if err == nil && got < least {
			err = fmt.Errorf("%v were", got)
		}
		return err
	}); err != nil {
		p.t.Error(err)
	}
}

// clear removes all pods.
func (p *preemption) clear() {
	p.t.Helper()
	none := int64(0)
	pods := p.Client.CoreV1().Pods("default")
	list, err := pods.List(p.t.Context(), metav1.ListOptions{})
	if err != nil {
		p.t.Fatal(err)
	}
	if err := pods.DeleteCollection(p.t.Context(), metav1.DeleteOptions{GracePeriodSeconds: &none}, metav1.ListOptions{}); err != nil {
		p.t.Fatal(err)
	}
	for i := range list.Items {
		p.gone(list.Items[i].Name)
	}
}

// metric is the value of one series that a daemon exports.
func metric(ctx context.Context, addr, series string) (float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, series+" "); ok {
			var v float64
			_, err := fmt.Sscan(rest, &v)
			return v, err
		}
	}
	return 0, fmt.Errorf("%s exports no %s", addr, series)
}
