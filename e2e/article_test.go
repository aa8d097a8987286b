package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/numalane/numalane/e2e/cluster"
	"github.com/numalane/numalane/internal/sysfstest"
)

// image is the one word of the article's manifests that a user changes.
const image = "ghcr.io/numalane/numalane-plugin:v0.1.0"

const (
	intelVFs  corev1.ResourceName = "intel.com/intel_sriov_netdevice"
	amazonENA corev1.ResourceName = "intel.com/amazon_ena"
)

// article is a node on which the article's DaemonSet runs.
type article struct {
	*cluster.Cluster
	node    *cluster.Node
	network *network // the node's
}

// TestArticle applies the article's manifests as they are but for the image,
// and runs the plugin as the container that the kubelet made of the DaemonSet's
// pod: its arguments, its variables and its mounts, and nothing else. The node
// has cards as of the article, and one of its two ENA devices is the way out.
func TestArticle(t *testing.T) {
	a := article{Cluster: control(t)}
	if _, err := a.StartScheduler(t.Context(), "default-scheduler", "", ""); err != nil {
		t.Fatal(err)
	}
	x710 := sysfstest.X710("0000:3b:00.0", 0, 2)
	x710.VFDriver = "i40evf" // as iavf was called then
	uplink, ena := sysfstest.ENA("0000:00:05.0", 0), sysfstest.ENA("0000:00:06.0", 1)
	uplink.Netdev, ena.Netdev = "eth0", "eth1"
	var err error
	if a.node, err = a.StartNode(t.Context(), cluster.NodeSpec{
		Name: "n1", Machine: sysfstest.Uniform(2, 4, 1, x710, sysfstest.Intel82599("0000:5e:00.0", 1, 1), uplink, ena),
	}); err != nil {
		t.Fatal(err)
	}
	a.network = newNetwork(t)
	a.network.have(t, a.node.Sysfs())
	a.network.routeBy(t, "eth0")
	if err := a.node.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"apply", "-f", filepath.Join("testdata", "multus", "network-attachment-definition-crd.yaml")},
		{"wait", "--for=condition=Established", "crd/" + attachmentDefinitions.Resource + "." + attachmentDefinitions.Group},
		{"apply", "-f", filepath.Join("testdata", "article", "serviceaccount.yaml")},
	} {
		if err := a.Kubectl(t.Context(), args...); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("Intel", func(t *testing.T) {
		a.dropIn(t, "configmap-intel.yaml", intelVFs, 3, "0000:3b:02.0", "0000:3b:02.1", "0000:5e:10.0")
	})
	t.Run("Amazon", func(t *testing.T) {
		a.dropIn(t, "configmap-aws.yaml", amazonENA, 1, "0000:00:06.0")
	})
}

// dropIn is what the article's reader does, with one of its ConfigMaps.
func (a *article) dropIn(t *testing.T, configMap string, resource corev1.ResourceName, count int64, devices ...string) {
	if err := a.Kubectl(t.Context(), "apply", "-f", filepath.Join("testdata", "article", configMap)); err != nil {
		t.Fatal(err)
	}
	log := a.runDaemonSet(t)
	if err := a.node.Allocatable(t.Context(), resource, count); err != nil {
		t.Fatalf("%v\nthe plugin's log:\n%s", err, log())
	}
	a.applyWorkload(t, resource)
	p := a.running(t, "hpsample", "name=hp-deployment")
	held, err := devicesOf(t.Context(), a.node, p.Namespace, p.Name)
	if err != nil {
		t.Fatal(err)
	}
	ids := held.of(string(resource))
	if len(ids) != 1 || !slices.Contains(devices, ids[0]) {
		t.Errorf("the workload holds %v, want one of %v", ids, devices)
	}
	container, err := a.node.Container(t.Context(), p, "hpcontainer")
	if err != nil {
		t.Fatal(err)
	}
	key := "PCIDEVICE_" + strings.ToUpper(strings.NewReplacer(".", "_", "/", "_").Replace(string(resource)))
	got := ""
	for _, env := range container.GetEnvs() {
		if env.GetKey() == key {
			got = string(env.GetValue())
		}
	}
	if got != strings.Join(ids, ",") {
		t.Errorf("%s is %q in the container, the kubelet says %v", key, got, ids)
	}
	if said := "--node-name is not given: nothing is published"; !strings.Contains(log(), said) {
		t.Errorf("the log does not say %q:\n%s", said, log())
	}
	node, err := a.Client.CoreV1().Nodes().Get(t.Context(), a.node.Name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for key := range node.Annotations {
		if strings.HasPrefix(key, "numalane.io/") {
			t.Errorf("annotation %s was published by a plugin that is not told its node", key)
		}
	}
}

// runDaemonSet applies the DaemonSet and runs the container of its pod on the
// node until the test ends. It returns what the log file holds that the
// DaemonSet's arguments and mounts put on the node.
func (a *article) runDaemonSet(t *testing.T) (log func() string) {
	t.Helper()
	ds := manifest[appsv1.DaemonSet](t, "daemonset.yaml")
	ds.Spec.Template.Spec.Containers[0].Image = image
	if _, err := a.Client.AppsV1().DaemonSets(ds.Namespace).Create(t.Context(), ds, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	p := a.running(t, ds.Namespace, "name=sriov-device-plugin")
	container, err := a.node.Container(t.Context(), p, "kube-sriovdp")
	if err != nil {
		t.Fatal(err)
	}
	if got := container.GetImage().GetUserSpecifiedImage(); got != image || len(container.GetCommand()) > 0 {
		t.Fatalf("the container is of image %q with command %q", got, container.GetCommand())
	}
	// What the DaemonSet means by the host's folders is here the node's.
	logs := filepath.Join(a.node.Dir, "log")
	if err := os.MkdirAll(logs, 0o755); err != nil {
		t.Fatal(err)
	}
	host := map[string]string{"/var/lib/kubelet": a.node.KubeletDir(), "/var/log": logs}
	process, err := a.node.RunContainer("kube-sriovdp-"+string(p.UID), container, a.network.file(), host)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(logs, "sriovdp", "numalane-plugin.log")
	t.Cleanup(func() {
		process.Stop()
		ctx := context.WithoutCancel(t.Context())
		if err := errors.Join(os.Remove(file), a.Client.AppsV1().DaemonSets(ds.Namespace).Delete(ctx, ds.Name, metav1.DeleteOptions{})); err != nil {
			t.Error(err)
		}
		a.gone(ctx, t, ds.Namespace, "name=sriov-device-plugin")
	})
	return func() string {
		text, err := os.ReadFile(file)
		if err != nil {
			return fmt.Sprintf("%v; the process: %s", err, process.Tail())
		}
		return string(text)
	}
}

// applyWorkload applies the article's workload, which asks for an ENA device,
// and has it ask for another resource where that is another.
func (a *article) applyWorkload(t *testing.T, resource corev1.ResourceName) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "article", "workload.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "workload.yaml")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(string(text), string(amazonENA), string(resource))), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := a.Kubectl(t.Context(), "apply", "-f", file); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		none := int64(0)
		if err := a.Client.AppsV1().Deployments("hpsample").Delete(ctx, "hp-deployment-v1", metav1.DeleteOptions{GracePeriodSeconds: &none}); err != nil {
			t.Error(err)
		}
		a.gone(ctx, t, "hpsample", "name=hp-deployment")
	})
}

// manifest is one of the article's.
func manifest[T any](t *testing.T, name string) *T {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "article", name))
	if err != nil {
		t.Fatal(err)
	}
	object := new(T)
	if err := yaml.UnmarshalStrict(text, object); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return object
}

// running waits for the one pod with a label to run.
func (a *article) running(t *testing.T, namespace, label string) *corev1.Pod {
	t.Helper()
	var p *corev1.Pod
	if err := cluster.Wait(t.Context(), time.Minute, "a running pod with "+label, func(ctx context.Context) error {
		list, err := a.Client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: label})
		if err != nil {
			return err
		}
		if len(list.Items) != 1 {
			return fmt.Errorf("there are %d", len(list.Items))
		}
		if p = &list.Items[0]; !running(p) {
			return fmt.Errorf("it is %s on node %q: %s %v", p.Status.Phase, p.Spec.NodeName, p.Status.Message, p.Status.Conditions)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return p
}

// gone waits until there is no pod with a label.
func (a *article) gone(ctx context.Context, t *testing.T, namespace, label string) {
	t.Helper()
	if err := cluster.Wait(ctx, time.Minute, "no pod with "+label, func(ctx context.Context) error {
		list, err := a.Client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: label})
		if err != nil {
			return err
		}
		var left []types.UID
		for i := range list.Items {
			left = append(left, list.Items[i].UID)
		}
		if len(left) > 0 {
			return fmt.Errorf("there are %v", left)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}
