// Package deploy_test holds the manifests to what Kubernetes and the binaries
// understand.
package deploy_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
	schedulerv1 "k8s.io/kube-scheduler/config/v1"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"github.com/numalane/numalane/internal/devinfo"
	"github.com/numalane/numalane/pkg/allocator"
)

// strictly decodes one YAML document: duplicate and unknown keys are errors,
// and keys are case-sensitive.
func strictly(t *testing.T, doc []byte, into any) {
	t.Helper()
	j, err := yaml.YAMLToJSONStrict(doc)
	if err != nil {
		t.Fatal(err)
	}
	wrong, err := kjson.UnmarshalStrict(j, into)
	if err = errors.Join(append(wrong, err)...); err != nil {
		t.Error(err)
	}
}

func documents(t *testing.T, file string) [][]byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out [][]byte
	r := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	for {
		doc, err := r.Read()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(bytes.TrimSpace(doc)) > 0 {
			out = append(out, doc)
		}
	}
}

// object decodes a document into the type of its kind.
func object(t *testing.T, doc []byte) runtime.Object {
	t.Helper()
	var head struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
	}
	if err := yaml.Unmarshal(doc, &head); err != nil {
		t.Fatal(err)
	}
	obj, err := known.New(schema.FromAPIVersionAndKind(head.APIVersion, head.Kind))
	if err != nil {
		t.Fatal(err)
	}
	strictly(t, doc, obj)
	return obj
}

// known are the kinds that manifests may hold.
var known = func() *runtime.Scheme {
	s := runtime.NewScheme()
	if err := errors.Join(scheme.AddToScheme(s), schedulerv1.AddToScheme(s)); err != nil {
		panic(err)
	}
	return s
}()

// kustomization is the part of kustomize's format that is used.
type kustomization struct {
	APIVersion         string   `json:"apiVersion"`
	Kind               string   `json:"kind"`
	Resources          []string `json:"resources"`
	ConfigMapGenerator []struct {
		Name      string   `json:"name"`
		Namespace string   `json:"namespace"`
		Files     []string `json:"files"`
	} `json:"configMapGenerator"`
}

func one[T runtime.Object](t *testing.T, file string) T {
	t.Helper()
	for _, doc := range documents(t, file) {
		if obj, ok := object(t, doc).(T); ok {
			return obj
		}
	}
	t.Fatalf("%s has no %T", file, *new(T))
	return *new(T)
}

func TestManifestsDecode(t *testing.T) {
	decoded := 0
	err := fs.WalkDir(os.DirFS("."), ".", func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || path.Ext(file) != ".yaml" {
			return err
		}
		t.Run(file, func(t *testing.T) {
			for _, doc := range documents(t, file) {
				if path.Base(file) == "kustomization.yaml" {
					strictly(t, doc, &kustomization{})
				} else {
					object(t, doc)
				}
				decoded++
			}
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if decoded < 10 {
		t.Errorf("%d documents decoded: where are the others?", decoded)
	}
}

// TestKustomization: every manifest is applied, or is an example, the other
// shape, or for clusters with Node Feature Discovery.
func TestKustomization(t *testing.T) {
	for dir, others := range map[string][]string{".": {"example-cnf.yaml", "service", "node-feature"}, "service": nil, "node-feature": nil} {
		var k kustomization
		strictly(t, documents(t, path.Join(dir, "kustomization.yaml"))[0], &k)
		listed := append(append([]string{"kustomization.yaml"}, others...), k.Resources...)
		for _, g := range k.ConfigMapGenerator {
			listed = append(listed, g.Files...)
		}
		for _, r := range listed {
			if _, err := os.Stat(path.Join(dir, r)); err != nil {
				t.Error(err)
			}
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if (e.IsDir() || path.Ext(e.Name()) == ".yaml") && !slices.Contains(listed, e.Name()) {
				t.Errorf("%s is in no list of %s/kustomization.yaml", e.Name(), dir)
			}
		}
	}
}

func TestPluginPod(t *testing.T) {
	ds := one[*appsv1.DaemonSet](t, "daemonset.yaml")
	pod := &ds.Spec.Template.Spec
	c := container(t, pod, "numalane-plugin")
	restricted(t, c)
	if !pod.HostNetwork {
		t.Error("no hostNetwork: netlink would show the pod's interfaces")
	}
	mounts := map[string]bool{} // writable
	for _, m := range c.VolumeMounts {
		mounts[m.MountPath] = !m.ReadOnly
	}
	want := map[string]bool{"/var/lib/kubelet": true, "/sys": false, "/etc/pcidp": false, devinfo.DefaultDir: true}
	if d := cmp.Diff(want, mounts); d != "" {
		t.Errorf("mounts, and whether they are writable, -want +got:\n%s", d)
	}
	if len(c.Ports) != 1 {
		t.Fatalf("%d ports, want that of --listen", len(c.Ports))
	}
	// The port is in five places: a surge moves it in all.
	port := c.Ports[0]
	listen := fmt.Sprintf("--listen=%s:%d", port.HostIP, port.ContainerPort)
	live, ready := c.LivenessProbe.HTTPGet, c.ReadinessProbe.HTTPGet
	if !slices.Contains(c.Args, listen) || port.HostPort != port.ContainerPort || live.Port.IntVal != port.HostPort || ready.Port.IntVal != port.HostPort {
		t.Errorf("port %+v, probes at %s and %s, and args %v without %s", port, live.Port.String(), ready.Port.String(), c.Args, listen)
	}
	cm := one[*v1.ConfigMap](t, "configmap.yaml")
	if !slices.ContainsFunc(pod.Volumes, func(v v1.Volume) bool { return v.ConfigMap != nil && v.ConfigMap.Name == cm.Name }) {
		t.Errorf("ConfigMap %s is not mounted", cm.Name)
	}
	if !slices.Contains(c.Args, "--config-file=/etc/pcidp/config.json") || cm.Data["config.json"] == "" {
		t.Error("the plugin does not read config.json of the ConfigMap")
	}
}

// TestExample: the workload asks for what a NUMA node must give, of a pool
// that the ConfigMap makes, and of our scheduler.
func TestExample(t *testing.T) {
	d := one[*appsv1.Deployment](t, "example-cnf.yaml")
	pod := &v1.Pod{Spec: d.Spec.Template.Spec}
	if pod.Spec.SchedulerName != "numalane" {
		t.Errorf("schedulerName is %q", pod.Spec.SchedulerName)
	}
	if !allocator.NewRequest(pod).Exclusive() {
		t.Error("the example asks for nothing exclusive")
	}
	config := one[*v1.ConfigMap](t, "configmap.yaml").Data["config.json"]
	for _, c := range pod.Spec.Containers {
		if d := cmp.Diff(c.Resources.Requests, c.Resources.Limits); d != "" {
			t.Errorf("requests and limits differ, so the pod is not Guaranteed:\n%s", d)
		}
		for name := range c.Resources.Limits {
			if pool, ours := strings.CutPrefix(string(name), "numalane.io/"); ours && !strings.Contains(config, `"`+pool+`"`) {
				t.Errorf("no pool %s in configmap.yaml", pool)
			}
		}
	}
}

func container(t *testing.T, pod *v1.PodSpec, name string) *v1.Container {
	t.Helper()
	for i := range pod.Containers {
		if pod.Containers[i].Name == name {
			return &pod.Containers[i]
		}
	}
	t.Fatalf("no container %s", name)
	return nil
}

func restricted(t *testing.T, c *v1.Container) {
	t.Helper()
	s := c.SecurityContext
	switch {
	case s == nil:
		t.Errorf("%s has no securityContext", c.Name)
	case s.Privileged != nil && *s.Privileged,
		s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation,
		s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem,
		s.Capabilities == nil || !slices.Contains(s.Capabilities.Drop, "ALL") || len(s.Capabilities.Add) > 0:
		t.Errorf("%s may do more than it needs: %+v", c.Name, s)
	}
}
