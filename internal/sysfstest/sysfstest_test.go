package sysfstest_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/numalane/numalane/internal/sysfstest"
	"github.com/numalane/numalane/pkg/topology"
)

func machine() sysfstest.Machine {
	m := sysfstest.Uniform(2, 4, 2,
		sysfstest.X710("0000:3b:00.0", 0, 8), sysfstest.X710("0000:3b:00.1", 0, 8),
		sysfstest.ConnectX5("0000:d8:00.0", 1, 4), sysfstest.ENA("0000:00:05.0", -1),
		sysfstest.ConnectX6("0000:82:00.0", 1, 2), sysfstest.ACC100("0000:b0:00.0", 0, 2))
	m.NICs[0].VFsOnVFIO = []int{1}
	m.NICs[2].Switchdev = true
	m.NICs[2].Subfunctions = []int{4, 88}
	m.NICs[4].PKey, m.NICs[4].ACPIIndex = "0x8001", "3"
	m.NICs[4].Bridges = []string{"0000:7e:01.0", "0000:80:00.0", "0000:81:02.0"}
	m.Misc = []string{"vhost-net", "tun", "rdma_cm"}
	m.NUMANodes = append(m.NUMANodes, sysfstest.NUMANode{ID: 5, Socket: 1, Memory: 1 << 30})
	m.NUMANodes[1].L3Caches = 2
	m.Offline = []int{3, 11, 14}
	return m
}

func write(t *testing.T, m sysfstest.Machine) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "node", "root") // made by Write
	if err := m.Write(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// wholeLinks holds that no link of a tree dangles or leaves it.
func wholeLinks(t *testing.T, dir string) {
	t.Helper()
	top, err := filepath.EvalSymlinks(dir)
	if err != nil {
		t.Fatal(err)
	}
	links := 0
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Type()&fs.ModeSymlink == 0 {
			return err
		}
		links++
		target, err := filepath.EvalSymlinks(path)
		if err != nil {
			t.Error(err)
		} else if !strings.HasPrefix(target, top+"/") {
			t.Errorf("%s leads out of the tree, to %s", path, target)
		}
		return nil
	})
	if err != nil || links == 0 {
		t.Fatalf("%d links, %v", links, err)
	}
}

// TestReadsAsBuilt compares the machine's own account with what the reader
// makes of its tree.
func TestReadsAsBuilt(t *testing.T) {
	m := machine()
	dir := write(t, m)
	wholeLinks(t, dir)
	h, err := topology.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(h.Problems) > 0 {
		t.Errorf("problems: %v", h.Problems)
	}
	cpus := m.CPUs()
	if len(cpus) != 16 || len(h.CPUs) != len(cpus) {
		t.Fatalf("%d CPUs, read as %d; want 16", len(cpus), len(h.CPUs))
	}
	for i, c := range cpus {
		got := h.CPUs[i]
		if got.ID != c.ID || got.Online != c.Online {
			t.Errorf("CPU %+v is read as %+v", c, got)
		}
		if c.Online && (got.Core != c.Core || got.Socket != c.Socket || got.NUMANode != c.NUMANode) {
			t.Errorf("CPU %+v is read as %+v", c, got)
		}
	}
	if !h.VhostNet {
		t.Error("no vhost-net")
	}
	devices := 0
	for _, n := range m.NICs {
		devices += 1 + n.VFs
		readsAsBuilt(t, h, n)
	}
	if len(h.Devices) != devices || len(h.Subfunctions) != 2 {
		t.Errorf("%d devices and %d subfunctions, want %d and 2", len(h.Devices), len(h.Subfunctions), devices)
	}
	for _, d := range append(h.Devices, h.Subfunctions...) {
		if d.Problem != "" {
			t.Errorf("%s: %s", d.ID(), d.Problem)
		}
	}
}

// readsAsBuilt compares a NIC with its functions.
func readsAsBuilt(t *testing.T, h *topology.Host, n sysfstest.NIC) {
	t.Helper()
	pf, err := topology.ParseAddress(n.Address)
	if err != nil {
		t.Fatal(err)
	}
	functions := []topology.Address{pf}
	for i := range n.VFs {
		vf, err := n.VFAddress(i)
		if err != nil {
			t.Fatal(err)
		}
		functions = append(functions, vf)
	}
	linkType := map[bool]string{false: "ether", true: "infiniband"}[n.InfiniBand]
	for i, a := range functions {
		d, ok := h.Device(a)
		if !ok {
			t.Errorf("no device %s", a)
			continue
		}
		class, device, driver := n.Class, n.Device, n.Driver
		if class == "" {
			class = "020000"
		}
		if i > 0 {
			device, driver = n.VFDevice, n.VFDriver
		}
		onVFIO := i > 0 && slices.Contains(n.VFsOnVFIO, i-1)
		if onVFIO {
			driver = "vfio-pci"
		}
		if d.Class != class || d.Vendor != n.Vendor || d.Product != device || d.Driver != driver || d.NUMANode != n.NUMANode || d.NoIOMMU {
			t.Errorf("%s is read as %+v", a, d)
		}
		bridges := len(n.Bridges)
		if bridges == 0 && a.Bus > 0 {
			bridges = 1
		}
		if len(d.Upstream) != bridges || bridges > 1 && d.Upstream[bridges-1].String() != n.Bridges[0] {
			t.Errorf("%s is below %v, built below %v", a, d.Upstream, n.Bridges)
		}
		if d.Accelerator() || onVFIO {
			if len(d.Netdevs) > 0 || len(d.RDMA) > 0 || (d.UIO != "") != (driver == "igb_uio") {
				t.Errorf("%s is read as %+v", a, d)
			}
			continue
		}
		if len(d.Netdevs) == 0 || d.Netdevs[0].Type != linkType || d.UIO != "" {
			t.Errorf("%s is read as %+v, want %s", a, d, linkType)
		}
		if n.RDMA != (len(d.RDMA) == 1) {
			t.Errorf("%s: RDMA %+v", a, d.RDMA)
		}
		pKey := n.PKey
		if pKey == "" {
			pKey = "0xffff"
		}
		for _, r := range d.RDMA {
			if r.PKey != pKey || len(r.CharDevices) != 4 {
				t.Errorf("%s: RDMA %+v, want the key %s", a, r, pKey)
			}
		}
		if i == 0 && d.ACPIIndex != n.ACPIIndex {
			t.Errorf("%s: ACPI index %q", a, d.ACPIIndex)
		}
	}
}

func TestCPUNumbering(t *testing.T) {
	m := sysfstest.Uniform(2, 2, 2)
	m.NUMANodes[0].L3Caches = 2
	m.Offline = []int{1}
	want := []sysfstest.CPU{
		{ID: 0, Core: 0, CoreID: 0, Socket: 0, NUMANode: 0, L3: 0, Online: true},
		{ID: 1, Core: 5, CoreID: 1, Socket: 0, NUMANode: 0, L3: 1},
		{ID: 2, Core: 2, CoreID: 0, Socket: 1, NUMANode: 1, L3: 2, Online: true},
		{ID: 3, Core: 3, CoreID: 1, Socket: 1, NUMANode: 1, L3: 2, Online: true},
		{ID: 4, Core: 0, CoreID: 0, Socket: 0, NUMANode: 0, L3: 0, Online: true},
		{ID: 5, Core: 5, CoreID: 1, Socket: 0, NUMANode: 0, L3: 1, Online: true},
		{ID: 6, Core: 2, CoreID: 0, Socket: 1, NUMANode: 1, L3: 2, Online: true},
		{ID: 7, Core: 3, CoreID: 1, Socket: 1, NUMANode: 1, L3: 2, Online: true},
	}
	if diff := cmp.Diff(want, m.CPUs()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestChangesEqualBuilding: a tree whose VFs were changed reads as one that was
// built with them.
func TestChangesEqualBuilding(t *testing.T) {
	for _, vfs := range []int{0, 3, 12} {
		m := machine()
		dir := write(t, m)
		for _, pf := range []string{"0000:3b:00.1", "0000:d8:00.0"} {
			var err error
			if m, err = m.SetVFs(dir, pf, vfs); err != nil {
				t.Fatal(err)
			}
		}
		if machine().NICs[1].VFs == vfs || m.NICs[1].VFs != vfs {
			t.Fatalf("the machine has %d VFs, want %d", m.NICs[1].VFs, vfs)
		}
		wholeLinks(t, dir)
		got, err := topology.Read(dir)
		if err != nil {
			t.Fatal(err)
		}
		want, err := topology.Read(write(t, m))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%d VFs (-built +changed):\n%s", vfs, diff)
		}
	}
}

func TestChangesLeaveWholeTree(t *testing.T) {
	dir := write(t, machine())
	for _, err := range []error{
		sysfstest.SetCarrier(dir, "enp59s0f0", false),
		sysfstest.RemoveNetdev(dir, "enp59s0f0v0"),
		sysfstest.Bind(dir, "0000:d8:00.2", "vfio-pci"),
		sysfstest.Bind(dir, "0000:d8:00.2", "mlx5_core"),
		sysfstest.Bind(dir, "0000:3b:02.0", "uio_pci_generic"),
		sysfstest.Bind(dir, "0000:3b:02.0", "iavf"),
		sysfstest.AddVDPA(dir, "0000:d8:00.3", "vdpa0", "vhost_vdpa"),
		sysfstest.AddVDPA(dir, "mlx5_core.sf.6", "vdpa1", "virtio_vdpa"),
		sysfstest.AddVDPA(dir, "0000:00:05.0", "vdpa2", ""),
		sysfstest.Bind(dir, "0000:d8:00.3", "vfio-pci"),
		sysfstest.RemoveDevice(dir, "0000:00:05.0"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	wholeLinks(t, dir)
	if b, err := os.ReadFile(filepath.Join(dir, "sys/class/net/enp59s0f0/operstate")); err != nil || string(b) != "down\n" {
		t.Errorf("operstate %q, %v", b, err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "sys/bus/pci/devices/0000:00:05.0")); !os.IsNotExist(err) {
		t.Errorf("the removed device: %v", err)
	}
	// What a driver made goes with it, from its class and its bus as well.
	for class, want := range map[string]int{"class/uio": 1, "bus/vdpa/devices": 1} { // the accelerator's, the subfunction's
		if left, err := os.ReadDir(filepath.Join(dir, "sys", class)); err != nil || len(left) != want {
			t.Errorf("%s has %v, %v", class, left, err)
		}
	}
}

// TestUnpack refuses what is no archive, and what would leave the folder.
func TestUnpack(t *testing.T) {
	for _, content := range []string{"", "no archive", "\x1f\x8b", "BZh9 and then nothing"} {
		if root, err := sysfstest.Unpack(strings.NewReader(content), t.TempDir()); err == nil {
			t.Errorf("%q is unpacked to %s", content, root)
		}
	}
	var b bytes.Buffer
	zip := gzip.NewWriter(&b)
	tw := tar.NewWriter(zip)
	err := errors.Join(tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "../outside", Mode: 0o644}), tw.Close(), zip.Close())
	if err != nil {
		t.Fatal(err)
	}
	if root, err := sysfstest.Unpack(&b, t.TempDir()); err == nil {
		t.Errorf("a file outside is unpacked, to %s", root)
	}
}

func TestRefuses(t *testing.T) {
	dir := write(t, machine())
	change := func(f func(*sysfstest.Machine)) error {
		m := machine()
		f(&m)
		return m.Write(filepath.Join(t.TempDir(), "root"))
	}
	_, noNIC := machine().SetVFs(dir, "0000:01:00.0", 1)
	for want, err := range map[string]error{
		"NUMA node 0 is negative or listed twice": change(func(m *sysfstest.Machine) { m.NUMANodes[1].ID = 0 }),
		"2 cores share 3 L3 caches":               change(func(m *sysfstest.Machine) { m.NUMANodes[0].Cores, m.NUMANodes[0].L3Caches, m.Offline = 2, 3, nil }),
		"offline CPU 16":                          change(func(m *sysfstest.Machine) { m.Offline = []int{16} }),
		"0000:3b:02.0 is taken":                   change(func(m *sysfstest.Machine) { m.NICs[3].Address = "0000:3b:02.0" }),
		"65 VFs of 64":                            change(func(m *sysfstest.Machine) { m.NICs[0].VFs = 65 }),
		"PCI address \"3b\"":                      change(func(m *sysfstest.Machine) { m.NICs[0].Address = "3b" }),
		"bridge: PCI address \"7e\"":              change(func(m *sysfstest.Machine) { m.NICs[4].Bridges[0] = "7e" }),
		"subfunction mlx5_core.sf.6 is taken":     change(func(m *sysfstest.Machine) { m.NICs[4].Subfunctions = []int{4} }),
		"add vDPA device":                         sysfstest.AddVDPA(dir, "mlx5_core.sf.99", "vdpa0", ""),
		"beyond the last bus":                     change(func(m *sysfstest.Machine) { m.NICs[0].Address = "0000:ff:1f.0" }),
		"file exists":                             machine().Write(dir),
		"no NIC 0000:01:00.0":                     noNIC,
		"set carrier":                             sysfstest.SetCarrier(dir, "eth7", true),
		"remove netdev":                           sysfstest.RemoveNetdev(dir, "eth7"),
		"bind":                                    sysfstest.Bind(dir, "0000:01:00.0", "vfio-pci"),
		"remove device":                           sysfstest.RemoveDevice(dir, "0000:01:00.0"),
		"remove file":                             sysfstest.RemoveFile(dir, "0000:3b:00.0", "physfn"),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
