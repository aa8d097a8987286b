package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
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

// twoPFs has 16 VFs on each of two NUMA nodes, and CPUs for all of them.
var twoPFs = sysfstest.Uniform(2, 40, 1, sysfstest.X710("0000:3b:00.0", 0, 16), sysfstest.X710("0000:af:00.0", 1, 16))

// alone brings up a control plane without a scheduler, a node and its plugin.
func alone(t *testing.T, m sysfstest.Machine, vfs int64) (*cluster.Cluster, *cluster.Node, *cluster.Process) {
	t.Helper()
	c := control(t)
	n := node(t, c, "n1", m, vfs)
	published(t, c, n.Name)
	processes := c.Processes()
	return c, n, processes[len(processes)-1]
}

// TestPluginKilled kills the plugin at moments that a seed chooses, while pods
// come and go: in an admission, before it has published, while it registers. A
// pod that arrives while there is no plugin is refused, which no scheduler can
// prevent; no VF is ever held twice or lost, and what the API says is right
// soon after the last start.
func TestPluginKilled(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	upTo := func(ms int) time.Duration { return time.Duration(r.IntN(ms*1000)) * time.Microsecond }
	c, n, p := alone(t, twoPFs, 32)
	const kills, each = 8, 4
	var live []string
	lost := map[string]int{}
	for kill := range kills {
		var arriving sync.WaitGroup
		for i := range each {
			name, after := fmt.Sprintf("p-%d-%d", kill, i), upTo(150)
			live = append(live, name)
			arriving.Go(func() {
				<-time.After(after)
				bindTo(t, c, n, pod(name, 1, 1))
			})
		}
		<-time.After(upTo(200))
		p.Kill()
		<-time.After(upTo(100))
		restart(t, p)
		if kill%2 == 1 { // again, while it registers
			<-time.After(upTo(200))
			p.Kill()
			restart(t, p)
		}
		arriving.Wait()
		// Every pod has its answer before half of them end.
		var stay []string
		for _, name := range live {
			p := answered(t, c, name)
			why := refused(p)
			if why != "" {
				lost[strings.ReplaceAll(why, name, "POD")]++
			}
			if why != "" || len(stay) >= 2*each {
				remove(t, c, name)
			} else {
				stay = append(stay, name)
			}
		}
		live = stay
		if _, err := ofKubelet(t.Context(), n); err != nil {
			t.Error(err)
		}
	}
	held, took := truth(t, c, n, 32)
	t.Logf("right %s after the last pod; %d pods hold VFs; refused while the plugin was killed: %v", took.Round(time.Millisecond), len(held), lost)
	// All that is left can be given.
	for i := range 32 - len(held) {
		bindTo(t, c, n, pod(fmt.Sprintf("rest-%02d", i), 1, 1))
	}
	if err := cluster.Wait(t.Context(), time.Minute, "every VF to be held", func(ctx context.Context) error {
		held, err := told(ctx, c, n, 32)
		if err == nil && len(held) != 32 {
			err = fmt.Errorf("%d pods hold VFs", len(held))
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

func restart(t *testing.T, p *cluster.Process) {
	t.Helper()
	if err := p.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// answered waits until the kubelet has taken a pod or refused it.
func answered(t *testing.T, c *cluster.Cluster, name string) (p *corev1.Pod) {
	t.Helper()
	if err := cluster.Wait(t.Context(), time.Minute, "the kubelet's answer to "+name, func(ctx context.Context) error {
		var err error
		if p, err = c.Client.CoreV1().Pods("default").Get(ctx, name, metav1.GetOptions{}); err != nil {
			return err
		}
		if !running(p) && !ended(p) {
			return fmt.Errorf("it is %s", p.Status.Phase)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return p
}

// TestAPIAway has the API stand still, with its connections open, and then
// killed, while VFs go and the kubelet admits a static pod, which needs no API.
// All of it is published within seconds of the API's return.
func TestAPIAway(t *testing.T) {
	const pf = "0000:af:00.0" // on NUMA node 1; the kubelet begins with node 0
	m := sysfstest.Uniform(2, 8, 1, sysfstest.X710("0000:3b:00.0", 0, 4), sysfstest.X710(pf, 1, 4))
	c := control(t)
	n, err := c.StartNode(t.Context(), cluster.NodeSpec{Name: "n1", Machine: m, Kubelet: func(k *kubeletconfig.KubeletConfiguration) {
		k.SyncFrequency = metav1.Duration{Duration: time.Second} // how often it tries to tell the API of a static pod
	}})
	if err != nil {
		t.Fatal(err)
	}
	startPlugin(t, n)
	if err := errors.Join(n.Ready(t.Context()), n.Allocatable(t.Context(), vf, 8)); err != nil {
		t.Fatal(err)
	}
	bindTo(t, c, n, pod("before", 1, 1))
	until(t, c, "before", "running and acknowledged", func(p *corev1.Pod) bool { return running(p) && acknowledged(p) })
	vfs := 8
	for _, away := range []struct {
		what       string
		begin, end func() error
	}{
		{"stands still", c.APIServer().Pause, c.APIServer().Resume},
		{"is killed", func() error { c.APIServer().Kill(); return nil }, func() error { return c.APIServer().Restart(t.Context()) }},
	} {
		if err := away.begin(); err != nil {
			t.Fatal(err)
		}
		<-time.After(2 * time.Second)
		if m, err = m.SetVFs(n.Sysfs(), pf, vfs-4-1); err != nil {
			t.Fatal(err)
		}
		vfs--
		static(t, n, fmt.Sprintf("static-%d", vfs))
		if err := cluster.Wait(t.Context(), 30*time.Second, "the kubelet to admit the static pod", func(ctx context.Context) error {
			held, err := ofKubelet(ctx, n)
			if err == nil && len(held) != 9-vfs {
				err = fmt.Errorf("it holds %v", held)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		<-time.After(7 * time.Second)
		if err := away.end(); err != nil {
			t.Fatal(err)
		}
		held, took := truth(t, c, n, vfs)
		t.Logf("the API %s for 10s; right %s after it was back: %v", away.what, took.Round(time.Millisecond), held)
		if took > 15*time.Second {
			t.Errorf("it took %s", took)
		}
	}
}

// static has the kubelet run a pod that is not of the API.
func static(t *testing.T, n *cluster.Node, name string) {
	t.Helper()
	p := pod(name, 1, 1)
	p.APIVersion, p.Kind = "v1", "Pod"
	b, err := yaml.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(n.Dir, "manifests", name+".yaml"), b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestReboot ends kubelet, runtime, containers and plugin at once, and starts
// them again: with the kubelet's state files, as after a reboot, and without
// them, as after a reinstallation. A kubelet that comes up admits its pods
// again, and refuses those that it looks at before the plugin has registered
// (kubernetes/kubernetes issue 118559): such a pod is replaced, as its
// controller would.
func TestReboot(t *testing.T) {
	c, n, p := alone(t, twoPFs, 32)
	const pods = 6
	var live []string
	given := 0
	give := func() {
		live = append(live, fmt.Sprintf("p-%02d", given))
		bindTo(t, c, n, pod(live[len(live)-1], 1, 1))
		given++
	}
	for range pods {
		give()
	}
	for _, boot := range []struct {
		what       string
		lose       []string // of the kubelet's files
		pluginLate bool
	}{
		{what: "the plugin first"},
		{what: "the kubelet first", pluginLate: true},
		{what: "reinstalled", lose: []string{
			filepath.Join(n.KubeletDir(), "cpu_manager_state"), filepath.Join(n.KubeletDir(), "memory_manager_state"),
			filepath.Join(n.DevicePluginDir(), "kubelet_internal_checkpoint"),
		}},
	} {
		truth(t, c, n, 32)
		n.Kubelet.Kill()
		p.Kill()
		n.Runtime.Kill()
		for _, file := range boot.lose {
			if err := os.RemoveAll(file); err != nil {
				t.Fatal(err)
			}
		}
		began := time.Now()
		restart(t, n.Runtime)
		if !boot.pluginLate {
			restart(t, p)
		}
		restart(t, n.Kubelet)
		if boot.pluginLate {
			if err := cluster.Wait(t.Context(), time.Minute, "the kubelet to refuse its pods", func(ctx context.Context) error {
				return allRefused(ctx, c, live)
			}); err != nil {
				t.Fatal(err)
			}
			restart(t, p)
		}
		before := given
		if err := cluster.Wait(t.Context(), time.Minute, "the pods or their replacements", func(ctx context.Context) error {
			for i := len(live) - 1; i >= 0; i-- {
				p, err := c.Client.CoreV1().Pods("default").Get(ctx, live[i], metav1.GetOptions{})
				if err != nil {
					return err
				}
				if refused(p) != "" {
					remove(t, c, p.Name)
					live = append(live[:i], live[i+1:]...)
					give()
				}
			}
			held, err := told(ctx, c, n, 32)
			if err == nil && len(held) != pods {
				err = fmt.Errorf("held are %v", held)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: right after %s, %d pods were replaced", boot.what, time.Since(began).Round(time.Millisecond), given-before)
	}
}

func allRefused(ctx context.Context, c *cluster.Cluster, names []string) error {
	for _, name := range names {
		p, err := c.Client.CoreV1().Pods("default").Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if refused(p) == "" {
			return fmt.Errorf("%s is %s", name, p.Status.Phase)
		}
	}
	return nil
}

// TestOneOfTwoPublishes: of two plugins on a node the younger one alone writes,
// and what it writes is what the older one wrote: nobody corrects anybody.
func TestOneOfTwoPublishes(t *testing.T) {
	c := control(t)
	older, younger := address(t), address(t)
	n := node(t, c, "n1", twoPFs, 32, "--listen", older)
	before := published(t, c, n.Name)
	bindTo(t, c, n, pod("before", 1, 1))
	until(t, c, "before", "acknowledged", acknowledged)
	plugin(t, n, younger)
	live(t, younger, 1)
	live(t, older, 0)
	was := writes(metricsOf(t, older))
	const each = 10
	for i := range each {
		bindTo(t, c, n, pod(fmt.Sprintf("p-%d", i), 1, 1))
	}
	held, _ := truth(t, c, n, 32)
	if len(held) != each+1 {
		t.Errorf("%d pods hold VFs", len(held))
	}
	if now := writes(metricsOf(t, older)); now != was {
		t.Errorf("the older plugin wrote while it stood by: %+v, before %+v", now, was)
	}
	if now := writes(metricsOf(t, younger)); now.pods != each || now.corrections != 0 {
		t.Errorf("the younger plugin wrote %+v, want %d pods", now, each)
	}
	if after := published(t, c, n.Name); after.Annotations[topology.TopologyAnnotation] != before.Annotations[topology.TopologyAnnotation] {
		t.Errorf("the older plugin published %s, the younger %s", before.Annotations[topology.TopologyAnnotation], after.Annotations[topology.TopologyAnnotation])
	}
}

// written is how many writes of each kind a plugin made.
type written struct{ nodes, pods, corrections int }

func writes(metrics string) (w written) {
	for line := range strings.Lines(metrics) {
		for prefix, n := range map[string]*int{
			`numalane_plugin_writes_total{object="node",result="written"`: &w.nodes,
			`numalane_plugin_writes_total{object="pod",result="written"`:  &w.pods,
			`numalane_plugin_corrections_total{`:                          &w.corrections,
		} {
			if !strings.HasPrefix(line, prefix) {
				continue
			}
			var add int
			if _, value, ok := strings.Cut(line, "} "); ok {
				fmt.Sscan(value, &add)
			}
			*n += add
		}
	}
	return w
}
