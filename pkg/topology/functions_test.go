package topology_test

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/numalane/numalane/internal/sysfstest"
	"github.com/numalane/numalane/pkg/topology"
)

// change applies changes to a written tree.
func change(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func write(t *testing.T, content string, path ...string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(path...), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestAccelerators: PFs and VFs as NICs are, by their class.
func TestAccelerators(t *testing.T) {
	const pf, vf = "0000:b0:00.0", "0000:b0:02.0"
	dir := build(t, sysfstest.Uniform(2, 1, 1, sysfstest.X710("0000:3b:00.0", 0, 0), sysfstest.ACC100(pf, 1, 1)))
	h := read(t, dir)
	checkProblems(t, h)
	port := []topology.Address{address(t, "0000:af:00.0")}
	want := []topology.Device{
		{
			Address: address(t, pf), Class: "120001", Vendor: "8086", Product: "0d5c", Driver: "igb_uio", NUMANode: 1, IOMMUGroup: "45056",
			UIO: "uio45056", Upstream: port, PF: &topology.PhysicalFunction{TotalVFs: 16, NumVFs: 1, VFs: []topology.Address{address(t, vf)}},
		},
		{
			Address: address(t, vf), Class: "120001", Vendor: "8086", Product: "0d5d", Driver: "vfio-pci", NUMANode: 1, IOMMUGroup: "45072",
			Upstream: port, VF: &topology.VirtualFunction{PF: address(t, pf)},
		},
	}
	if diff := cmp.Diff(want, h.Devices[1:]); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for i, accelerator := range []bool{false, true, true} {
		if d := &h.Devices[i]; d.Accelerator() != accelerator || d.ID() != d.Address.String() {
			t.Errorf("%s of class %s: accelerator %v, id %s", d.Address, d.Class, d.Accelerator(), d.ID())
		}
	}
}

// TestSubfunctions of a PF in switchdev mode: their PF is named by its uplink.
func TestSubfunctions(t *testing.T) {
	pf := sysfstest.ConnectX5("0000:5e:00.0", 1, 1)
	pf.Switchdev, pf.Subfunctions, pf.ACPIIndex = true, []int{88, 4}, "7"
	dir := build(t, sysfstest.Uniform(2, 1, 1, pf))
	change(t, sysfstest.AddVDPA(dir, "mlx5_core.sf.6", "vdpa3", "virtio_vdpa"))
	h := read(t, dir)
	checkProblems(t, h)
	sf := func(name, netdev string, sfnum, n int) topology.Device {
		rdma := topology.RDMADevice{Name: "roce" + netdev[2:], PKey: "0xffff", CharDevices: charDevices(n)}
		return topology.Device{
			Address: address(t, "0000:5e:00.0"), Class: "020000", Vendor: "15b3", Product: "1017", Driver: "mlx5_core", ACPIIndex: "7", NUMANode: 1,
			Netdevs: []topology.Netdev{{Name: netdev, Type: "ether", Up: true}}, RDMA: []topology.RDMADevice{rdma},
			Upstream: []topology.Address{address(t, "0000:5d:00.0")},
			Aux:      &topology.AuxiliaryDevice{Name: name, Type: "sf", SFNum: sfnum, Driver: "mlx5_core.sf"},
			VF:       &topology.VirtualFunction{PF: address(t, "0000:5e:00.0"), PFName: "enp94s0f0", Index: -1},
		}
	}
	want := []topology.Device{sf("mlx5_core.sf.6", "enp94s0f0s4", 4, 1<<16+4), sf("mlx5_core.sf.90", "enp94s0f0s88", 88, 1<<16+88)}
	want[0].VDPA = &topology.VDPADevice{Name: "vdpa3", Driver: "virtio_vdpa"}
	if diff := cmp.Diff(want, h.Subfunctions); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := h.Subfunctions[0].ID(); got != "mlx5_core.sf.6" {
		t.Errorf("id %q", got)
	}
	if len(h.Devices) != 2 {
		t.Errorf("%d devices, want the PF and its VF", len(h.Devices))
	}
	for _, d := range h.Devices {
		if d.VDPA != nil {
			t.Errorf("%s has the vDPA device of its subfunction", d.Address)
		}
	}
}

// TestTornSubfunctions: what a subfunction lacks is told, and what is no
// subfunction of a network device is none.
func TestTornSubfunctions(t *testing.T) {
	const aux, parent = "sys/bus/auxiliary/devices", "0000:5e:00.0"
	tests := []struct {
		name     string
		breakIt  func(dir string) error
		problem  string // of the subfunction
		problems []string
		sfnum    int
		gone     bool
	}{
		{"no sfnum", func(dir string) error { return os.Remove(filepath.Join(dir, aux, "mlx5_core.sf.6/sfnum")) }, "", nil, -1, false},
		{"sfnum is no number", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, aux, "mlx5_core.sf.6/sfnum"), []byte("four\n"), 0o644)
		}, `sfnum: "four" is not a number`, nil, -1, false},
		{
			"the parent's NUMA node", func(dir string) error { return sysfstest.RemoveFile(dir, parent, "numa_node") },
			"0000:5e:00.0: numa_node: no such file or directory", nil, 4, false,
		},
		{
			"the parent is gone", func(dir string) error { return os.Remove(filepath.Join(dir, "sys/bus/pci/devices", parent)) },
			"",
			[]string{"bus/auxiliary/devices/mlx5_core.sf.6: its PCI device 0000:5e:00.0 is not there"},
			0, true,
		},
		{"a link that leads nowhere", func(dir string) error {
			return os.Symlink("../../../devices/platform/mlx5_core.sf.1", filepath.Join(dir, aux, "mlx5_core.sf.1"))
		}, "", nil, 4, false},
		{"names of another form", func(dir string) error {
			for _, name := range []string{"mlx5_core.sf", "sf", "a.sf.1.2"} {
				if err := os.Symlink("../../../devices/pci0000:5d/0000:5d:00.0/"+parent+"/mlx5_core.sf.6", filepath.Join(dir, aux, name)); err != nil {
					return err
				}
			}
			return nil
		}, "", nil, 4, false},
		{"a bus that is a file", func(dir string) error {
			if err := os.RemoveAll(filepath.Join(dir, aux)); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(dir, aux), nil, 0o644)
		}, "", []string{"bus/auxiliary/devices: not a directory"}, 0, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			nic := sysfstest.ConnectX5(parent, 0, 0)
			nic.Subfunctions = []int{4}
			dir := build(t, sysfstest.Uniform(1, 1, 1, nic))
			change(t, tt.breakIt(dir))
			h := read(t, dir)
			checkProblems(t, h, tt.problems...)
			if tt.gone {
				if len(h.Subfunctions) > 0 {
					t.Errorf("subfunctions %+v", h.Subfunctions)
				}
				return
			}
			if len(h.Subfunctions) != 1 {
				t.Fatalf("%d subfunctions", len(h.Subfunctions))
			}
			if sf := h.Subfunctions[0]; sf.Problem != tt.problem || sf.Aux.SFNum != tt.sfnum {
				t.Errorf("problem %q, sfnum %d; want %q, %d", sf.Problem, sf.Aux.SFNum, tt.problem, tt.sfnum)
			}
		})
	}
}

// TestUserspaceDrivers rebinds a VF as an administrator does, with an IOMMU and
// without.
func TestUserspaceDrivers(t *testing.T) {
	const vf = "0000:3b:02.0"
	for _, noIOMMU := range []bool{false, true} {
		m := sysfstest.Uniform(1, 1, 1, sysfstest.X710("0000:3b:00.0", 0, 2))
		m.NoIOMMU = noIOMMU
		dir := build(t, m)
		bound := func(driver string) topology.Device {
			t.Helper()
			change(t, sysfstest.Bind(dir, vf, driver))
			h := read(t, dir)
			checkProblems(t, h)
			d := device(t, h, vf)
			if d.Driver != driver || d.Problem != "" {
				t.Fatalf("bound to %s: %+v", driver, d)
			}
			return d
		}
		group := map[bool]string{false: "15120"}[noIOMMU]
		if d := bound("vfio-pci"); d.IOMMUGroup != "15120" || d.NoIOMMU != noIOMMU || d.UIO != "" {
			t.Errorf("without an IOMMU %v, vfio-pci: group %s, without an IOMMU %v, %s", noIOMMU, d.IOMMUGroup, d.NoIOMMU, d.UIO)
		}
		for _, driver := range []string{"uio_pci_generic", "igb_uio"} {
			if d := bound(driver); d.IOMMUGroup != group || d.NoIOMMU || d.UIO != "uio15120" {
				t.Errorf("without an IOMMU %v, %s: group %q, %v, %s", noIOMMU, driver, d.IOMMUGroup, d.NoIOMMU, d.UIO)
			}
		}
		if d := bound("iavf"); d.IOMMUGroup != group || d.NoIOMMU || d.UIO != "" {
			t.Errorf("without an IOMMU %v, back: group %q, %v, %s", noIOMMU, d.IOMMUGroup, d.NoIOMMU, d.UIO)
		}
		if d := device(t, read(t, dir), "0000:3b:02.1"); d.IOMMUGroup == "" != noIOMMU || d.UIO != "" {
			t.Errorf("the other VF: %+v", d)
		}
	}
	// A group of the same name that VFIO did not make is an IOMMU's.
	dir := build(t, sysfstest.Uniform(1, 1, 1, sysfstest.X710("0000:3b:00.0", 0, 1)))
	change(t, sysfstest.Bind(dir, vf, "vfio-pci"))
	write(t, "domain0-pe1\n", dir, "sys/kernel/iommu_groups/15120/name")
	if d := device(t, read(t, dir), vf); d.NoIOMMU {
		t.Errorf("a named group of an IOMMU: %+v", d)
	}
}

func TestVDPA(t *testing.T) {
	dir := build(t, sysfstest.Uniform(1, 1, 1, sysfstest.ConnectX5("0000:5e:00.0", 0, 4)))
	change(t,
		sysfstest.AddVDPA(dir, "0000:5e:00.2", "vdpa0", "vhost_vdpa"),
		sysfstest.AddVDPA(dir, "0000:5e:00.3", "vdpa1", "virtio_vdpa"),
		sysfstest.AddVDPA(dir, "0000:5e:00.4", "vdpa2", ""),
		sysfstest.AddVDPA(dir, "0000:5e:00.5", "b", "virtio_vdpa"),
		sysfstest.AddVDPA(dir, "0000:5e:00.5", "a", "vhost_vdpa"),
	)
	h := read(t, dir)
	checkProblems(t, h)
	got := map[string]*topology.VDPADevice{}
	for i := range h.Devices {
		if d := &h.Devices[i]; d.VDPA != nil {
			got[d.ID()] = d.VDPA
		}
	}
	want := map[string]*topology.VDPADevice{
		"0000:5e:00.2": {Name: "vdpa0", Driver: "vhost_vdpa", CharDevice: "vhost-vdpa-0"},
		"0000:5e:00.3": {Name: "vdpa1", Driver: "virtio_vdpa"},
		"0000:5e:00.4": {Name: "vdpa2"},
		"0000:5e:00.5": {Name: "a", Driver: "vhost_vdpa", CharDevice: "vhost-vdpa-1"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	change(t, sysfstest.Bind(dir, "0000:5e:00.2", "vfio-pci"))
	if d := device(t, read(t, dir), "0000:5e:00.2"); d.VDPA != nil {
		t.Errorf("without its driver: %+v", d.VDPA)
	}
}

// TestInfiniBand: link type, partition key and character devices.
func TestInfiniBand(t *testing.T) {
	nic := sysfstest.ConnectX6("0000:5e:00.0", 0, 2)
	nic.PKey, nic.ACPIIndex = "0x8001", "7"
	m := sysfstest.Uniform(1, 1, 1, nic)
	m.Misc = []string{"rdma_cm"}
	dir := build(t, m)
	h := read(t, dir)
	checkProblems(t, h)
	rdma := rdmaDevice("ibp94s0f0v1", address(t, "0000:5e:00.2"), "0x8001")
	rdma.CharDevices = append(rdma.CharDevices[:1:1], append([]string{"rdma_cm"}, rdma.CharDevices[1:]...)...)
	vf := device(t, h, "0000:5e:00.2")
	if diff := cmp.Diff([]topology.RDMADevice{rdma}, vf.RDMA); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]topology.Netdev{{Name: "ibp94s0f0v1", Type: "infiniband", Up: true}}, vf.Netdevs); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if pf := device(t, h, "0000:5e:00.0"); pf.ACPIIndex != "7" || vf.ACPIIndex != "" {
		t.Errorf("ACPI indexes %q and %q", pf.ACPIIndex, vf.ACPIIndex)
	}
	// A tunnel's or a modem's link type has no name here.
	write(t, "768\n", dir, "sys/class/net/ibp94s0f0v1/type")
	if got := device(t, read(t, dir), "0000:5e:00.2").Netdevs[0].Type; got != "" {
		t.Errorf("type 768 is %q", got)
	}
	// Of two infiniband devices of one function each has its own.
	base := filepath.Join(dir, "sys/bus/pci/devices/0000:5e:00.2")
	for _, d := range []string{"infiniband/a", "infiniband_verbs/uverbs7"} {
		if err := os.MkdirAll(filepath.Join(base, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, "a\n", base, "infiniband_verbs/uverbs7/ibdev")
	two := []topology.RDMADevice{{Name: "a", CharDevices: []string{"rdma_cm", "uverbs7"}}, rdma}
	if diff := cmp.Diff(two, device(t, read(t, dir), "0000:5e:00.2").RDMA); diff != "" {
		t.Errorf("two infiniband devices (-want +got):\n%s", diff)
	}
}

// TestTornFiles: a file that is there and cannot be read is named.
func TestTornFiles(t *testing.T) {
	const vf = "0000:5e:00.2"
	for file, problem := range map[string]string{
		"net/enp94s0f0v0/type":                     "enp94s0f0v0/type: is a directory",
		"infiniband/rocep94s0f0v0/ports/1/pkeys/0": "infiniband/rocep94s0f0v0/ports/1/pkeys/0: is a directory",
		"infiniband_verbs/uverbs24066/ibdev":       "infiniband_verbs/uverbs24066/ibdev: is a directory",
		"acpi_index":                               "acpi_index: is a directory",
		"vdpa0/driver":                             "driver: invalid argument",
	} {
		nic := sysfstest.ConnectX5("0000:5e:00.0", 0, 1)
		dir := build(t, sysfstest.Uniform(1, 1, 1, nic))
		change(t, sysfstest.AddVDPA(dir, vf, "vdpa0", "vhost_vdpa"))
		path := filepath.Join(dir, "sys/bus/pci/devices", vf, file)
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
		h := read(t, dir)
		checkProblems(t, h)
		got := device(t, h, vf)
		if got.Problem != problem && got.Problem != "net: "+problem {
			t.Errorf("%s: problem %q, want %q", file, got.Problem, problem)
		}
		if len(got.Netdevs) != 1 || len(got.RDMA) != 1 || got.VDPA == nil {
			t.Errorf("%s: the rest is gone: %+v", file, got)
		}
	}
	dir := build(t, sysfstest.Uniform(1, 1, 1, sysfstest.X710("0000:3b:00.0", 0, 0)))
	if err := os.MkdirAll(filepath.Join(dir, "sys/class/uio/uio0"), 0o755); err != nil {
		t.Fatal(err)
	}
	checkProblems(t, read(t, dir), "class/uio/uio0: invalid argument")
}

// TestUpstream: PCIe switches, shared by two NICs. The bridges are no devices.
func TestUpstream(t *testing.T) {
	a, b := sysfstest.E810("0000:3c:00.0", 0, 1), sysfstest.E810("0000:3d:00.0", 0, 0)
	a.Bridges = []string{"0000:38:01.0", "0000:39:00.0", "0000:3a:04.0"}
	b.Bridges = []string{"0000:38:01.0", "0000:39:00.0", "0000:3a:08.0"}
	h := read(t, build(t, sysfstest.Uniform(1, 1, 1, a, b, sysfstest.ENA("0000:00:05.0", 0))))
	checkProblems(t, h)
	got := map[string][]topology.Address{}
	for i := range h.Devices {
		got[h.Devices[i].ID()] = h.Devices[i].Upstream
	}
	above := func(last string) []topology.Address {
		return []topology.Address{address(t, last), address(t, "0000:39:00.0"), address(t, "0000:38:01.0")}
	}
	want := map[string][]topology.Address{
		"0000:00:05.0": nil, "0000:3c:00.0": above("0000:3a:04.0"), "0000:3c:01.0": above("0000:3a:04.0"), "0000:3d:00.0": above("0000:3a:08.0"),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestVhostNet(t *testing.T) {
	for _, tt := range []struct {
		name        string
		misc, nodes []string
		want        bool
	}{
		{"neither", nil, nil, false},
		{"loaded", []string{"vhost-net", "tun"}, nil, true},
		{"to be loaded at the first open", nil, []string{"vhost-net", "net/tun"}, true},
		{"one of each", []string{"tun"}, []string{"vhost-net"}, true},
		{"tun alone", []string{"tun"}, []string{"net/tun"}, false},
	} {
		m := sysfstest.Uniform(1, 1, 1)
		m.Misc = tt.misc
		dir := build(t, m)
		for _, node := range tt.nodes {
			if err := os.MkdirAll(filepath.Join(dir, "dev", filepath.Dir(node)), 0o755); err != nil {
				t.Fatal(err)
			}
			write(t, "", dir, "dev", node)
		}
		if got := read(t, dir).VhostNet; got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
		// A sysfs alone has no device nodes.
		if got := read(t, filepath.Join(dir, "sys")).VhostNet; got != (len(tt.misc) == 2) {
			t.Errorf("%s, the sysfs alone: %v", tt.name, got)
		}
	}
}

// TestStable: two reads of one machine are equal, to the last slice.
func TestStable(t *testing.T) {
	nic := sysfstest.ConnectX5("0000:5e:00.0", 0, 8)
	nic.Switchdev, nic.Subfunctions = true, []int{1, 2, 3}
	dir := build(t, sysfstest.Uniform(2, 2, 2, nic, sysfstest.ACC100("0000:b0:00.0", 1, 4)))
	change(t, sysfstest.AddVDPA(dir, "0000:5e:00.2", "vdpa1", "vhost_vdpa"), sysfstest.AddVDPA(dir, "0000:5e:00.2", "vdpa0", "vhost_vdpa"))
	first := read(t, dir)
	if len(first.Subfunctions) != 3 || len(first.Devices) != 1+8+1+4 {
		t.Fatalf("%d devices, %d subfunctions", len(first.Devices), len(first.Subfunctions))
	}
	for range 5 {
		if again := read(t, dir); !reflect.DeepEqual(first, again) {
			t.Fatalf("two reads differ:\n%s", cmp.Diff(first, again))
		}
	}
}
