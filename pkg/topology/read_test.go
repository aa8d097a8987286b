package topology_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jaypipes/pcidb"

	"github.com/numalane/numalane/internal/sysfstest"
	"github.com/numalane/numalane/pkg/topology"
)

func read(tb testing.TB, dir string, opts ...topology.Option) *topology.Host {
	tb.Helper()
	h, err := topology.Read(dir, opts...)
	if err != nil {
		tb.Fatal(err)
	}
	return h
}

func build(t *testing.T, m sysfstest.Machine) string {
	t.Helper()
	dir := t.TempDir()
	if err := m.Write(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

func address(t *testing.T, s string) topology.Address {
	t.Helper()
	a, err := topology.ParseAddress(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func device(t *testing.T, h *topology.Host, addr string) topology.Device {
	t.Helper()
	d, ok := h.Device(address(t, addr))
	if !ok {
		t.Fatalf("no device %s", addr)
	}
	return *d
}

func pfAndVF(t *testing.T, pf, vf topology.Device, netdev, vfNetdev string, speed int, rdma, vfRDMA []string, total int) []topology.Device {
	t.Helper()
	pf.Class, vf.Class = "020000", "020000"
	pf.Netdevs = []topology.Netdev{{Name: netdev, Type: "ether", Up: true, Speed: speed}}
	vf.Netdevs = []topology.Netdev{{Name: vfNetdev, Type: "ether", Up: true}}
	for _, r := range rdma {
		pf.RDMA = append(pf.RDMA, rdmaDevice(r, pf.Address, "0xffff"))
	}
	for _, r := range vfRDMA {
		vf.RDMA = append(vf.RDMA, rdmaDevice(r, vf.Address, "0xffff"))
	}
	port := topology.Address{Domain: pf.Address.Domain, Bus: pf.Address.Bus - 1}
	pf.Upstream, vf.Upstream = []topology.Address{port}, []topology.Address{port}
	pf.NUMANode, vf.NUMANode = 1, 1
	pf.PF = &topology.PhysicalFunction{TotalVFs: total, NumVFs: 1, VFs: []topology.Address{vf.Address}}
	vf.VF = &topology.VirtualFunction{PF: pf.Address, PFName: netdev}
	return []topology.Device{pf, vf}
}

// rdmaDevice is one as sysfstest makes it: numbered after the function's place.
func rdmaDevice(name string, a topology.Address, pKey string) topology.RDMADevice {
	n := int(a.Domain)<<16 | int(a.Bus)<<8 | int(a.Device)<<3 | int(a.Function)
	return topology.RDMADevice{Name: name, PKey: pKey, CharDevices: charDevices(n)}
}

func charDevices(n int) []string {
	return []string{fmt.Sprintf("issm%d", n), fmt.Sprintf("umad%d", n), fmt.Sprintf("uverbs%d", n)}
}

// TestNICs reads a built tree of each of the article's NICs.
func TestNICs(t *testing.T) {
	at := func(a, vendor, product, driver string) topology.Device {
		return topology.Device{Address: address(t, a), Vendor: vendor, Product: product, Driver: driver}
	}
	tests := []struct {
		name string
		nic  sysfstest.NIC
		want []topology.Device
	}{
		{"X710", sysfstest.X710("0000:3b:00.0", 1, 1), pfAndVF(t, at("0000:3b:00.0", "8086", "1572", "i40e"), at("0000:3b:02.0", "8086", "154c", "iavf"),
			"enp59s0f0", "enp59s0f0v0", 10000, nil, nil, 64)},
		{"82599", sysfstest.Intel82599("0000:04:00.1", 1, 1), pfAndVF(t, at("0000:04:00.1", "8086", "10fb", "ixgbe"), at("0000:04:10.1", "8086", "10ed", "ixgbevf"),
			"enp4s0f1", "enp4s0f1v0", 10000, nil, nil, 63)},
		{"ConnectX-4 Lx", sysfstest.ConnectX4Lx("0000:5e:00.0", 1, 1), pfAndVF(t, at("0000:5e:00.0", "15b3", "1015", "mlx5_core"), at("0000:5e:00.2", "15b3", "1016", "mlx5_core"),
			"enp94s0f0", "enp94s0f0v0", 25000, []string{"rocep94s0f0"}, []string{"rocep94s0f0v0"}, 64)},
		{"ConnectX-5 in a 5-digit domain", sysfstest.ConnectX5("10000:01:00.0", 1, 1), pfAndVF(t, at("10000:01:00.0", "15b3", "1017", "mlx5_core"), at("10000:01:00.2", "15b3", "1018", "mlx5_core"),
			"enP10000p1s0f0", "enP10000p1s0f0v0", 100000, []string{"roceP10000p1s0f0"}, []string{"roceP10000p1s0f0v0"}, 64)},
		// ghw reads domains up to 1ffff, and loses every device for one beyond.
		{"X710 in a domain that ghw does not read", sysfstest.X710("20000:01:00.0", 1, 1), pfAndVF(t, at("20000:01:00.0", "8086", "1572", "i40e"), at("20000:01:02.0", "8086", "154c", "iavf"),
			"enP20000p1s0f0", "enP20000p1s0f0v0", 10000, nil, nil, 64)},
		{"ENA without a PF", sysfstest.ENA("0000:00:05.0", -1), []topology.Device{{
			Address: address(t, "0000:00:05.0"), Class: "020000", Vendor: "1d0f", Product: "ec20", Driver: "ena", NUMANode: topology.NoNUMANode,
			Netdevs: []topology.Netdev{{Name: "enp0s5f0", Type: "ether", Up: true}},
		}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := read(t, build(t, sysfstest.Uniform(2, 1, 1, tt.nic)))
			if diff := cmp.Diff(tt.want, h.Devices, cmpopts.IgnoreFields(topology.Device{}, "IOMMUGroup")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			for _, d := range h.Devices {
				if d.IOMMUGroup == "" {
					t.Errorf("%s: no IOMMU group", d.Address)
				}
			}
			checkProblems(t, h)
		})
	}
}

func TestVFIndexes(t *testing.T) {
	h := read(t, build(t, sysfstest.Uniform(2, 1, 1,
		sysfstest.X710("0000:3b:00.0", 0, 64), sysfstest.X710("0000:3b:00.1", 0, 64))))
	if len(h.Devices) != 130 {
		t.Fatalf("%d devices, want 130", len(h.Devices))
	}
	for _, pf := range []string{"0000:3b:00.0", "0000:3b:00.1"} {
		for i, a := range device(t, h, pf).PF.VFs {
			vf := device(t, h, a.String())
			want := &topology.VirtualFunction{PF: address(t, pf), PFName: "enp59s0f" + pf[len(pf)-1:], Index: i}
			if diff := cmp.Diff(want, vf.VF); diff != "" {
				t.Errorf("%s (-want +got):\n%s", a, diff)
			}
		}
	}
}

// TestSwitchdev holds that the PF's name is its own netdev's, not that of a
// representor that sorts before it.
func TestSwitchdev(t *testing.T) {
	nic := sysfstest.E810("0000:3b:00.0", 0, 2)
	nic.Switchdev = true
	dir := build(t, sysfstest.Uniform(1, 1, 1, nic))
	net := filepath.Join(dir, "sys/bus/pci/devices/0000:3b:00.0/net")
	if err := os.Rename(filepath.Join(net, "enp59s0f0_1"), filepath.Join(net, "a1")); err != nil {
		t.Fatal(err)
	}
	h := read(t, dir)
	want := []topology.Netdev{
		{Name: "enp59s0f0", Type: "ether", Up: true, Speed: 100000},
		{Name: "a1", Type: "ether", Up: true, Speed: 100000},
		{Name: "enp59s0f0_0", Type: "ether", Up: true, Speed: 100000},
	}
	if diff := cmp.Diff(want, device(t, h, "0000:3b:00.0").Netdevs); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := device(t, h, "0000:3b:01.0").VF.PFName; got != "enp59s0f0" {
		t.Errorf("PF name %q", got)
	}
	// With the uplink in another network namespace the PF has no name here,
	// though one representor is left.
	for _, gone := range []string{"enp59s0f0", "a1"} {
		if err := os.RemoveAll(filepath.Join(net, gone)); err != nil {
			t.Fatal(err)
		}
	}
	h = read(t, dir)
	if pf := device(t, h, "0000:3b:00.0"); len(pf.Netdevs) != 1 || pf.Netdevs[0].Name != "enp59s0f0_0" {
		t.Errorf("netdevs %v", pf.Netdevs)
	}
	if got := device(t, h, "0000:3b:01.0").VF.PFName; got != "" {
		t.Errorf("PF name %q, of a representor", got)
	}
}

// TestLive changes a tree as a running host does.
func TestLive(t *testing.T) {
	m := sysfstest.Uniform(2, 2, 1, sysfstest.X710("0000:3b:00.0", 0, 4))
	dir := build(t, m)
	check := func(step string, err error, devices int) *topology.Host {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", step, err)
		}
		h := read(t, dir)
		if len(h.Devices) != devices {
			t.Errorf("%s: %d devices, want %d", step, len(h.Devices), devices)
		}
		checkProblems(t, h)
		for _, d := range h.Devices {
			if d.Problem != "" {
				t.Errorf("%s: %s: %s", step, d.Address, d.Problem)
			}
		}
		return h
	}
	m, err := m.SetVFs(dir, "0000:3b:00.0", 2)
	check("fewer VFs", err, 3)
	m, err = m.SetVFs(dir, "0000:3b:00.0", 8)
	h := check("more VFs", err, 9)
	if got := device(t, h, "0000:3b:02.7").VF.Index; got != 7 {
		t.Errorf("the last VF has index %d", got)
	}
	_, err = m.SetVFs(dir, "0000:3b:00.0", 65)
	if err == nil {
		t.Error("65 VFs of 64 were made")
	}

	h = check("link down", sysfstest.SetCarrier(dir, "enp59s0f0", false), 9)
	if got := device(t, h, "0000:3b:00.0").Netdevs[0]; got.Up || got.Speed != 0 {
		t.Errorf("without carrier: %+v", got)
	}
	h = check("vfio", sysfstest.Bind(dir, "0000:3b:02.1", "vfio-pci"), 9)
	if got := device(t, h, "0000:3b:02.1"); got.Driver != "vfio-pci" || len(got.Netdevs) != 0 {
		t.Errorf("bound to vfio-pci: %+v", got)
	}
	h = check("netns", sysfstest.RemoveNetdev(dir, "enp59s0f0v2"), 9)
	if got := device(t, h, "0000:3b:02.2"); len(got.Netdevs) != 0 || got.Problem != "" {
		t.Errorf("netdev moved away: %+v", got)
	}
}

// TestTorn breaks one device at a time. The others stand, with all they have.
func TestTorn(t *testing.T) {
	const pf, vf = "0000:3b:00.0", "0000:3b:02.1"
	tests := []struct {
		name    string
		breakIt func(dir string) error
		device  string // the one with the problem
		problem string
		then    func(*topology.Device) // what else differs of it
		other   string                 // the problem of the VF, when the PF is the device
	}{
		{
			"no modalias", func(dir string) error { return sysfstest.RemoveFile(dir, vf, "modalias") }, vf,
			"modalias: no such file or directory", nil, "",
		},
		{"modalias of another bus", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "sys/bus/pci/devices", vf, "modalias"), []byte("usb:v1D6Bp0002\n"), 0o644)
		}, vf, `modalias: "usb:v1D6Bp0002" is not that of a PCI device`, nil, ""},
		{"no modalias, vendor unreadable", func(dir string) error {
			if err := sysfstest.RemoveFile(dir, vf, "modalias"); err != nil {
				return err
			}
			return sysfstest.MakeUnreadable(dir, vf, "vendor")
		}, vf, "modalias: no such file or directory; vendor: is a directory", func(d *topology.Device) { d.Vendor = "" }, ""},
		{
			"no numa_node", func(dir string) error { return sysfstest.RemoveFile(dir, vf, "numa_node") }, vf,
			"numa_node: no such file or directory", func(d *topology.Device) { d.NUMANode = topology.NoNUMANode }, "",
		},
		{"numa_node is no number", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "sys/bus/pci/devices", vf, "numa_node"), nil, 0o644)
		}, vf, `numa_node: "" is not a number`, func(d *topology.Device) { d.NUMANode = topology.NoNUMANode }, ""},
		{
			"physfn leads nowhere", func(dir string) error { return sysfstest.Relink(dir, vf, "physfn", "../0000:3b:00.7") }, vf,
			"physfn: 0000:3b:00.7 is not there", func(d *topology.Device) {
				d.VF = &topology.VirtualFunction{PF: topology.Address{Bus: 0x3b, Function: 7}, Index: -1}
			}, "",
		},
		{
			"physfn is no address", func(dir string) error { return sysfstest.Relink(dir, vf, "physfn", "../nowhere") }, vf,
			`physfn: PCI address "nowhere": want the form 0000:3b:02.0`, func(d *topology.Device) { d.VF = &topology.VirtualFunction{Index: -1} }, "",
		},
		{
			"physfn of another PF", func(dir string) error { return sysfstest.Relink(dir, vf, "physfn", "../0000:d8:00.0") }, vf,
			"physfn: 0000:d8:00.0 has no virtfn link to it", func(d *topology.Device) {
				d.VF = &topology.VirtualFunction{PF: topology.Address{Bus: 0xd8}, PFName: "enp216s0f0", Index: -1}
			}, "",
		},
		{
			"virtfn leads nowhere", func(dir string) error { return sysfstest.RemoveDevice(dir, vf) }, pf,
			"virtfn1: 0000:3b:02.1 is not there", nil, "",
		},
		{
			"virtfn is no address", func(dir string) error { return sysfstest.Relink(dir, pf, "virtfn1", "nowhere") }, pf,
			`virtfn1: PCI address "nowhere": want the form 0000:3b:02.0`, func(d *topology.Device) { d.PF.VFs = append(d.PF.VFs[:1:1], d.PF.VFs[2:]...) },
			"physfn: 0000:3b:00.0 has no virtfn link to it",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := build(t, sysfstest.Uniform(2, 1, 1, sysfstest.X710(pf, 0, 2), sysfstest.ConnectX5("0000:d8:00.0", 1, 0)))
			want := read(t, dir)
			checkProblems(t, want)
			if len(want.Devices) != 4 {
				t.Fatalf("%d devices before, want 4", len(want.Devices))
			}
			if err := tt.breakIt(dir); err != nil {
				t.Fatal(err)
			}
			got := read(t, dir)
			var devices []topology.Device
			for _, d := range want.Devices {
				addr := d.Address.String()
				if _, err := os.Lstat(filepath.Join(dir, "sys/bus/pci/devices", addr)); err != nil {
					continue // what was removed is no device
				}
				if addr == tt.device {
					d.Problem = tt.problem
					if tt.then != nil {
						tt.then(&d)
					}
				} else if addr == vf && tt.other != "" {
					d.Problem, d.VF.Index = tt.other, -1
				}
				devices = append(devices, d)
			}
			if diff := cmp.Diff(devices, got.Devices); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			checkProblems(t, got)
		})
	}
}

// TestGoneDevice is a link on the bus whose device went away, and one that
// tells nothing: neither is an empty machine.
func TestGoneDevice(t *testing.T) {
	const vf = "0000:3b:02.0"
	dir := build(t, sysfstest.Uniform(1, 1, 1, sysfstest.X710("0000:3b:00.0", 0, 2)))
	if err := os.Symlink("../../../devices/gone", filepath.Join(dir, "sys/bus/pci/devices/0000:01:00.0")); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"modalias", "class"} {
		if err := sysfstest.RemoveFile(dir, vf, f); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../../../devices/gone", filepath.Join(dir, "sys/bus/pci/devices/whatever")); err != nil {
		t.Fatal(err)
	}
	h := read(t, dir)
	checkProblems(t, h, "bus/pci/devices/0000:01:00.0: went away during the scan",
		"bus/pci/devices/0000:3b:02.0: modalias: no such file or directory; class: no such file or directory",
		`bus/pci/devices/whatever: PCI address "whatever"`)
	if len(h.Devices) != 2 {
		t.Errorf("%d devices, want the PF and the other VF", len(h.Devices))
	}
}

func TestNotAMachine(t *testing.T) {
	if _, err := topology.Read(filepath.Join(t.TempDir(), "none")); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("a folder that does not exist: %v", err)
	}
	for _, name := range []string{"empty", "empty sys"} {
		dir := t.TempDir()
		if name == "empty sys" {
			if err := os.Mkdir(filepath.Join(dir, "sys"), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if h, err := topology.Read(dir); err == nil || !strings.Contains(err.Error(), "no sysfs there") {
			t.Errorf("%s: %v, %v", name, h, err)
		}
	}
	// A bus that is there and cannot be listed is no empty bus.
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "sys/bus/pci"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "sys/bus/pci/devices"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if h, err := topology.Read(dir); err == nil || !strings.Contains(err.Error(), "list PCI devices") {
		t.Errorf("unreadable bus: %v, %v", h, err)
	}
}

func TestNames(t *testing.T) {
	db := &pcidb.PCIDB{
		Vendors:  map[string]*pcidb.Vendor{"8086": {ID: "8086", Name: "Intel Corporation"}},
		Products: map[string]*pcidb.Product{"80861572": {ID: "1572", Name: "Ethernet Controller X710"}},
	}
	dir := build(t, sysfstest.Uniform(1, 1, 1, sysfstest.X710("0000:3b:00.0", 0, 2), sysfstest.ENA("0000:00:05.0", 0)))
	for _, broken := range []bool{false, true} {
		if broken { // and ghw tells nothing any more
			if err := sysfstest.RemoveFile(dir, "0000:3b:02.1", "modalias"); err != nil {
				t.Fatal(err)
			}
		}
		h := read(t, dir, topology.WithPCIDB(db))
		for addr, want := range map[string][2]string{
			"0000:3b:00.0": {"Intel Corporation", "Ethernet Controller X710"},
			"0000:3b:02.0": {"Intel Corporation", ""},
			"0000:00:05.0": {"", ""},
		} {
			if d := device(t, h, addr); d.VendorName != want[0] || d.ProductName != want[1] {
				t.Errorf("%s: %q, %q, want %q", addr, d.VendorName, d.ProductName, want)
			}
		}
	}
}

// TestVFsUnderWay: while VFs are made or removed, sriov_numvfs cannot be read
// without waiting for the end.
func TestVFsUnderWay(t *testing.T) {
	const pf = "0000:3b:00.0"
	dir := build(t, sysfstest.Uniform(2, 1, 1, sysfstest.X710(pf, 0, 2)))
	want := read(t, dir)
	file := filepath.Join(dir, "sys/bus/pci/devices", pf, "sriov_numvfs")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(file, 0o644); err != nil { // who opens it waits
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, read(t, dir)); diff != "" {
		t.Errorf("(-before +under way)\n%s", diff)
	}
}
