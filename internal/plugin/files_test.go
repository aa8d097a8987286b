package plugin_test

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	oci "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
	"tags.cncf.io/container-device-interface/pkg/cdi"

	"github.com/numalane/numalane/internal/config"
	"github.com/numalane/numalane/internal/plugin"
)

// withInfo is a VF that has DeviceInfo.
func withInfo(id string) plugin.Device {
	d := vf(id, 0)
	d.Handout.DeviceInfo = []byte(`{"type":"pci","pci":{"pci-address":"` + id + `"}}`)
	return d
}

func infoFile(id string) string { return "intel.com-sriov-net-" + id + "-device.json" }

func deviceInfoIn(dir string) func(*plugin.Options) {
	return func(o *plugin.Options) { o.DeviceInfoDir = dir }
}

func folder(t testing.TB, dir string) []string {
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

// longAgo makes every file of a folder old.
func longAgo(t testing.TB, dir string) {
	t.Helper()
	at := time.Now().Add(-time.Hour)
	for _, name := range folder(t, dir) {
		if err := os.Chtimes(filepath.Join(dir, name), at, at); err != nil {
			t.Fatal(err)
		}
	}
}

func waitFolder(t testing.TB, dir string, want ...string) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s to have %v", dir, want), func() error {
		if got := folder(t, dir); strings.Join(got, " ") != strings.Join(want, " ") {
			return fmt.Errorf("it has %v", got)
		}
		return nil
	})
}

// The file is there before the answer, for as long as the pod holds the device,
// whoever of the plugin's processes runs meanwhile, and no longer.
func TestDeviceInfoLifecycle(t *testing.T) {
	dir := t.TempDir()
	devices := pool(withInfo("0000:3b:02.0"), withInfo("0000:3b:02.1"), vf("0000:3b:02.2", 0))
	n := newNode(t, 37, deviceInfoIn(dir))
	n.start()
	n.updates <- []plugin.Pool{devices}
	n.waitLive(1)
	if _, err := n.allocate(t, "0000:3b:02.1", "0000:3b:02.2"); err != nil {
		t.Fatal(err)
	}
	waitNow := func(what string, want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, folder(t, dir)); diff != "" {
			t.Fatalf("%s: files (-want +got):\n%s", what, diff)
		}
	}
	waitNow("at the answer", infoFile("0000:3b:02.1"))
	text, err := os.ReadFile(filepath.Join(dir, infoFile("0000:3b:02.1")))
	if err != nil || string(text) != string(devices.Devices[1].Handout.DeviceInfo) {
		t.Errorf("it says %s, error %v", text, err)
	}

	// Between the answer and the kubelet's note of it.
	n.updates <- []plugin.Pool{devices}
	n.updates <- []plugin.Pool{devices}
	waitNow("before the kubelet has written it down", infoFile("0000:3b:02.1"))
	held := map[string][]string{resource: {"0000:3b:02.1"}}
	n.setHeld(held)
	// The second is taken once the first is through, and what is held with it.
	n.updates <- []plugin.Pool{devices}
	n.updates <- []plugin.Pool{devices}
	longAgo(t, dir)
	n.end()
	waitNow("after the plugin's end", infoFile("0000:3b:02.1"))

	// A new process, which cannot tell yet who holds what, and then can.
	n = newNode(t, 37, deviceInfoIn(dir))
	n.setHeldErr(nil, errors.New("the checkpoint has another format"))
	n.start()
	n.updates <- []plugin.Pool{devices}
	n.waitLive(1)
	waitNow("while it is not known who holds what", infoFile("0000:3b:02.1"))
	n.setHeld(held)
	n.updates <- []plugin.Pool{pool(withInfo("0000:3b:02.0"))} // it has vanished
	n.waitList(resource, "0000:3b:02.0 Healthy [0]", "0000:3b:02.1 Unhealthy [0]")
	waitNow("while it is held", infoFile("0000:3b:02.1"))
	n.setHeldErr(nil, errors.New("the checkpoint is torn"))
	n.updates <- []plugin.Pool{pool(withInfo("0000:3b:02.0"))}
	n.updates <- []plugin.Pool{pool(withInfo("0000:3b:02.0"))}
	waitNow("while what was known last stands", infoFile("0000:3b:02.1"))
	n.setHeld(nil)
	waitFolder(t, dir)
}

// After a reboot the folder is empty, and Multus attaches the pods anew.
func TestDeviceInfoIsRestored(t *testing.T) {
	dir := t.TempDir()
	n := newNode(t, 37, deviceInfoIn(dir))
	n.setHeld(map[string][]string{resource: {"0000:3b:02.1"}, "nvidia.com/gpu": {"0000:3b:02.0"}})
	n.start()
	n.updates <- []plugin.Pool{pool(withInfo("0000:3b:02.0"), withInfo("0000:3b:02.1"))}
	waitFolder(t, dir, infoFile("0000:3b:02.1"))
}

func TestDeviceInfoOfOthersStays(t *testing.T) {
	dir := t.TempDir()
	other := "intel.com-other-0000:3b:02.0-device.json"
	for _, name := range []string{other, infoFile("0000:3b:02.0"), infoFile("0000:3b:09.0")} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("by another plugin"), 0o444); err != nil {
			t.Fatal(err)
		}
	}
	longAgo(t, dir)
	n := newNode(t, 37, deviceInfoIn(dir))
	n.start()
	n.updates <- []plugin.Pool{pool(withInfo("0000:3b:02.0"))}
	waitFolder(t, dir, other)
}

// A fault after the first file: the pod is refused and nothing is left of it.
func TestHalfDoneAllocation(t *testing.T) {
	t.Run("DeviceInfo", func(t *testing.T) {
		dir := t.TempDir()
		fault := infoFile("0000:3b:02.1")
		n := newNode(t, 37, deviceInfoIn(dir))
		n.start()
		n.updates <- []plugin.Pool{pool(withInfo("0000:3b:02.0"), withInfo("0000:3b:02.1"))}
		n.waitLive(1)
		if err := os.MkdirAll(filepath.Join(dir, fault, "in the way"), 0o755); err != nil {
			t.Fatal(err)
		}
		if _, err := n.allocate(t, "0000:3b:02.0", "0000:3b:02.1"); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), fault) {
			t.Errorf("error %v, want one that names %s", err, fault)
		}
		if diff := cmp.Diff([]string{fault}, folder(t, dir)); diff != "" {
			t.Errorf("files (-want +got):\n%s", diff)
		}
		if err := os.RemoveAll(filepath.Join(dir, fault)); err != nil {
			t.Fatal(err)
		}
		if _, err := n.allocate(t, "0000:3b:02.0", "0000:3b:02.1"); err != nil {
			t.Errorf("error %v once the fault is gone", err)
		}
	})
	t.Run("withheld", func(t *testing.T) {
		dir := t.TempDir()
		bad := withInfo("0000:3b:02.1")
		bad.Handout.Withheld = "it has no vDPA device"
		n := newNode(t, 37, deviceInfoIn(dir))
		n.start()
		n.updates <- []plugin.Pool{pool(withInfo("0000:3b:02.0"), bad)}
		n.waitLive(1)
		_, err := n.api(resource).Allocate(t.Context(), &pluginapi.AllocateRequest{ContainerRequests: []*pluginapi.ContainerAllocateRequest{
			{DevicesIds: []string{"0000:3b:02.0"}}, {DevicesIds: []string{"0000:3b:02.1"}},
		}})
		if status.Code(err) != codes.FailedPrecondition {
			t.Errorf("error %v, want FailedPrecondition", err)
		}
		if got := folder(t, dir); len(got) > 0 {
			t.Errorf("files %v, want none", got)
		}
	})
	t.Run("CDI", func(t *testing.T) {
		infos, specs := t.TempDir(), filepath.Join(t.TempDir(), "cdi")
		if err := os.WriteFile(specs, nil, 0o600); err != nil { // no folder
			t.Fatal(err)
		}
		d := withInfo("0000:3b:02.0")
		d.Handout.Nodes = withNodes("", "/dev/null").Handout.Nodes
		n := newNode(t, 37, deviceInfoIn(infos), func(o *plugin.Options) { o.CDIDir = specs })
		n.start()
		n.updates <- []plugin.Pool{pool(d)}
		n.waitLive(1)
		if _, err := n.allocate(t, "0000:3b:02.0"); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "CDI specification") {
			t.Errorf("error %v, want one of the CDI specification", err)
		}
		if got := folder(t, infos); len(got) > 0 {
			t.Errorf("files %v, want none", got)
		}
		if err := os.Remove(specs); err != nil {
			t.Fatal(err)
		}
		if _, err := n.allocate(t, "0000:3b:02.0"); err != nil {
			t.Errorf("error %v once the fault is gone", err)
		}
	})
}

// Where the folder can never be written, pods get all but what Multus passes on.
func TestDeviceInfoReadOnly(t *testing.T) {
	var log syncBuffer
	n := newNode(t, 37, deviceInfoIn("/sys/numalane"), func(o *plugin.Options) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	n.start()
	n.updates <- []plugin.Pool{pool(withInfo("0000:3b:02.0"))}
	n.waitLive(1)
	for range 2 {
		if _, err := n.allocate(t, "0000:3b:02.0"); err != nil {
			t.Error(err)
		}
	}
	n.end()
	if got := strings.Count(log.String(), "no device information is written"); got != 1 {
		t.Errorf("logged %d times, want once:\n%s", got, log.String())
	}
}

func TestCDI(t *testing.T) {
	dir := t.TempDir()
	const other = "intel.com/other"
	pools := []plugin.Pool{
		{Resource: resource, DeviceType: config.NetDevice, Devices: []plugin.Device{
			withNodes("0000:3b:02.0", "/dev/null /dev/vfio/vfio", "/dev/zero /dev/vfio/7"),
			withNodes("0000:3b:02.1", "/dev/null /dev/vfio/vfio", "/dev/full /dev/vfio/8"), vf("0000:3b:02.2", 0),
		}},
		{Resource: other, DeviceType: config.NetDevice, Devices: []plugin.Device{withNodes("0000:5e:02.0", "/dev/null /dev/uio0")}},
	}
	n := newNode(t, 37, func(o *plugin.Options) { o.CDIDir, o.CDIAnnotations = dir, true })
	n.start()
	n.updates <- pools
	n.waitLive(2)
	// What a runtime does for the container.
	inject := func(names []string) ([]string, error) {
		runtime, err := cdi.NewCache(cdi.WithSpecDirs(dir), cdi.WithAutoRefresh(false))
		if err != nil {
			t.Fatal(err)
		}
		c := &oci.Spec{Linux: &oci.Linux{}}
		if _, err := runtime.InjectDevices(c, names...); err != nil {
			return nil, err
		}
		var paths []string
		for _, d := range c.Linux.Devices {
			paths = append(paths, d.Path)
		}
		return paths, nil
	}
	annotations := map[string]string{}
	allocated := func(resource string, ids ...string) (names []string) {
		got, err := n.api(resource).Allocate(t.Context(), &pluginapi.AllocateRequest{
			ContainerRequests: []*pluginapi.ContainerAllocateRequest{{DevicesIds: ids}},
		})
		if err != nil {
			t.Fatal(err)
		}
		c := got.ContainerResponses[0]
		if len(c.Devices) > 0 || len(c.Mounts) > 0 || len(c.Envs) != 2 {
			t.Errorf("devices %v, mounts %v, variables %v; want the variables alone", c.Devices, c.Mounts, c.Envs)
		}
		for _, d := range c.CdiDevices {
			names = append(names, d.Name)
		}
		for k, v := range c.Annotations {
			annotations[k] = v
		}
		return names
	}

	names := allocated(resource, "0000:3b:02.1", "0000:3b:02.2", "0000:3b:02.0")
	if diff := cmp.Diff([]string{"intel.com/net-pci-sriov-net=0000:3b:02.0", "intel.com/net-pci-sriov-net=0000:3b:02.1"}, names); diff != "" {
		t.Errorf("CDI devices (-want +got):\n%s", diff)
	}
	paths, err := inject(names)
	if diff := cmp.Diff([]string{"/dev/vfio/7", "/dev/vfio/vfio", "/dev/vfio/8"}, paths); diff != "" || err != nil {
		t.Errorf("nodes (-want +got), error %v:\n%s", err, diff)
	}
	if names := allocated(resource, "0000:3b:02.2"); len(names) > 0 {
		t.Errorf("CDI devices %v for a device without nodes", names)
	}
	allocated(other, "0000:5e:02.0")
	want := map[string]string{
		"cdi.k8s.io/intel.com_net-pci-sriov-net": "intel.com/net-pci-sriov-net=0000:3b:02.0,intel.com/net-pci-sriov-net=0000:3b:02.1",
		"cdi.k8s.io/intel.com_net-pci-other":     "intel.com/net-pci-other=0000:5e:02.0",
	}
	if diff := cmp.Diff(want, annotations); diff != "" {
		t.Errorf("annotations of two pools (-want +got):\n%s", diff)
	}

	// The plugin goes, the container is made again; a plugin comes that knows
	// neither the pool nor, yet, who holds what.
	n.end()
	if _, err := inject(names); err != nil {
		t.Errorf("while no plugin runs: %v", err)
	}
	longAgo(t, dir)
	n = newNode(t, 37, func(o *plugin.Options) { o.CDIDir = dir })
	n.setHeldErr(nil, errors.New("no checkpoint yet"))
	n.start()
	n.updates <- pools[1:]
	n.waitLive(1)
	if _, err := inject(names); err != nil {
		t.Errorf("while it is not known who holds what: %v", err)
	}
	n.setHeld(map[string][]string{resource: {"0000:3b:02.1"}})
	eventually(t, "the free device to go", func() error {
		if _, err := inject(names[:1]); err == nil {
			return errors.New("it is still there")
		}
		return nil
	})
	if _, err := inject(names[1:]); err != nil {
		t.Errorf("the device that is held: %v", err)
	}
	longAgo(t, dir)
	n.setHeld(nil)
	waitFolder(t, dir, "numalane-intel.com_net-pci-other.json")
}

func TestCDIWithoutAnnotations(t *testing.T) {
	n := newNode(t, 37, func(o *plugin.Options) { o.CDIDir = t.TempDir() })
	n.start()
	n.updates <- []plugin.Pool{{Resource: resource, DeviceType: config.AuxNetDevice, Devices: []plugin.Device{withNodes("mlx5_core.sf.4", "/dev/null")}}}
	n.waitLive(1)
	got, err := n.allocate(t, "mlx5_core.sf.4")
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Annotations) > 0 || len(got.CdiDevices) != 1 || got.CdiDevices[0].Name != "intel.com/net-sf-sriov-net=mlx5_core.sf.4" {
		t.Errorf("annotations %v, CDI devices %v", got.Annotations, got.CdiDevices)
	}
}
