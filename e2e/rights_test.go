package e2e

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/numalane/numalane/e2e/cluster"
	"github.com/numalane/numalane/internal/publish/nodefeature"
	"github.com/numalane/numalane/internal/sysfstest"
	"github.com/numalane/numalane/pkg/topology"
)

// TestRights applies deploy/ as a user would, and gives the plugin the token
// of its own pod: it can publish its node and acknowledge its pods, and nothing
// beyond; and nobody else can say what a pod holds.
func TestRights(t *testing.T) {
	c := start(t, cluster.Options{Authorization: "RBAC"})
	if err := c.Kubectl(t.Context(), "apply", "-k", filepath.Join("..", "deploy")); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"apply", "-f", filepath.Join("testdata", "node-feature-discovery", "nodefeature-crd.yaml")},
		{"wait", "--for=condition=Established", "crd/nodefeatures.nfd.k8s-sigs.io"},
		{"apply", "-k", filepath.Join("..", "deploy", "node-feature")},
	} {
		if err := c.Kubectl(t.Context(), args...); err != nil {
			t.Fatal(err)
		}
	}
	// The cluster's own scheduler places the DaemonSet's pods.
	if _, err := c.StartScheduler(t.Context(), "default-scheduler", "", ""); err != nil {
		t.Fatal(err)
	}
	n, err := c.StartNode(t.Context(), cluster.NodeSpec{Name: "n1", Machine: sysfstest.Uniform(2, 4, 1, sysfstest.X710("0000:3b:00.0", 0, 2))})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	other := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "other"}}
	if _, err := c.Client.CoreV1().Nodes().Create(t.Context(), other, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	token := pluginToken(t, c, n.Name)
	kubeconfig := filepath.Join(n.Dir, "plugin.kubeconfig")
	if err := c.WriteKubeconfig(kubeconfig, c.Config.Host, token); err != nil {
		t.Fatal(err)
	}
	startPlugin(t, n, "--kubeconfig", kubeconfig, "--node-feature-namespace", "numalane")
	published(t, c, n.Name)
	describesNode(t, c, n.Name)
	create(t, c, pod("p", 1, 1))
	until(t, c, "p", "running and acknowledged", func(p *corev1.Pod) bool { return running(p) && acknowledged(p) })

	config := rest.CopyConfig(c.Config)
	config.BearerToken = token
	plugin, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	annotate := func(key, value string) string { return fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, key, value) }
	patchNode := func(name, patch string) error {
		_, err := plugin.CoreV1().Nodes().Patch(t.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
		return err
	}
	patchPod := func(by kubernetes.Interface, patch string) error {
		_, err := by.CoreV1().Pods("default").Patch(t.Context(), "p", types.MergePatchType, []byte(patch), metav1.PatchOptions{})
		return err
	}
	features := dynamic.NewForConfigOrDie(config).Resource(nodefeature.Resource).Namespace("numalane")
	applyFeature := func(name, node, spec string) error {
		force := true
		_, err := features.Patch(t.Context(), name, types.ApplyPatchType, fmt.Appendf(nil,
			`{"apiVersion":"nfd.k8s-sigs.io/v1alpha1","kind":"NodeFeature","metadata":{"name":%q,"labels":{"nfd.node.kubernetes.io/node-name":%q}},"spec":%s}`, name, node, spec),
			metav1.PatchOptions{FieldManager: "test", Force: &force})
		return err
	}
	forged := pod("forged", 1, 1)
	forged.Annotations = map[string]string{topology.AllocationAnnotation: "{}"}
	_, forgedErr := c.Client.CoreV1().Pods("default").Create(t.Context(), forged, metav1.CreateOptions{})
	tests := []struct {
		name string
		err  error
		want string // part of the denial; empty: it is allowed
	}{
		{"its own node", patchNode("n1", annotate(topology.PoolsAnnotation, "x")), ""},
		{"another node", patchNode("other", annotate(topology.PoolsAnnotation, "x")), "the Node that it runs on only"},
		{"another annotation", patchNode("n1", annotate("example.com/mine", "x")), "may write the annotations numalane.io/topology"},
		{"a node label", patchNode("n1", `{"metadata":{"labels":{"node-role.kubernetes.io/control-plane":""}}}`), "may write the labels"},
		{"a taint", patchNode("n1", `{"spec":{"unschedulable":true}}`), "annotations and labels only"},
		{"a pod's label", patchPod(plugin, `{"metadata":{"labels":{"app":"mine"}}}`), "annotations only"},
		{"a pod's other annotation", patchPod(plugin, annotate("example.com/mine", "x")), "numalane.io/allocation only"},
		{"an administrator who says what a pod holds", patchPod(c.Client, annotate(topology.AllocationAnnotation, "{}")), "written by the pod's node alone"},
		{"its node's NodeFeature", applyFeature("numalane-n1", "n1", `{"features":{}}`), ""},
		{"another node's NodeFeature", applyFeature("numalane-other", "other", `{"features":{}}`), "the NodeFeature of the Node that it runs on only"},
		{"its own NodeFeature, for another node", applyFeature("numalane-n1", "other", `{"features":{}}`), "the NodeFeature of the Node that it runs on only"},
		{"labels by a NodeFeature", applyFeature("numalane-n1", "n1", `{"labels":{"example.com/mine":"x"}}`), "no labels in a NodeFeature"},
		{"a pod that is born with it", forgedErr, "written by the pod's node alone"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			switch {
			case tt.want == "" && tt.err != nil:
				t.Error(tt.err)
			case tt.want != "" && (tt.err == nil || !strings.Contains(tt.err.Error(), tt.want)):
				t.Errorf("got %v, want a denial that says %q", tt.err, tt.want)
			}
		})
	}
}

// describesNode waits for the NodeFeature of a node with two VFs.
func describesNode(t *testing.T, c *cluster.Cluster, node string) {
	t.Helper()
	features := dynamic.NewForConfigOrDie(c.Config).Resource(nodefeature.Resource).Namespace("numalane")
	if err := cluster.Wait(t.Context(), time.Minute, "the NodeFeature of "+node, func(ctx context.Context) error {
		o, err := features.Get(ctx, nodefeature.Name(node), metav1.GetOptions{})
		if err != nil {
			return err
		}
		instances, _, err := unstructured.NestedSlice(o.Object, "spec", "features", "instances", nodefeature.Feature, "elements")
		if err != nil {
			return err
		}
		want := []any{map[string]any{"attributes": map[string]any{
			"resource": string(vf), "numaNode": "0", "pf": "0000:3b:00.0", "pfName": "enp59s0f0", "speed": "10000", "link": "up", "total": "2", "healthy": "2",
		}}}
		if d := cmp.Diff(want, instances); d != "" {
			return fmt.Errorf("pools (-want +got):\n%s", d)
		}
		if refs := o.GetOwnerReferences(); len(refs) != 1 || refs[0].Kind != "Node" || refs[0].Name != node {
			return fmt.Errorf("owned by %v, want the Node", refs)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// pluginToken is a token of the pod that the DaemonSet has on a node, as the
// kubelet would give it to the pod.
func pluginToken(t *testing.T, c *cluster.Cluster, node string) string {
	t.Helper()
	var token string
	if err := cluster.Wait(t.Context(), time.Minute, "the DaemonSet's pod on "+node, func(ctx context.Context) error {
		list, err := c.Client.CoreV1().Pods("numalane").List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + node})
		if err != nil {
			return err
		}
		for _, p := range list.Items {
			if p.Spec.ServiceAccountName != "numalane-plugin" {
				continue
			}
			r, err := c.Client.CoreV1().ServiceAccounts(p.Namespace).CreateToken(ctx, p.Spec.ServiceAccountName, &authenticationv1.TokenRequest{
				Spec: authenticationv1.TokenRequestSpec{BoundObjectRef: &authenticationv1.BoundObjectReference{
					APIVersion: "v1", Kind: "Pod", Name: p.Name, UID: p.UID,
				}},
			}, metav1.CreateOptions{})
			if err != nil {
				return err
			}
			token = r.Status.Token
			return nil
		}
		return errors.New("it is not there")
	}); err != nil {
		t.Fatal(err)
	}
	return token
}
