package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubeletconfig "k8s.io/kubelet/config/v1beta1"
	"sigs.k8s.io/yaml"

	"github.com/numalane/numalane/e2e/cluster"
	"github.com/numalane/numalane/internal/sysfstest"
	"github.com/numalane/numalane/pkg/topology"
)

// plugin starts one more plugin on a node, with metrics at the address.
func plugin(t *testing.T, n *cluster.Node, listen string) *cluster.Process {
	t.Helper()
	p, err := n.StartPlugin(filepath.Join(n.Dir, "pools.json"), "--listen", listen)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// live waits for a plugin to have its pool, or to stand by.
func live(t *testing.T, listen string, want int) {
	t.Helper()
	line := fmt.Sprintf(`numalane_plugin_pool_live{pool="numalane.io/vf"} %d`, want)
	if err := cluster.Wait(t.Context(), 30*time.Second, line, func(ctx context.Context) error {
		text, err := scrape(ctx, listen)
		if err == nil && !strings.Contains(text, line) {
			err = fmt.Errorf("it is not in the metrics")
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// TestSurgeUpgrade has two plugins on one real kubelet, three times, of which
// the older ends or is killed: no pod is refused and each is acknowledged, and
// no VF is lost or given twice. Should the younger one end, a kubelet that is
// just then calling it refuses that pod: it closes the connection before it
// falls back on the other (plugin/v1beta1 client.Disconnect).
func TestSurgeUpgrade(t *testing.T) {
	c := control(t)
	n, err := c.StartNode(t.Context(), cluster.NodeSpec{Name: "n1", Machine: sysfstest.Uniform(2, 40, 1, sysfstest.X710("0000:3b:00.0", 0, 32), sysfstest.X710("0000:af:00.0", 1, 32))})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(n.Dir, "pools.json"), []byte(pools), 0o644); err != nil {
		t.Fatal(err)
	}
	listen := address(t)
	older := plugin(t, n, listen)
	if err := n.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := n.Allocatable(t.Context(), vf, 64); err != nil {
		t.Fatal(err)
	}
	pods := 0
	give := func(many int) {
		for range many {
			bindTo(t, c, n, pod(fmt.Sprintf("p-%02d", pods), 1, 1))
			pods++
		}
	}
	for _, end := range []func(older, younger *cluster.Process) (stays *cluster.Process){
		func(older, younger *cluster.Process) *cluster.Process { older.Stop(); return younger },
		func(older, younger *cluster.Process) *cluster.Process { older.Kill(); return younger },
		func(older, younger *cluster.Process) *cluster.Process { older.Stop(); return younger },
	} {
		give(2)
		other := address(t)
		younger := plugin(t, n, other)
		give(2)
		live(t, other, 1)
		live(t, listen, 0)
		give(2)
		stays := end(older, younger)
		give(2)
		if stays == younger {
			listen = other
		}
		older = stays
		live(t, listen, 1)
		give(2)
	}
	holders := map[string]string{}
	for i := range pods {
		p := until(t, c, fmt.Sprintf("p-%02d", i), "acknowledged", func(p *corev1.Pod) bool {
			if p.Status.Phase == corev1.PodFailed {
				t.Fatalf("pod %s was refused: %s %s", p.Name, p.Status.Reason, p.Status.Message)
			}
			return acknowledged(p)
		})
		a, err := topology.Decode[topology.Allocation](p.Annotations[topology.AllocationAnnotation])
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range a.Containers[0].Devices {
			for _, id := range d.IDs {
				if other, taken := holders[id]; taken {
					t.Errorf("%s is held by %s and %s", id, other, p.Name)
				}
				holders[id] = p.Name
			}
		}
	}
	if len(holders) != pods {
		t.Errorf("%d pods hold %d VFs", pods, len(holders))
	}
	if err := n.Allocatable(t.Context(), vf, 64); err != nil {
		t.Error(err)
	}
}

// TestKubeletWithOtherPolicies: the annotation follows, and a pod that holds
// something is still told. Then the Node is deleted, and the plugin is killed:
// all is back at once, and only the kubelet makes a Node.
func TestKubeletWithOtherPolicies(t *testing.T) {
	c := control(t)
	n := node(t, c, "n1", sysfstest.Uniform(2, 4, 1, sysfstest.X710("0000:3b:00.0", 0, 2)), 2)
	published(t, c, n.Name)
	bindTo(t, c, n, pod("before", 1, 1))
	until(t, c, "before", "running and acknowledged", func(p *corev1.Pod) bool { return running(p) && acknowledged(p) })
	n.Kubelet.Kill()
	file := filepath.Join(n.Dir, "kubelet.yaml")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var config kubeletconfig.KubeletConfiguration
	if err := yaml.UnmarshalStrict(b, &config); err != nil {
		t.Fatal(err)
	}
	config.TopologyManagerPolicy, config.TopologyManagerScope = "restricted", "pod"
	if b, err = yaml.Marshal(config); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := n.StartKubelet(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	follows := func(ctx context.Context) error {
		live, err := c.Client.CoreV1().Nodes().Get(ctx, n.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		top, err := topology.Decode[topology.NodeTopology](live.Annotations[topology.TopologyAnnotation])
		if err != nil {
			return err
		}
		if k := top.Kubelet; k.TopologyPolicy != "restricted" || k.TopologyScope != "pod" || live.Labels[topology.PolicyLabel] != "restricted" {
			return fmt.Errorf("published %+v", k)
		}
		return nil
	}
	if err := cluster.Wait(t.Context(), time.Minute, "the annotation to follow the kubelet", follows); err != nil {
		t.Fatal(err)
	}
	t.Logf("the annotation follows %s after the kubelet's start", time.Since(began).Round(time.Millisecond))
	until(t, c, "before", "running and acknowledged", func(p *corev1.Pod) bool { return running(p) && acknowledged(p) })

	if err := c.Client.CoreV1().Nodes().Delete(t.Context(), n.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	n.Kubelet.Kill()
	if err := n.StartKubelet(); err != nil {
		t.Fatal(err)
	}
	began = time.Now()
	if err := cluster.Wait(t.Context(), time.Minute, "the new Node's annotations", follows); err != nil {
		t.Fatal(err)
	}
	t.Logf("the new Node has its annotations %s after the kubelet's start", time.Since(began).Round(time.Millisecond))
}
