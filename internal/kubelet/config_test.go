package kubelet_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/numalane/numalane/internal/kubelet"
	"github.com/numalane/numalane/pkg/topology"
)

const configHead = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n"

func TestReadConfigFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	base := write("config.yaml", configHead+`cpuManagerPolicy: static
cpuManagerPolicyOptions: {full-pcpus-only: "true"}
topologyManagerPolicy: restricted
featureGates: {PodLevelResourceManagers: true, Foo: true}
staticPodPath: /etc/kubernetes/manifests
`)
	write("conf.d/10-a.conf", configHead+`topologyManagerPolicy: best-effort
topologyManagerPolicyOptions: {prefer-closest-numa-nodes: "true"}
featureGates: {Foo: null, Bar: false}
`)
	write("conf.d/20/b.conf", configHead+"topologyManagerPolicy: single-numa-node\ntopologyManagerScope: pod\n")
	write("conf.d/30-c.yaml", configHead+"topologyManagerPolicy: none\n") // not *.conf: the kubelet skips it
	drop := filepath.Join(dir, "conf.d")

	got, err := kubelet.ReadConfigFiles(base, drop)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(kubelet.Config{
		CPUManagerPolicy: "static", CPUManagerPolicyOptions: map[string]string{"full-pcpus-only": "true"},
		MemoryManagerPolicy: "None", TopologyManagerPolicy: "single-numa-node", TopologyManagerScope: "pod",
		TopologyManagerPolicyOptions: map[string]string{"prefer-closest-numa-nodes": "true"},
		FeatureGates:                 map[string]bool{"PodLevelResourceManagers": true, "Bar": false},
	}, got); d != "" {
		t.Error(d)
	}

	bad := write("conf.d/40-d.conf", "topologyManagerPolicy: none\n")
	if _, err := kubelet.ReadConfigFiles(base, drop); err == nil || !strings.Contains(err.Error(), bad) {
		t.Errorf("a drop-in without apiVersion: error %v, want one that names it", err)
	}
	if _, err := kubelet.ReadConfigFiles(filepath.Join(dir, "none.yaml"), ""); err == nil {
		t.Error("no error without a file")
	}
}

func TestFeatureGates(t *testing.T) {
	const dra, resize, podLevel = "DRAExtendedResource", "InPlacePodVerticalScalingExclusiveCPUs", "PodLevelResourceManagers"
	for _, c := range []struct {
		minor int
		set   map[string]bool
		want  []string
	}{
		{34, nil, nil},
		{35, nil, nil},
		{36, nil, []string{dra}},
		{37, nil, []string{dra}},
		{35, map[string]bool{podLevel: true}, nil}, // did not exist
		{36, map[string]bool{podLevel: true, dra: false}, []string{podLevel}},
		{37, map[string]bool{dra: false}, []string{dra}}, // locked
		{35, map[string]bool{"AllAlpha": true}, []string{dra, resize}},
		{36, map[string]bool{"AllAlpha": true, resize: false}, []string{dra, podLevel}},
		{36, map[string]bool{"AllBeta": false}, nil},
		{37, map[string]bool{"AllBeta": true}, []string{dra, podLevel}},
	} {
		if d := cmp.Diff(c.want, kubelet.Config{FeatureGates: c.set}.Kubelet(c.minor).FeatureGates); d != "" {
			t.Errorf("1.%d with %v: %s", c.minor, c.set, d)
		}
	}
}

func TestParseMinor(t *testing.T) {
	for version, want := range map[string]int{"v1.37.2": 37, "v1.34.0-gke.100": 34, "v1.36": 36} {
		if got, err := kubelet.ParseMinor(version); err != nil || got != want {
			t.Errorf("%s: %d, %v", version, got, err)
		}
	}
	for _, version := range []string{"", "1.37.2", "v2.1.0", "v1.x.2", "v1.-3.0"} {
		if got, err := kubelet.ParseMinor(version); err == nil {
			t.Errorf("%q: %d and no error", version, got)
		}
	}
}

// configz is the kubelet's own server.
type configz struct {
	*httptest.Server
	status atomic.Int32
	config atomic.Pointer[map[string]any]
	asked  atomic.Int32
}

func newConfigz(t *testing.T) *configz {
	c := &configz{}
	c.status.Store(http.StatusOK)
	c.config.Store(&map[string]any{"cpuManagerPolicy": "static", "topologyManagerPolicy": "restricted", "unknownField": 1})
	c.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.asked.Add(1)
		if r.URL.Path != "/configz" || r.Header.Get("Authorization") != "Bearer secret" {
			t.Errorf("asked %s with authorization %q", r.URL, r.Header.Get("Authorization"))
		}
		w.WriteHeader(int(c.status.Load()))
		if err := json.NewEncoder(w).Encode(map[string]any{"kubeletconfig": *c.config.Load()}); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(c.Close)
	return c
}

func (c *configz) options(t *testing.T) func(*kubelet.Options) {
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return func(o *kubelet.Options) {
		o.ConfigzURL, o.HTTPClient, o.TokenFile = c.URL+"/", c.Client(), token
	}
}

func TestConfigFromConfigz(t *testing.T) {
	c := newConfigz(t)
	n := newNode(t, "v1.37", c.options(t))
	for range 3 {
		if p := n.read(t, input()).Topology.Kubelet.TopologyPolicy; p != topology.PolicyRestricted {
			t.Errorf("policy %s, want that of configz", p)
		}
	}
	if got := c.asked.Load(); got != 1 {
		t.Errorf("configz was asked %d times between two restarts of the kubelet", got)
	}
}

func TestConfigRefusedFallsToTheFile(t *testing.T) {
	for _, status := range []int32{http.StatusForbidden, http.StatusUnauthorized, http.StatusNotFound, http.StatusInternalServerError} {
		c := newConfigz(t)
		c.status.Store(status)
		n := newNode(t, "v1.37", c.options(t))
		if p := n.read(t, input()).Topology.Kubelet.TopologyPolicy; p != topology.PolicySingleNUMANode {
			t.Errorf("%d: policy %s, want that of config.yaml", status, p)
		}
	}
}

func TestConfigMissing(t *testing.T) {
	n := newNode(t, "v1.37", func(o *kubelet.Options) { o.ConfigFile = "/nonexistent/config.yaml" })
	_, err := n.reader.Read(t.Context(), input())
	if err == nil || !strings.Contains(err.Error(), "/nonexistent/config.yaml") {
		t.Errorf("error %v, want one that names the file", err)
	}
}

func TestParseConfigz(t *testing.T) {
	if _, err := kubelet.ParseConfigz([]byte(`{"kube-scheduler":{}}`)); err == nil {
		t.Error("another component's configz is no error")
	}
	if _, err := kubelet.ParseConfigz([]byte(`<html>`)); err == nil {
		t.Error("no JSON is no error")
	}
}
