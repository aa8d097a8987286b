// Package arches runs the binaries of every architecture that is released, on
// the processor at hand or under qemu-user: "make test-arches".
package arches

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/testing/protocmp"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"

	"github.com/numalane/numalane/internal/sysfstest"
)

var (
	bin     = flag.String("bin", "../../bin", "folder that has a folder of binaries for each architecture")
	arches  = flag.String("arches", "amd64 arm64 ppc64le", "the architectures, as Go names them")
	patient = 2 * time.Minute // a binary under emulation starts in seconds
)

// qemu is qemu-user's name for an architecture.
var qemu = map[string]string{"amd64": "qemu-x86_64", "arm64": "qemu-aarch64", "ppc64le": "qemu-ppc64le"}

// command runs a binary of an architecture.
func command(ctx context.Context, arch, binary string, args ...string) *exec.Cmd {
	file := filepath.Join(*bin, arch, binary)
	if arch == runtime.GOARCH {
		return exec.CommandContext(ctx, file, args...)
	}
	return exec.CommandContext(ctx, qemu[arch], append([]string{file}, args...)...)
}

func output(t *testing.T, arch, binary string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	cmd := command(ctx, arch, binary, args...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, errs.String())
	}
	return string(out)
}

// machine is a sysfs tree and a configuration with one pool, in two files.
func machine(t *testing.T) (root, config string) {
	t.Helper()
	root, config = t.TempDir(), filepath.Join(t.TempDir(), "config.json")
	m := sysfstest.Uniform(2, 2, 1, sysfstest.X710("0000:3b:00.0", 0, 2), sysfstest.ConnectX5("0000:af:00.0", 1, 2))
	if err := m.Write(root); err != nil {
		t.Fatal(err)
	}
	pools := `{"resourceList": [{"resourceName": "vfs", "selectors": {"drivers": ["iavf", "mlx5_core"]}}]}`
	if err := os.WriteFile(config, []byte(pools), 0o644); err != nil {
		t.Fatal(err)
	}
	return root, config
}

func TestArches(t *testing.T) {
	root, config := machine(t)
	var native string
	for _, arch := range strings.Fields(*arches) {
		t.Run(arch, func(t *testing.T) {
			for _, binary := range []string{"numalane-plugin", "numalane-extender"} {
				if v := output(t, arch, binary, "--version"); !strings.Contains(v, runtime.Version()) {
					t.Errorf("%s --version: %q, want it to name %s", binary, v, runtime.Version())
				}
			}
			seen := output(t, arch, "numalane-plugin", "inspect", "--sysfs-root", root, "--config-file", config, "-o", "json")
			if native == "" {
				native = seen
			}
			if d := cmp.Diff(native, seen); d != "" || !strings.Contains(seen, "intel.com/vfs") {
				t.Errorf("inspect sees another machine (-first +%s):\n%s", arch, d)
			}
			serves(t, arch, root, config)
		})
	}
}

// serves runs the plugin until a kubelet has its devices and one of them.
func serves(t *testing.T, arch, root, config string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "nl") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	k := newKubelet(t, dir)
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	cmd := command(ctx, arch, "numalane-plugin", "--sysfs-root", root, "--config-file", config,
		"--kubelet-dir", dir, "--device-plugin-dir", dir, "--kubelet-url", "", "--listen", "")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	fail := func(format string, args ...any) {
		cancel()
		<-ended
		t.Fatalf(format+"\n%s", append(args, log.String())...)
	}
	var r *pluginapi.RegisterRequest
	select {
	case r = <-k.registered:
	case err := <-ended:
		t.Fatalf("the plugin ended before it registered: %v\n%s", err, log.String())
	case <-ctx.Done():
		fail("no registration in %s", patient)
	}
	if r.ResourceName != "intel.com/vfs" {
		fail("registered %s, want intel.com/vfs", r.ResourceName)
	}
	if err := use(ctx, filepath.Join(dir, r.Endpoint)); err != nil {
		fail("%v", err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("the plugin, told to end: %v\n%s", err, log.String())
	}
}

// use watches a plugin's devices and asks for one of each NUMA node.
func use(ctx context.Context, socket string) error {
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	plugin := pluginapi.NewDevicePluginClient(conn)
	watch, err := plugin.ListAndWatch(ctx, &pluginapi.Empty{})
	if err != nil {
		return fmt.Errorf("ListAndWatch: %w", err)
	}
	list, err := watch.Recv()
	if err != nil {
		return fmt.Errorf("ListAndWatch: %w", err)
	}
	var devices, ids []string
	for _, d := range list.Devices {
		devices = append(devices, fmt.Sprintf("%s %s on %d", d.ID, d.Health, d.Topology.Nodes[0].ID))
		ids = append(ids, d.ID)
	}
	want := []string{"0000:3b:02.0 Healthy on 0", "0000:3b:02.1 Healthy on 0", "0000:af:00.2 Healthy on 1", "0000:af:00.3 Healthy on 1"}
	if d := cmp.Diff(want, devices); d != "" {
		return fmt.Errorf("devices (-want +got):\n%s", d)
	}
	preferred, err := plugin.GetPreferredAllocation(ctx, &pluginapi.PreferredAllocationRequest{
		ContainerRequests: []*pluginapi.ContainerPreferredAllocationRequest{{AvailableDeviceIDs: ids, AllocationSize: 2}},
	})
	if err != nil {
		return fmt.Errorf("GetPreferredAllocation: %w", err)
	}
	chosen := preferred.ContainerResponses[0].DeviceIDs
	if !slices.Equal(chosen, ids[:2]) {
		return fmt.Errorf("prefers %v, want the two of NUMA node 0", chosen)
	}
	got, err := plugin.Allocate(ctx, &pluginapi.AllocateRequest{ContainerRequests: []*pluginapi.ContainerAllocateRequest{{DevicesIds: chosen}}})
	if err != nil {
		return fmt.Errorf("Allocate: %w", err)
	}
	wantGot := &pluginapi.AllocateResponse{ContainerResponses: []*pluginapi.ContainerAllocateResponse{{Envs: map[string]string{
		"PCIDEVICE_INTEL_COM_VFS":      "0000:3b:02.0,0000:3b:02.1",
		"PCIDEVICE_INTEL_COM_VFS_INFO": `{"0000:3b:02.0":{"generic":{"deviceID":"0000:3b:02.0"}},"0000:3b:02.1":{"generic":{"deviceID":"0000:3b:02.1"}}}`,
	}}}}
	if d := cmp.Diff(wantGot, got, protocmp.Transform()); d != "" {
		return fmt.Errorf("Allocate (-want +got):\n%s", d)
	}
	return nil
}

// kubelet is one that only listens to registrations.
type kubelet struct {
	pluginapi.UnimplementedRegistrationServer
	registered chan *pluginapi.RegisterRequest
}

func (k *kubelet) Register(_ context.Context, r *pluginapi.RegisterRequest) (*pluginapi.Empty, error) {
	k.registered <- r
	return &pluginapi.Empty{}, nil
}

func newKubelet(t *testing.T, dir string) *kubelet {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(dir, "kubelet.sock"))
	if err != nil {
		t.Fatal(err)
	}
	k := &kubelet{registered: make(chan *pluginapi.RegisterRequest, 1)}
	s := grpc.NewServer()
	pluginapi.RegisterRegistrationServer(s, k)
	go s.Serve(l)
	t.Cleanup(s.Stop)
	return k
}
