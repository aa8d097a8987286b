package cdi_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	oci "github.com/opencontainers/runtime-spec/specs-go"
	"tags.cncf.io/container-device-interface/pkg/cdi"

	own "github.com/numalane/numalane/internal/cdi"
	"github.com/numalane/numalane/internal/config"
	"github.com/numalane/numalane/internal/handout"
)

const resource = "intel.com/sriov-net"

var kind = own.Kind(resource, config.NetDevice)

// node is one that any machine can give a container.
func node(container string) []handout.Node {
	return []handout.Node{{Host: "/dev/null", Container: container}}
}

func none(string, string) bool { return false }

func holding(ids ...string) func(string, string) bool {
	return func(r, id string) bool { return r == resource && slices.Contains(ids, id) }
}

// sync brings the folder in line with a new Folder, as a plugin does that starts.
func sync(t *testing.T, dir string, held func(resource, id string) bool, pools ...own.Pool) {
	t.Helper()
	f := own.New(dir)
	if err := f.Want(pools, held); err != nil {
		t.Fatal(err)
	}
	if err := f.Write(); err != nil {
		t.Fatal(err)
	}
}

// inject is what a container runtime makes of names: the paths in the
// container, or an error.
func inject(t *testing.T, dir string, names ...string) ([]string, error) {
	t.Helper()
	runtime, err := cdi.NewCache(cdi.WithSpecDirs(dir), cdi.WithAutoRefresh(false))
	if err != nil {
		t.Fatal(err)
	}
	if errs := runtime.GetErrors(); len(errs) > 0 {
		t.Errorf("the runtime finds mistakes: %v", errs)
	}
	spec := &oci.Spec{Linux: &oci.Linux{}}
	if _, err := runtime.InjectDevices(spec, names...); err != nil {
		return nil, err
	}
	var paths []string
	for _, d := range spec.Linux.Devices {
		paths = append(paths, d.Path)
	}
	return paths, nil
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestNames(t *testing.T) {
	tests := []struct {
		name, resource string
		deviceType     config.DeviceType
		id, want       string
	}{
		{"net-pci", "intel.com/sriov-net", config.NetDevice, "0000:3b:02.0", "intel.com/net-pci-sriov-net=0000:3b:02.0"},
		{"net-accel", "intel.com/fec", config.Accelerator, "10000:01:00.1", "intel.com/net-accel-fec=10000:01:00.1"},
		{"net-sf", "nvidia.com/sf_pool", config.AuxNetDevice, "mlx5_core.sf.4", "nvidia.com/net-sf-sf_pool=mlx5_core.sf.4"},
		{"a class must begin with a letter", "intel.com/10g", config.NetDevice, "0000:3b:02.0", "intel.com/net-pci-10g=0000:3b:02.0"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			kind := own.Kind(test.resource, test.deviceType)
			names := own.Names(kind, []string{test.id})
			if names[0] != test.want {
				t.Errorf("name %s, want %s", names[0], test.want)
			}
			sync(t, dir, none, own.Pool{Kind: kind, Nodes: map[string][]handout.Node{test.id: node("/dev/a")}})
			if got, err := inject(t, dir, names...); err != nil || len(got) != 1 {
				t.Errorf("the runtime makes %v of it, error %v", got, err)
			}
		})
	}
}

// A runtime finds the devices in annotations, whatever the names are, and two
// pools of a container do not have the same key.
func TestAnnotation(t *testing.T) {
	annotations := map[string]string{}
	var want []string
	for _, resource := range []string{
		"intel.com/a", "intel.com/b", "intel.com/" + strings.Repeat("x", 62) + "1", "intel.com/" + strings.Repeat("x", 62) + "2",
		strings.Repeat("long.", 40) + "example.com/a",
	} {
		kind := own.Kind(resource, config.NetDevice)
		names := own.Names(kind, []string{"0000:3b:02.0", "0000:3b:02.1"})
		key, value := own.Annotation(kind, names)
		if name := strings.TrimPrefix(key, cdi.AnnotationPrefix); len(name) > 63 {
			t.Errorf("key %s is too long", key)
		}
		annotations[key] = value
		want = append(want, names...)
	}
	if len(annotations) != 5 {
		t.Errorf("annotations %v, want five", annotations)
	}
	if _, ok := annotations["cdi.k8s.io/intel.com_net-pci-a"]; !ok {
		t.Errorf("annotations %v, want a key as that of the sriov-network-device-plugin", annotations)
	}
	_, got, err := cdi.ParseAnnotations(annotations)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("devices (-want +got):\n%s", diff)
	}
}

func TestSpecification(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	sync(t, dir, none, own.Pool{Kind: kind, Nodes: map[string][]handout.Node{
		"0000:3b:02.1": {{Host: "/dev/vfio/vfio", Container: "/dev/vfio/vfio"}, {Host: "/dev/vfio/noiommu-0", Container: "/dev/vfio/0"}},
		"0000:3b:02.0": {{Host: "/dev/vhost-net", Container: "/dev/vhost-net"}},
		"0000:3b:02.2": nil,
	}})
	path := filepath.Join(dir, "numalane-intel.com_net-pci-sriov-net.json")
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"cdiVersion":"0.5.0","kind":"intel.com/net-pci-sriov-net","devices":[` +
		`{"name":"0000:3b:02.0","containerEdits":{"deviceNodes":[{"path":"/dev/vhost-net","hostPath":"/dev/vhost-net","permissions":"rw"}]}},` +
		`{"name":"0000:3b:02.1","containerEdits":{"deviceNodes":[{"path":"/dev/vfio/vfio","hostPath":"/dev/vfio/vfio","permissions":"rw"},` +
		`{"path":"/dev/vfio/0","hostPath":"/dev/vfio/noiommu-0","permissions":"rw"}]}}],"containerEdits":{}}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("specification (-want +got):\n%s", diff)
	}
	if got := files(t, dir); len(got) != 1 {
		t.Errorf("files %v, want one", got)
	}
}

// Runtimes watch the folder: what is right is not written again.
func TestUnchanged(t *testing.T) {
	dir := t.TempDir()
	p := own.Pool{Kind: kind, Nodes: map[string][]handout.Node{"0000:3b:02.1": node("/dev/a"), "0000:3b:02.0": node("/dev/b")}}
	sync(t, dir, none, p)
	path := filepath.Join(dir, files(t, dir)[0])
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	sync(t, dir, none, p)
	after, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if !os.SameFile(before, after) {
		t.Error("the file was replaced")
	}
}

// Ensure brings back what somebody has removed.
func TestEnsure(t *testing.T) {
	dir := t.TempDir()
	f := own.New(dir)
	if err := f.Want([]own.Pool{{Kind: kind, Nodes: map[string][]handout.Node{"0000:3b:02.0": node("/dev/a")}}}, none); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := f.Ensure(kind); err != nil {
			t.Fatal(err)
		}
		if _, err := inject(t, dir, own.Names(kind, []string{"0000:3b:02.0"})...); err != nil {
			t.Error(err)
		}
		if err := os.Remove(filepath.Join(dir, files(t, dir)[0])); err != nil {
			t.Fatal(err)
		}
	}
}

// A container can be made again as long as its pod holds the device.
func TestHeld(t *testing.T) {
	dir := t.TempDir()
	name := func(id string) string { return own.Names(kind, []string{id})[0] }
	sync(t, dir, none, own.Pool{Kind: kind, Nodes: map[string][]handout.Node{"0000:3b:02.0": node("/dev/a"), "0000:3b:02.1": node("/dev/b")}})

	// One device has left the pool, of the other the RDMA device is in a pod.
	less := own.Pool{Kind: kind, Nodes: map[string][]handout.Node{"0000:3b:02.1": nil, "0000:3b:02.2": node("/dev/c")}}
	sync(t, dir, holding("0000:3b:02.0", "0000:3b:02.1"), less)
	got, err := inject(t, dir, name("0000:3b:02.0"), name("0000:3b:02.1"), name("0000:3b:02.2"))
	if diff := cmp.Diff([]string{"/dev/a", "/dev/b", "/dev/c"}, got); diff != "" || err != nil {
		t.Errorf("nodes (-want +got), error %v:\n%s", err, diff)
	}

	// A device that is there goes by what it is now.
	less.Nodes["0000:3b:02.1"] = node("/dev/new")
	sync(t, dir, holding("0000:3b:02.1"), less)
	if got, err := inject(t, dir, name("0000:3b:02.1")); err != nil || got[0] != "/dev/new" {
		t.Errorf("nodes %v, error %v, want /dev/new", got, err)
	}
	if _, err := inject(t, dir, name("0000:3b:02.0")); err == nil {
		t.Error("the device that is free and gone is still there")
	}
}

func TestPoolGoes(t *testing.T) {
	dir := t.TempDir()
	other := own.Kind("intel.com/other", config.NetDevice)
	sync(t, dir, none, own.Pool{Kind: kind, Nodes: map[string][]handout.Node{"0000:3b:02.0": node("/dev/a"), "0000:3b:02.1": node("/dev/b")}})
	foreign := []string{"numalane-vendor.json", "numalane-torn.json", "vendor.json", "numalane-renamed.json"}
	for name, text := range map[string]string{
		foreign[0]: `{"cdiVersion":"0.5.0","kind":"vendor.com/gpu","devices":[{"name":"0","containerEdits":{"env":["A=b"]}}]}`,
		foreign[2]: `{"cdiVersion":"0.5.0","kind":"vendor.com/net-pci-a","devices":[{"name":"0","containerEdits":{"env":["A=b"]}}]}`,
		foreign[3]: `{"cdiVersion":"0.5.0","kind":"vendor.com/net-pci-b","devices":[{"name":"0","containerEdits":{"env":["A=b"]}}]}`,
		foreign[1]: `{`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const ours = "numalane-intel.com_net-pci-sriov-net.json"
	long := time.Now().Add(-time.Hour)
	age := func() {
		for _, name := range files(t, dir) {
			if err := os.Chtimes(filepath.Join(dir, name), long, long); err != nil {
				t.Fatal(err)
			}
		}
	}
	step := func(what string, held func(string, string) bool, ourFile bool) {
		t.Helper()
		sync(t, dir, held, own.Pool{Kind: other, Nodes: map[string][]handout.Node{"0000:3b:02.0": node("/dev/a")}})
		want := append(slices.Clone(foreign), "numalane-intel.com_net-pci-other.json")
		if ourFile {
			want = append(want, ours)
		}
		slices.Sort(want)
		if diff := cmp.Diff(want, files(t, dir)); diff != "" {
			t.Errorf("%s: files (-want +got):\n%s", what, diff)
		}
	}
	step("just written, by an older instance perhaps", none, true)
	age()
	step("held", holding("0000:3b:02.1"), true)
	if got, err := os.ReadFile(filepath.Join(dir, ours)); err != nil || strings.Contains(string(got), "02.0") || !strings.Contains(string(got), "02.1") {
		t.Errorf("it has %s, error %v, want 0000:3b:02.1 alone", got, err)
	}
	age()
	step("free", none, false)
}

// Nothing is lost by a file that cannot be read or written: it is told.
func TestTrouble(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "numalane-intel.com_net-pci-sriov-net.json")
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := own.New(dir)
	pools := []own.Pool{{Kind: kind, Nodes: map[string][]handout.Node{"0000:3b:02.0": node("/dev/a")}}}
	if err := f.Want(pools, none); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("error %v, want one that names %s", err, path)
	}
	if err := f.Write(); err != nil {
		t.Fatal(err)
	}
	if _, err := inject(t, dir, own.Names(kind, []string{"0000:3b:02.0"})...); err != nil {
		t.Errorf("the torn file was not replaced: %v", err)
	}

	bad := own.Kind("3com.com/a", config.NetDevice) // a vendor must begin with a letter
	if err := f.Want([]own.Pool{{Kind: bad, Nodes: pools[0].Nodes}}, none); err != nil {
		t.Fatal(err)
	}
	if err := f.Ensure(bad); err == nil || !strings.Contains(err.Error(), "3com.com") {
		t.Errorf("error %v, want one that names 3com.com", err)
	}
}
