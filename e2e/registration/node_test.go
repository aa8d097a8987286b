package registration_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/numalane/numalane/e2e/cadvisor"
	"github.com/numalane/numalane/e2e/kubelets/wire"
	"github.com/numalane/numalane/e2e/kubelets/wire/client"
	"github.com/numalane/numalane/internal/sysfstest"
)

const (
	vf    = "numalane.io/vf"
	pools = `{"resourceList": [{"resourcePrefix": "numalane.io", "resourceName": "vf", "selectors": {"vendors": ["8086"], "devices": ["154c"]}}]}`

	// patience is far above what anything here takes on an idle machine.
	patience = 40 * time.Second
)

// binaries is where "make test-kubelets" builds plugin and kubelets.
var binaries = filepath.Join("..", ".cache", "bin")

func TestMain(m *testing.M) {
	klog.SetSlogLogger(slog.New(slog.DiscardHandler)) // cAdvisor's word on each machine
	os.Exit(m.Run())
}

// onEach runs a test on each kubelet of the variable KUBELETS ("1.34 1.37"),
// by default the newest.
func onEach(t *testing.T, test func(t *testing.T, minor int)) {
	t.Helper()
	versions := strings.Fields(os.Getenv("KUBELETS"))
	if len(versions) == 0 {
		versions = []string{"1.37"}
	}
	for _, version := range versions {
		minor, err := strconv.Atoi(strings.TrimPrefix(version, "1."))
		if err != nil {
			t.Fatalf("KUBELETS: %q: want versions such as 1.37", version)
		}
		t.Run(version, func(t *testing.T) { test(t, minor) })
	}
}

// node is a machine with a kubelet, in a folder of its own.
type node struct {
	t       *testing.T
	minor   int
	dir     string
	root    string // the kubelet's root folder
	policy  string // of the topology manager
	machine sysfstest.Machine
	kubelet *client.Kubelet
	log     *os.File  // the kubelet's
	pods    []*v1.Pod // running
	plugins int       // started
}

// newNode has its kubelet running, with topology manager policy none.
func newNode(t *testing.T, minor int, nics ...sysfstest.NIC) *node {
	t.Helper()
	n := prepareNode(t, minor, nics...)
	n.startKubelet()
	return n
}

// prepareNode has no kubelet running. Without NICs given it has four VFs on
// each of two NUMA nodes.
func prepareNode(t *testing.T, minor int, nics ...sysfstest.NIC) *node {
	t.Helper()
	dir, err := os.MkdirTemp("", "k") // t.TempDir's path may be too long for a socket's
	if err != nil {
		t.Fatal(err)
	}
	if len(nics) == 0 {
		nics = []sysfstest.NIC{sysfstest.X710("0000:3b:00.0", 0, 4), sysfstest.X710("0000:af:00.0", 1, 4)}
	}
	n := &node{t: t, minor: minor, dir: dir, root: filepath.Join(dir, "kubelet"), policy: "none", machine: sysfstest.Uniform(2, 4, 1, nics...)}
	if n.log, err = os.OpenFile(filepath.Join(dir, "kubelet.log"), os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if n.kubelet != nil {
			n.kubelet.Kill()
		}
		if t.Failed() {
			t.Logf("the end of the kubelet's log:\n%s", end(n.log.Name()))
		}
		n.log.Close()
		os.RemoveAll(dir)
	})
	if err := errors.Join(n.machine.Write(n.sysfs()), n.configure(pools)); err != nil {
		t.Fatal(err)
	}
	return n
}

func (n *node) sysfs() string         { return filepath.Join(n.dir, "machine") }
func (n *node) poolsFile() string     { return filepath.Join(n.dir, "pools.json") }
func (n *node) socketDir() string     { return filepath.Join(n.root, "device-plugins") }
func (n *node) kubeletSocket() string { return filepath.Join(n.socketDir(), "kubelet.sock") }

func (n *node) configure(pools string) error {
	return os.WriteFile(n.poolsFile(), []byte(pools), 0o644)
}

// unbind takes a VF's driver away.
func (n *node) unbind(id string) {
	n.t.Helper()
	if err := errors.Join(
		os.Remove(filepath.Join(n.sysfs(), "sys/bus/pci/drivers/iavf", id)), sysfstest.RemoveFile(n.sysfs(), id, "driver"),
	); err != nil {
		n.t.Fatal(err)
	}
}

// startKubelet starts a kubelet over what is in its root folder, for the pods
// that run.
func (n *node) startKubelet() {
	n.t.Helper()
	if err := os.MkdirAll(n.root, 0o755); err != nil {
		n.t.Fatal(err)
	}
	config := "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\ntopologyManagerPolicy: " + n.policy + "\n"
	if err := os.WriteFile(filepath.Join(n.root, "config.yaml"), []byte(config), 0o644); err != nil {
		n.t.Fatal(err)
	}
	info, err := cadvisor.MachineInfo(n.sysfs())
	if err != nil {
		n.t.Fatal(err)
	}
	if n.kubelet == nil || n.kubelet.Ended() {
		// At verbosity 4 it tells each call of a plugin.
		if n.kubelet, err = client.Start(binaries, n.minor, n.log, "-v=4"); err != nil {
			n.t.Fatal(err)
		}
	}
	all := v1.ResourceList{v1.ResourceCPU: resource.MustParse("8"), v1.ResourceMemory: resource.MustParse("30Gi"), v1.ResourcePods: resource.MustParse("110")}
	start := &wire.Start{Dir: n.root, Machine: n.encode(info), Node: n.encode(v1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "node"}, Status: v1.NodeStatus{Capacity: all, Allocatable: all},
	})}
	for _, p := range n.pods {
		start.Pods = append(start.Pods, n.encode(p))
	}
	if version := n.do(wire.Command{Start: start}).Version; !strings.HasPrefix(version, fmt.Sprintf("v1.%d.", n.minor)) {
		n.t.Fatalf("the program of kubelet 1.%d is that of %s", n.minor, version)
	}
}

func (n *node) do(c wire.Command) wire.Answer {
	n.t.Helper()
	answer, err := n.kubelet.Must(c)
	if err != nil {
		n.t.Fatal(err)
	}
	return answer
}

// count waits until the kubelet counts so many VFs, and so many of them healthy.
func (n *node) count(capacity, allocatable int) {
	n.t.Helper()
	n.countOf(vf, capacity, allocatable)
}

func (n *node) countOf(name string, capacity, allocatable int) {
	n.t.Helper()
	want := wire.Command{Await: []wire.Devices{{Resource: name, Capacity: capacity, Allocatable: allocatable}}}
	eventually(n.t, fmt.Sprintf("the kubelet to count %d devices, %d of them healthy", capacity, allocatable), func() error {
		answer, err := n.kubelet.Do(want)
		if err == nil && answer.Error != "" {
			err = errors.New(answer.Error)
		}
		return err
	})
}

// bring gives the kubelet a pod whose containers ask for so many VFs each.
func (n *node) bring(name string, vfs ...int64) wire.Admission {
	n.t.Helper()
	return n.admit(podOf(name, vf, vfs...))
}

func (n *node) admit(p *v1.Pod) wire.Admission {
	n.t.Helper()
	a := n.do(wire.Command{Admit: n.encode(p)}).Admission
	if a == nil {
		n.t.Fatalf("admit %s: no admission in the answer", p.Name)
	}
	n.pods = slices.DeleteFunc(n.pods, func(o *v1.Pod) bool { return o.UID == p.UID })
	if a.Admit {
		n.pods = append(n.pods, p)
	}
	return *a
}

// run brings a pod that the kubelet must admit, and returns the VFs that it holds.
func (n *node) run(name string, vfs ...int64) []string {
	n.t.Helper()
	if a := n.bring(name, vfs...); !a.Admit {
		n.t.Fatalf("pod %s is refused: %s: %s", name, a.Reason, a.Message)
	}
	held := n.held(name)
	sum := 0
	for _, n := range vfs {
		sum += int(n)
	}
	if len(held) != sum {
		n.t.Fatalf("pod %s holds %v, want %d VFs", name, held, sum)
	}
	return held
}

// runAtLast brings a pod again until the kubelet admits it, as a controller
// does, and returns the VFs that it holds.
func (n *node) runAtLast(name string, vfs ...int64) []string {
	n.t.Helper()
	eventually(n.t, "pod "+name+" to be admitted", func() error {
		a := n.bring(name, vfs...)
		if !a.Admit {
			return fmt.Errorf("%s: %s", a.Reason, a.Message)
		}
		return nil
	})
	return n.held(name)
}

// refuse brings a pod that the kubelet must refuse with that message, and checks
// that it holds nothing.
func (n *node) refuse(name, message string, vfs ...int64) {
	n.t.Helper()
	if a := n.bring(name, vfs...); a.Admit || !strings.Contains(a.Reason+": "+a.Message, message) {
		n.t.Errorf("pod %s: admitted %t, %s: %s, want a refusal with %q", name, a.Admit, a.Reason, a.Message, message)
	}
}

// end ends a pod.
func (n *node) end(name string) {
	n.t.Helper()
	n.pods = slices.DeleteFunc(n.pods, func(p *v1.Pod) bool { return p.Name == name })
	n.do(wire.Command{End: name + "-uid"})
}

func podOf(name, device string, counts ...int64) *v1.Pod {
	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: types.UID(name + "-uid")}}
	for i, count := range counts {
		list := v1.ResourceList{
			v1.ResourceCPU: resource.MustParse("100m"), v1.ResourceMemory: resource.MustParse("64Mi"),
			v1.ResourceName(device): *resource.NewQuantity(count, resource.DecimalSI),
		}
		p.Spec.Containers = append(p.Spec.Containers, v1.Container{
			Name: fmt.Sprintf("c%d", i), Resources: v1.ResourceRequirements{Requests: list, Limits: list},
		})
	}
	return p
}

// mark is a place in the kubelet's log, its end as it is now.
type mark int64

func (n *node) now() mark {
	n.t.Helper()
	info, err := n.log.Stat()
	if err != nil {
		n.t.Fatal(err)
	}
	return mark(info.Size())
}

// logged are the lines that the kubelet has logged since with this text in them.
func (n *node) logged(since mark, text string) []string {
	n.t.Helper()
	b, err := io.ReadAll(io.NewSectionReader(n.log, int64(since), 1<<40))
	if err != nil {
		n.t.Fatal(err)
	}
	return matching(string(b), text)
}

// What a kubelet logs, the same in all versions: devicemanager manager.go,
// plugin/v1beta1 server.go, handler.go, client.go.
const (
	gotRegistration = `"Got registration request from device plugin with resource"`
	connected       = `"Device plugin connected"`
	notConnected    = `"Failed to connect to new client"`
	pushed          = `"State pushed for device plugin"`
	allUnhealthy    = `"Mark all resources Unhealthy for resource"`
	asksPreferred   = `"Issuing a GetPreferredAllocation call for container"`
	asksAllocate    = `"Making allocation request for device plugin"`
	ghost           = `device plugin already connected`
)

// never fails if the kubelet has logged the text since.
func (n *node) never(since mark, text string) {
	n.t.Helper()
	if lines := n.logged(since, text); len(lines) > 0 {
		n.t.Errorf("the kubelet says:\n%s", strings.Join(lines, "\n"))
	}
}

func (n *node) encode(v any) json.RawMessage {
	n.t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		n.t.Fatal(err)
	}
	return b
}

// eventually looks until the condition holds.
func eventually(t *testing.T, what string, holds func() error) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for {
		err := holds()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited for %s: %v", what, err)
		}
	}
}

func matching(text, part string) []string {
	return slices.DeleteFunc(strings.Split(text, "\n"), func(line string) bool { return !strings.Contains(line, part) })
}

// end is the end of a log.
func end(file string) string {
	const most = 6000
	b, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-most):])
}
