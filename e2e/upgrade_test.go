package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
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

// TestSurgeUpgrade has two plugins on one real kubelet, of which one ends or is
// killed while pods arrive: no pod is refused and each is acknowledged, and no
// VF is lost or given twice. What no plugin can prevent is a refusal where the
// younger one, which the kubelet calls, is killed: the kubelet closes that
// connection before it falls back on the other (plugin/v1beta1
// client.Disconnect), and a pod that it admits in between is refused.
func TestSurgeUpgrade(t *testing.T) {
	c := control(t)
	n, err := c.StartNode(t.Context(), cluster.NodeSpec{Name: "n1", Machine: sysfstest.Uniform(2, 60, 1, sysfstest.X710("0000:3b:00.0", 0, 48), sysfstest.X710("0000:af:00.0", 1, 48))})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(n.Dir, "pools.json"), []byte(pools), 0o644); err != nil {
		t.Fatal(err)
	}
	listen := address(t)
	older := plugin(t, n, listen)
	if err := errors.Join(n.Ready(t.Context()), n.Allocatable(t.Context(), vf, 96)); err != nil {
		t.Fatal(err)
	}
	pods := 0
	give := func(many int) (names []string) {
		for range many {
			names = append(names, fmt.Sprintf("p-%02d", pods))
			bindTo(t, c, n, pod(names[len(names)-1], 1, 1))
			pods++
		}
		return names
	}
	lost := 0
	for _, round := range []struct {
		name         string
		end          func(older, younger *cluster.Process)
		youngerStays bool
		mayRefuse    bool
	}{
		{"the older ends", func(older, _ *cluster.Process) { older.Stop() }, true, false},
		{"the younger ends", func(_, younger *cluster.Process) { younger.Stop() }, false, false},
		{"the older is killed", func(older, _ *cluster.Process) { older.Kill() }, true, false},
		{"the younger is killed", func(_, younger *cluster.Process) { younger.Kill() }, false, true},
		{"the younger ends, once more", func(_, younger *cluster.Process) { younger.Stop() }, false, false},
		{"the older ends, once more", func(older, _ *cluster.Process) { older.Stop() }, true, false},
	} {
		names := give(2)
		other := address(t)
		younger := plugin(t, n, other)
		names = append(names, give(2)...)
		live(t, other, 1)
		live(t, listen, 0)
		var ending sync.WaitGroup
		ending.Go(func() {
			began := time.Now()
			round.end(older, younger)
			t.Logf("%s: within %s", round.name, time.Since(began).Round(time.Millisecond))
		})
		names = append(names, give(8)...)
		ending.Wait()
		names = append(names, give(2)...)
		if round.youngerStays {
			older, listen = younger, other
		}
		live(t, listen, 1)
		for _, name := range names {
			switch why := refused(answered(t, c, name)); {
			case why == "":
			case round.mayRefuse:
				t.Logf("%s: %s: %s", round.name, name, why)
				remove(t, c, name)
				lost++
			default:
				t.Errorf("%s: %s was refused: %s", round.name, name, why)
			}
		}
	}
	held, _ := truth(t, c, n, 96)
	if len(held) != pods-lost {
		t.Errorf("%d pods hold VFs, want %d", len(held), pods-lost)
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
