package config_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/numalane/numalane/internal/config"
	"github.com/numalane/numalane/pkg/topology"
)

// zoo has one device for each thing that a selector can ask.
func zoo(t *testing.T) *topology.Host {
	ib, eth, fpga := address(t, "0000:01:00.0"), address(t, "0000:02:00.0"), address(t, "0000:03:00.0")
	netdev := func(name, kind string) []topology.Netdev { return []topology.Netdev{{Name: name, Type: kind}} }
	rdma := func(name, pkey string) []topology.RDMADevice { return []topology.RDMADevice{{Name: name, PKey: pkey}} }
	vf := func(addr string, pf topology.Address, name string, index int, d topology.Device) topology.Device {
		d.Address, d.Vendor, d.Product = address(t, addr), "15b3", "101e"
		if d.Class == "" {
			d.Class = "020000"
		}
		d.VF = &topology.VirtualFunction{PF: pf, PFName: name, Index: index}
		return d
	}
	sf := func(name string, num int, d topology.Device) topology.Device {
		d.Address, d.Class, d.Vendor, d.Product, d.Driver, d.ACPIIndex = eth, "020000", "15b3", "101d", "mlx5_core", "7"
		d.Aux = &topology.AuxiliaryDevice{Name: name, Type: "sf", SFNum: num}
		return d
	}
	return &topology.Host{
		Devices: []topology.Device{
			{
				Address: ib, Class: "020700", Vendor: "15b3", Product: "101b", Netdevs: netdev("ib0", "infiniband"),
				PF: &topology.PhysicalFunction{TotalVFs: 8, NumVFs: 2},
			},
			vf("0000:01:00.1", ib, "ib0", 0, topology.Device{Driver: "mlx5_core", Netdevs: netdev("ib0v0", "infiniband"), RDMA: rdma("mlx5_2", "0x8001")}),
			// Its netdev is in a pod, and its RDMA devices may be.
			vf("0000:01:00.2", ib, "ib0", 1, topology.Device{Driver: "mlx5_core", RDMACapable: true}),
			{
				Address: eth, Class: "020000", Vendor: "15b3", Product: "101d", Driver: "mlx5_core", Netdevs: netdev("p0", "ether"),
				PF: &topology.PhysicalFunction{TotalVFs: 8, NumVFs: 4},
			},
			vf("0000:02:00.1", eth, "p0", 0, topology.Device{Driver: "mlx5_core", Netdevs: netdev("p0v0", "ether"), RDMA: rdma("mlx5_4", "0x8001")}),
			vf("0000:02:00.2", eth, "p0", 1, topology.Device{
				Driver: "mlx5_core", ACPIIndex: "101",
				VDPA: &topology.VDPADevice{Name: "vdpa0", Driver: "vhost_vdpa"},
			}),
			vf("0000:02:00.3", eth, "p0", 2, topology.Device{Driver: "mlx5_core", VDPA: &topology.VDPADevice{Name: "vdpa1", Driver: "virtio_vdpa"}}),
			vf("0000:02:00.4", eth, "p0", 3, topology.Device{Driver: "vfio-pci", DDPProfile: "ICE COMMS Package"}),
			{
				Address: fpga, Class: "120000", Vendor: "8086", Product: "0d5c", Driver: "vfio-pci", ACPIIndex: "9",
				PF: &topology.PhysicalFunction{TotalVFs: 2},
			},
			{
				Address: address(t, "0000:04:00.0"), Class: "120000", Vendor: "8086", Product: "0d5c",
				PF: &topology.PhysicalFunction{TotalVFs: 2, NumVFs: 1},
			},
			{Address: address(t, "0000:05:00.0"), Class: "0b4000", Vendor: "8086", Product: "4940"},
		},
		Subfunctions: []topology.Device{
			sf("mlx5_core.sf.10", 99, topology.Device{}),
			sf("mlx5_core.sf.4", 88, topology.Device{Netdevs: netdev("p0s88", "ether"), RDMA: rdma("mlx5_6", "")}),
		},
	}
}

// Each key of a selector takes what it says, and says why not of the rest.
func TestSelectors(t *testing.T) {
	tests := []struct {
		deviceType, selector string
		takes                []string
		device, reason       string // of one that it does not take
	}{
		{"netDevice", `"linkTypes": ["infiniband"]`, []string{"0000:01:00.1", "0000:01:00.2"}, "0000:02:00.2", "link type ether is not in its linkTypes [infiniband]"},
		{"netDevice", `"linkTypes": ["ether", "infiniband"]`, []string{
			"0000:01:00.1", "0000:01:00.2", "0000:02:00.1", "0000:02:00.2", "0000:02:00.3", "0000:02:00.4",
		}, "", ""},
		{"netDevice", `"pKeys": ["0x8001"]`, []string{"0000:01:00.1"}, "0000:02:00.1", "no P_Key is not in its pKeys [0x8001]"},
		{"netDevice", `"pKeys": ["0x1"]`, nil, "0000:01:00.1", "P_Key 0x8001 is not in its pKeys [0x0001]"},
		{"netDevice", `"isRdma": true`, []string{"0000:01:00.1", "0000:01:00.2", "0000:02:00.1"}, "0000:02:00.2", "no RDMA where it asks for RDMA"},
		{"netDevice", `"vdpaType": "vhost"`, []string{"0000:02:00.2"}, "0000:02:00.3", "vDPA driver virtio_vdpa where it asks for vhost"},
		{"netDevice", `"vdpaType": "virtio"`, []string{"0000:02:00.3"}, "0000:02:00.4", "no vDPA device where it asks for virtio"},
		{"netDevice", `"acpiIndexes": ["101"]`, []string{"0000:02:00.2"}, "0000:02:00.3", "no ACPI index is not in its acpiIndexes [101]"},
		{
			"netDevice", `"ddpProfiles": ["ICE OS Default Package", "ICE COMMS Package"]`,
			[]string{"0000:02:00.4"},
			"0000:02:00.3",
			`no DDP profile is not in its ddpProfiles ["ICE OS Default Package" "ICE COMMS Package"]`,
		},
		{"netDevice", `"ddpProfiles": ["x"]`, nil, "0000:02:00.4", `DDP profile "ICE COMMS Package" is not in its ddpProfiles ["x"]`},
		{"netDevice", `"needVhostNet": true, "drivers": ["vfio-pci"]`, []string{"0000:02:00.4"}, "0000:02:00.3", "driver mlx5_core is not in its drivers [vfio-pci]"},
		{"accelerator", ``, []string{"0000:03:00.0"}, "", ""},
		{
			"accelerator", `"acpiIndexes": ["9"], "pciAddresses": ["0000:03:00.0"], "devices": ["0d5c"], "vendors": ["8086"], "drivers": ["vfio-pci"]`,
			[]string{"0000:03:00.0"},
			"", "",
		},
		{"accelerator", `"acpiIndexes": ["8"]`, nil, "0000:03:00.0", "ACPI index 9 is not in its acpiIndexes [8]"},
		{"auxNetDevice", `"auxTypes": ["sf"]`, []string{"mlx5_core.sf.10", "mlx5_core.sf.4"}, "", ""},
		{
			"auxNetDevice", `"auxTypes": ["sf"], "pfNames": ["P0#80-88"], "vendors": ["15b3"], "devices": ["101d"], "drivers": ["mlx5_core"]`,
			[]string{"mlx5_core.sf.4"},
			"mlx5_core.sf.10", "subfunction 99 of PF p0 is not in its pfNames [P0#80-88]",
		},
		{
			"auxNetDevice", `"auxTypes": ["sf"], "rootDevices": ["0000:02:00.0#99"]`,
			[]string{"mlx5_core.sf.10"},
			"mlx5_core.sf.4",
			"subfunction 88 of PF 0000:02:00.0 is not in its rootDevices [0000:02:00.0#99]",
		},
		{
			"auxNetDevice", `"auxTypes": ["sf"], "rootDevices": ["0000:02:00.0"], "linkTypes": ["ether"], "isRdma": true`,
			[]string{"mlx5_core.sf.4"},
			"mlx5_core.sf.10", "no RDMA where it asks for RDMA",
		},
		{"auxNetDevice", `"auxTypes": ["sf"], "acpiIndexes": ["7"]`, []string{"mlx5_core.sf.10", "mlx5_core.sf.4"}, "", ""},
	}
	for _, test := range tests {
		t.Run(test.deviceType+" "+test.selector, func(t *testing.T) {
			c, err := config.Parse([]byte(`{"resourceList": [{"resourceName": "a", "deviceType": "`+test.deviceType+`", "selectors": {`+test.selector+`}}]}`), prefix)
			if err != nil {
				t.Fatal(err)
			}
			a := c.Assign(zoo(t))
			var got []string
			for _, d := range a.Pools[0].Devices {
				got = append(got, d.ID())
				if d.By != &c.Pools[0].Selectors[0] {
					t.Errorf("%s was taken by %+v", d.ID(), d.By)
				}
			}
			if d := cmp.Diff(test.takes, got); d != "" {
				t.Errorf("devices (-want +got):\n%s", d)
			}
			if test.device == "" {
				return
			}
			for _, e := range c.Explain(zoo(t)) {
				if e.ID == test.device {
					if d := cmp.Diff([]string{test.reason}, e.Answers[0].Fails); d != "" {
						t.Errorf("why not %s (-want +got):\n%s", test.device, d)
					}
				}
			}
		})
	}
}

// What no pool is made of is told by its kind, and accelerators with VFs stay
// out as NICs do.
func TestAssignByDeviceType(t *testing.T) {
	c, err := config.Parse([]byte(`{"resourceList": [{"resourceName": "fpga", "deviceType": "accelerator", "selectors": {}}]}`), prefix)
	if err != nil {
		t.Fatal(err)
	}
	got := reasons(t, c.Assign(zoo(t)))
	for device, want := range map[string]string{
		"0000:01:00.0":   "is a PF with 2 VFs: its VFs are advertised instead",
		"0000:01:00.1":   "is a network device, and no pool is made of these",
		"0000:04:00.0":   "is a PF with 1 VF: its VF is advertised instead",
		"0000:05:00.0":   "is of class 0b4000, and no pool is made of these",
		"mlx5_core.sf.4": "is a subfunction, and no pool is made of these",
	} {
		if got[device] != want {
			t.Errorf("%s: %q, want %q", device, got[device], want)
		}
	}
	if _, out := got["0000:03:00.0"]; out {
		t.Errorf("the accelerator is in no pool: %q", got["0000:03:00.0"])
	}
}

// The device keeps what the first selector that took it asks for.
func TestAssignKeepsTheSelector(t *testing.T) {
	c, err := config.Parse([]byte(`{"resourceList": [{"resourceName": "a", "selectors": [
		{"pciAddresses": ["0000:01:00.1"], "isRdma": true}, {"vendors": ["15b3"], "needVhostNet": true}]}]}`), prefix)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range c.Assign(zoo(t)).Pools[0].Devices {
		want := &c.Pools[0].Selectors[1]
		if d.ID() == "0000:01:00.1" {
			want = &c.Pools[0].Selectors[0]
		}
		if d.By != want {
			t.Errorf("%s was taken by %+v, want %+v", d.ID(), d.By, want)
		}
	}
}
