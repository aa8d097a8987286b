package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"tags.cncf.io/container-device-interface/pkg/cdi"

	"github.com/numalane/numalane/e2e/cluster"
	"github.com/numalane/numalane/internal/sysfstest"
)

var update = flag.Bool("update", false, "write the golden files of TestCompanions")

// cniBin is where Debian's containernetworking-plugins are.
const cniBin = "/usr/lib/cni"

const (
	kernelVFs corev1.ResourceName = "intel.com/kernel"
	vfioVFs   corev1.ResourceName = "intel.com/vfio"
	rdmaVFs   corev1.ResourceName = "intel.com/rdma"
	vdpaVFs   corev1.ResourceName = "intel.com/vdpa"
)

// ofAllKinds has pools of a kernel driver, vfio-pci, RDMA and vDPA.
const ofAllKinds = `{"resourceList": [
	{"resourceName": "kernel", "selectors": {"vendors": ["8086"], "drivers": ["iavf"]}},
	{"resourceName": "vfio", "selectors": {"vendors": ["8086"], "drivers": ["vfio-pci"]}},
	{"resourceName": "vdpa", "selectors": {"vendors": ["15b3"], "vdpaType": "vhost"}},
	{"resourceName": "rdma", "selectors": {"vendors": ["15b3"], "isRdma": true}}]}`

// companions is a node that others than the kubelet look at.
type companions struct {
	*cluster.Cluster
	node   *cluster.Node
	plugin *cluster.Process
	config string
}

// TestCompanions is what a node has for those who come after the kubelet:
// Multus, a CNI plugin, the container runtime.
func TestCompanions(t *testing.T) {
	c := companions{Cluster: control(t)}
	x710, connectX := sysfstest.X710("0000:3b:00.0", 0, 5), sysfstest.ConnectX5("0000:5e:00.0", 0, 2)
	x710.VFsOnVFIO = []int{4}
	var err error
	if c.node, err = c.StartNode(t.Context(), cluster.NodeSpec{Name: "n1", Machine: sysfstest.Uniform(2, 4, 1, x710, connectX)}); err != nil {
		t.Fatal(err)
	}
	if err := sysfstest.AddVDPA(c.node.Sysfs(), "0000:5e:00.3", "vdpa0", "vhost_vdpa"); err != nil {
		t.Fatal(err)
	}
	c.config = filepath.Join(c.node.Dir, "pools.json")
	if err := os.WriteFile(c.config, []byte(ofAllKinds), 0o644); err != nil {
		t.Fatal(err)
	}
	if c.plugin, err = c.node.StartPlugin(c.config); err != nil {
		t.Fatal(err)
	}
	if err := c.node.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.allocatable(t, map[corev1.ResourceName]int64{kernelVFs: 4, vfioVFs: 1, rdmaVFs: 1, vdpaVFs: 1})

	// Each begins with all devices free.
	t.Run("WhatMultusReads", c.whatMultusReads)
	t.Run("DeviceInfoOutlivesPlugin", c.deviceInfoOutlivesPlugin)
	t.Run("HostDevice", c.hostDevice)
	t.Run("CDI", c.cdi)
}

func (c *companions) allocatable(t *testing.T, want map[corev1.ResourceName]int64) {
	t.Helper()
	for name, count := range want {
		if err := c.node.Allocatable(t.Context(), name, count); err != nil {
			t.Fatal(err)
		}
	}
}

// run has a pod run on the node, with a container for each of asks.
func (c *companions) run(t *testing.T, name string, annotations map[string]string, asks ...map[corev1.ResourceName]int64) *corev1.Pod {
	t.Helper()
	none := int64(0)
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", Annotations: annotations},
		Spec:       corev1.PodSpec{TerminationGracePeriodSeconds: &none},
	}
	for i, ask := range asks {
		limits := corev1.ResourceList{}
		for name, count := range ask {
			limits[name] = *resource.NewQuantity(count, resource.DecimalSI)
		}
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{
			Name: fmt.Sprintf("c%d", i), Image: "none", Resources: corev1.ResourceRequirements{Limits: limits},
		})
	}
	bindTo(t, c.Cluster, c.node, p)
	return until(t, c.Cluster, name, "running", running)
}

func (c *companions) delete(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := c.Client.CoreV1().Pods("default").Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := cluster.Wait(t.Context(), 30*time.Second, "pod "+name+" to be gone from the kubelet", func(ctx context.Context) error {
			held, err := ofKubelet(ctx, c.node)
			if err == nil && len(held[name]) > 0 {
				err = fmt.Errorf("it holds %v", held[name])
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
}

// whatMultusReads: the same pod twice, and the same bytes.
func (c *companions) whatMultusReads(t *testing.T) {
	for _, time := range []string{"first", "second"} {
		p := c.run(t, "multus", nil, map[corev1.ResourceName]int64{kernelVFs: 2}, map[corev1.ResourceName]int64{vfioVFs: 1, rdmaVFs: 1, vdpaVFs: 1})
		devices, err := devicesOf(t.Context(), c.node, p.Namespace, p.Name)
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.MarshalIndent(devices, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		golden(t, time, "podresources.json", string(text)+"\n")
		golden(t, time, "environment.txt", c.environment(t, p))
		golden(t, time, "deviceinfo.txt", listed(c.deviceInfos(t)))
		c.delete(t, "multus")
	}
}

// golden compares with a file of testdata/multus.
func golden(t *testing.T, when, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", "multus", name)
	if *update && when == "first" {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s, the %s time (-want +got; -update writes it):\n%s", name, when, d)
	}
}

// environment is what of the containers' variables is of devices, as the
// container runtime has it.
func (c *companions) environment(t *testing.T, p *corev1.Pod) string {
	t.Helper()
	var lines []string
	for _, ct := range p.Spec.Containers {
		config, err := c.node.Container(t.Context(), p, ct.Name)
		if err != nil {
			t.Fatal(err)
		}
		for _, env := range config.GetEnvs() {
			if strings.HasPrefix(env.GetKey(), "PCIDEVICE_") {
				lines = append(lines, fmt.Sprintf("%s: %s=%s\n", ct.Name, env.GetKey(), env.GetValue()))
			}
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// deviceInfos are the DeviceInfo files.
func (c *companions) deviceInfos(t *testing.T) map[string]string {
	t.Helper()
	files := map[string]string{}
	entries, err := os.ReadDir(c.node.DeviceInfoDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(c.node.DeviceInfoDir(), e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = string(text)
	}
	return files
}

// listed is a line for each file.
func listed(files map[string]string) string {
	var lines []string
	for name, text := range files {
		lines = append(lines, name+": "+text+"\n")
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// deviceInfoOutlivesPlugin: it is there while the plugin is dead and when it is
// back, and goes when the pod went.
func (c *companions) deviceInfoOutlivesPlugin(t *testing.T) {
	c.run(t, "stays", nil, map[corev1.ResourceName]int64{kernelVFs: 1, rdmaVFs: 1})
	// Those of the pod before may still be there: they stay for a minute.
	var held []string
	devices, err := devicesOf(t.Context(), c.node, "default", "stays")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []corev1.ResourceName{kernelVFs, rdmaVFs} {
		for _, id := range devices.of(string(r)) {
			held = append(held, strings.ReplaceAll(string(r), "/", "-")+"-"+id+"-device.json")
		}
	}
	if len(held) != 2 {
		t.Fatalf("the pod holds %v", held)
	}
	ofHeld := func() map[string]string {
		files := c.deviceInfos(t)
		for name := range files {
			if !slices.Contains(held, name) {
				delete(files, name)
			}
		}
		return files
	}
	before := ofHeld()
	if len(before) != len(held) {
		t.Fatalf("files %v, want %v", before, held)
	}
	c.plugin.Kill()
	c.allocatable(t, map[corev1.ResourceName]int64{kernelVFs: 0})
	if d := cmp.Diff(before, ofHeld()); d != "" {
		t.Errorf("while the plugin is dead (-before +now):\n%s", d)
	}
	if err := c.plugin.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.allocatable(t, map[corev1.ResourceName]int64{kernelVFs: 4, rdmaVFs: 1})
	if d := cmp.Diff(before, ofHeld()); d != "" {
		t.Errorf("with the next plugin (-before +now):\n%s", d)
	}
	// A young file may be of a pod that is only just being admitted.
	old := time.Now().Add(-time.Hour)
	for name := range c.deviceInfos(t) {
		if err := os.Chtimes(filepath.Join(c.node.DeviceInfoDir(), name), old, old); err != nil {
			t.Fatal(err)
		}
	}
	c.delete(t, "stays")
	// The kubelet writes down what is free with the next pod that it admits.
	c.run(t, "next", nil, map[corev1.ResourceName]int64{vfioVFs: 1})
	if err := cluster.Wait(t.Context(), 30*time.Second, "the DeviceInfo to go", func(context.Context) error {
		files := c.deviceInfos(t)
		if _, of := files["intel.com-vfio-0000:3b:02.4-device.json"]; !of || len(files) != 1 {
			return fmt.Errorf("there is %v, want that of the next pod alone", files)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	c.delete(t, "next")
}

// within runs CNI plugins where the node's container runtime would: in the
// node's network namespace, and with the node's sysfs.
type within struct {
	invoke.DefaultExec
	simnode, sysfs string
	network        *network
}

func (w *within) ExecPlugin(ctx context.Context, program string, stdin []byte, env []string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, w.simnode, "container", "--net", w.network.file(), "--mount", filepath.Join(w.sysfs, "sys")+":/sys", "--", program)
	cmd.Env, cmd.Stdin = env, strings.NewReader(string(stdin))
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return nil, fmt.Errorf("%s: %w: %s%s", program, err, out, exit.Stderr)
		}
		return nil, err
	}
	return out, nil
}

// hostDevice plays Multus for a pod with network attachments that name our
// resources, and has the real host-device plugin carry them out.
func (c *companions) hostDevice(t *testing.T) {
	if _, err := os.Stat(filepath.Join(cniBin, "host-device")); err != nil {
		t.Fatalf("%v: apt-get install containernetworking-plugins (make test-lane does it)", err)
	}
	for _, args := range [][]string{
		{"apply", "-f", filepath.Join("testdata", "multus", "network-attachment-definition-crd.yaml")},
		{"wait", "--for=condition=Established", "crd/" + attachmentDefinitions.Resource + "." + attachmentDefinitions.Group},
		{"apply", "-f", filepath.Join("testdata", "multus", "networks.yaml")},
	} {
		if err := c.Kubectl(t.Context(), args...); err != nil {
			t.Fatal(err)
		}
	}
	c.run(t, "before", nil, map[corev1.ResourceName]int64{kernelVFs: 1}) // so that it is not the first VFs
	p := c.run(t, "attached", map[string]string{networksAnnotation: "default/kernel,kernel,vfio"}, map[corev1.ResourceName]int64{kernelVFs: 2, vfioVFs: 1})

	sysfs := c.node.Sysfs()
	host, container := newNetwork(t), newNetwork(t)
	host.have(t, sysfs)
	all := host.hardware(t)
	attachments, err := delegates(t.Context(), c.Cluster, c.node, p)
	if err != nil {
		t.Fatal(err)
	}
	if len(attachments) != 3 {
		t.Fatalf("attachments %+v, want three", attachments)
	}
	plugins := libcni.NewCNIConfigWithCacheDir([]string{cniBin}, t.TempDir(), &within{simnode: filepath.Join(bin(t), "simnode"), sysfs: sysfs, network: host})
	wantHost, wantPod := maps.Clone(all), map[string]string{}
	var done []attached
	for i, a := range attachments {
		at := attached{runtime: &libcni.RuntimeConf{ContainerID: string(p.UID), NetNS: container.file(), IfName: fmt.Sprintf("net%d", i+1)}}
		if at.network, err = libcni.NetworkPluginConfFromBytes(a.config); err != nil {
			t.Fatal(err)
		}
		address := hardwareAddress(t, sysfs, a.device)
		result, err := plugins.AddNetwork(t.Context(), at.network, at.runtime)
		if err != nil {
			t.Fatalf("ADD of %s: %v", a.config, err)
		}
		said, err := types100.NewResultFromResult(result)
		if err != nil {
			t.Fatal(err)
		}
		if address == "" { // bound to vfio-pci: there is nothing to move
			if len(said.Interfaces) > 0 {
				t.Errorf("ADD of %s answered %v, want no interface", a.device, said)
			}
			done = append(done, at)
			continue
		}
		if len(said.Interfaces) != 1 || said.Interfaces[0].Mac != address || said.Interfaces[0].Name != at.runtime.IfName {
			t.Errorf("ADD of %s (%s) answered %v", a.device, address, said)
		}
		if container.link(t, at.runtime.IfName).Attrs().Flags&net.FlagUp == 0 {
			t.Errorf("%s is not up", at.runtime.IfName)
		}
		delete(wantHost, address)
		wantPod[address] = at.runtime.IfName
		at.leaves(t, filepath.Join(sysfs, "sys/bus/pci/devices", a.device, "net"), filepath.Join(c.node.Dir, "away-"+a.device))
		done = append(done, at)
	}
	if len(wantPod) != 2 {
		t.Errorf("interfaces %v are to move, want two", wantPod)
	}
	if d := cmp.Diff(wantPod, container.hardware(t)); d != "" {
		t.Errorf("links of the pod (-want +got):\n%s", d)
	}
	if d := cmp.Diff(wantHost, host.hardware(t)); d != "" {
		t.Errorf("links that stay (-want +got):\n%s", d)
	}
	// That the other pool grows tells that the plugin has looked at the machine
	// since, and this one has lost that VF alone.
	free := c.free(t)
	if err := sysfstest.Bind(sysfs, free, "vfio-pci"); err != nil {
		t.Fatal(err)
	}
	c.allocatable(t, map[corev1.ResourceName]int64{vfioVFs: 2, kernelVFs: 3})

	for _, a := range done {
		if err := plugins.DelNetwork(t.Context(), a.network, a.runtime); err != nil {
			t.Errorf("DEL of %s: %v", a.runtime.IfName, err)
		}
		a.returns(t)
	}
	if d := cmp.Diff(map[string]string{}, container.hardware(t)); d != "" {
		t.Errorf("links of the pod after DEL (-want +got):\n%s", d)
	}
	if d := cmp.Diff(all, host.hardware(t)); d != "" {
		t.Errorf("links of the node after DEL (-want +got):\n%s", d)
	}
	c.delete(t, "attached", "before")
	c.neverUnhealthy(t)
}

// attached is a network attachment that was carried out.
type attached struct {
	network     *libcni.PluginConfig
	runtime     *libcni.RuntimeConf
	folder, out string // the device's net/, and where it is meanwhile
}

// leaves does to sysfs what the kernel does when an interface leaves the
// network namespace that sysfs shows.
func (a *attached) leaves(t *testing.T, folder, out string) {
	t.Helper()
	if err := os.Rename(folder, out); err != nil {
		t.Fatal(err)
	}
	a.folder, a.out = folder, out
}

func (a *attached) returns(t *testing.T) {
	t.Helper()
	if a.folder == "" {
		return
	}
	if err := os.Rename(a.out, a.folder); err != nil {
		t.Fatal(err)
	}
}

// hardwareAddress is that of a device's network interface, empty without one.
func hardwareAddress(t *testing.T, sysfs, device string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(sysfs, "sys/bus/pci/devices", device, "net", "*", "address"))
	if err != nil || len(found) > 1 {
		t.Fatalf("device %s has network interfaces %v: %v", device, found, err)
	}
	if len(found) == 0 {
		return ""
	}
	text, err := os.ReadFile(found[0])
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// free is a VF of the kernel pool that no pod holds.
func (c *companions) free(t *testing.T) string {
	t.Helper()
	held, err := ofKubelet(t.Context(), c.node)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"0000:3b:02.0", "0000:3b:02.1", "0000:3b:02.2", "0000:3b:02.3"} {
		taken := false
		for _, ids := range held {
			taken = taken || slices.Contains(ids, id)
		}
		if !taken {
			return id
		}
	}
	t.Fatalf("no VF is free: %v", held)
	return ""
}

var counts = regexp.MustCompile(`msg=devices .*total=(\d+) healthy=(\d+)`)

// neverUnhealthy reads in the plugin's log what it told the kubelet of its devices.
func (c *companions) neverUnhealthy(t *testing.T) {
	t.Helper()
	log, err := os.ReadFile(c.plugin.Log)
	if err != nil {
		t.Fatal(err)
	}
	told := counts.FindAllStringSubmatch(string(log), -1)
	if len(told) == 0 {
		t.Errorf("the plugin's log does not say how many devices it has:\n%s", log)
	}
	for _, m := range told {
		if m[1] != m[2] {
			t.Errorf("the plugin called a device unhealthy: %s", m[0])
		}
	}
}

// cdi: the kubelet passes the devices' names on to the container runtime, which
// finds in the specification what they stand for.
func (c *companions) cdi(t *testing.T) {
	dir := filepath.Join(c.node.Dir, "cdi")
	c.plugin.Stop()
	c.allocatable(t, map[corev1.ResourceName]int64{vdpaVFs: 0})
	var err error
	if c.plugin, err = c.node.StartPlugin(c.config, "--use-cdi", "--cdi-dir", dir); err != nil {
		t.Fatal(err)
	}
	c.allocatable(t, map[corev1.ResourceName]int64{vdpaVFs: 1, rdmaVFs: 1})
	p := c.run(t, "cdi", nil, map[corev1.ResourceName]int64{vdpaVFs: 1, rdmaVFs: 1})
	container, err := c.node.Container(t.Context(), p, "c0")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, d := range container.GetCDIDevices() {
		names = append(names, d.GetName())
	}
	slices.Sort(names)
	if d := cmp.Diff([]string{"intel.com/net-pci-rdma=0000:5e:00.2", "intel.com/net-pci-vdpa=0000:5e:00.3"}, names); d != "" {
		t.Errorf("CDI devices (-want +got):\n%s", d)
	}
	if devices := container.GetDevices(); len(devices) > 0 {
		t.Errorf("the runtime is given device nodes as well: %v", devices)
	}
	specs, err := cdi.NewCache(cdi.WithSpecDirs(dir), cdi.WithAutoRefresh(false))
	if err != nil {
		t.Fatal(err)
	}
	if errs := specs.GetErrors(); len(errs) > 0 {
		t.Errorf("specifications: %v", errs)
	}
	var nodes []string
	for _, name := range names {
		device := specs.GetDevice(name)
		if device == nil {
			t.Fatalf("no specification has device %s", name)
		}
		for _, n := range device.ContainerEdits.DeviceNodes {
			nodes = append(nodes, n.Path)
		}
	}
	if d := cmp.Diff([]string{"/dev/infiniband/issm24066", "/dev/infiniband/umad24066", "/dev/infiniband/uverbs24066", "/dev/vhost-vdpa-0"}, nodes); d != "" {
		t.Errorf("device nodes (-want +got):\n%s", d)
	}
	c.delete(t, "cdi")
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		t.Error("the specifications went with the pod")
	}
}
