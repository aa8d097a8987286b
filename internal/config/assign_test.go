package config_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/numalane/numalane/internal/config"
	"github.com/numalane/numalane/pkg/topology"
)

// host has an X710 with three VFs, an 82599 without VFs, an ENA without a PF
// and a ConnectX VF bound to vfio-pci. Its devices are out of order.
func host(t *testing.T) *topology.Host {
	pf := address(t, "0000:3b:00.0")
	vf := func(addr string, index int) topology.Device {
		return topology.Device{
			Address: address(t, addr), Class: "020000", Vendor: "8086", Product: "154c", Driver: "iavf",
			VF: &topology.VirtualFunction{PF: pf, PFName: "ens1f0", Index: index},
		}
	}
	return &topology.Host{Devices: []topology.Device{
		vf("0000:3b:02.2", 2),
		vf("0000:3b:02.0", 0),
		vf("0000:3b:02.1", 1),
		{
			Address: pf, Class: "020000", Vendor: "8086", Product: "1572", Driver: "i40e", Netdevs: []topology.Netdev{{Name: "ens1f0"}},
			PF: &topology.PhysicalFunction{TotalVFs: 64, NumVFs: 3},
		},
		{
			Address: address(t, "0000:5e:00.0"), Class: "020000", Vendor: "8086", Product: "10fb", Driver: "ixgbe",
			Netdevs: []topology.Netdev{{Name: "eno1"}}, PF: &topology.PhysicalFunction{TotalVFs: 63},
		},
		{
			Address: address(t, "0000:00:06.0"), Class: "020000", Vendor: "1d0f", Product: "ec20", Driver: "ena",
			Netdevs: []topology.Netdev{{Name: "eth1"}},
		},
		{
			Address: address(t, "0000:af:00.2"), Class: "020000", Vendor: "15b3", Product: "1018", Driver: "vfio-pci",
			VF: &topology.VirtualFunction{PF: address(t, "0000:af:00.0"), Index: 0},
		},
	}}
}

const pfWithVFs = "is a PF with 3 VFs: its VFs are advertised instead"

func TestAssign(t *testing.T) {
	tests := []struct {
		name, in string
		pools    map[string][]string
		rejected map[string]string
	}{
		{
			"everything",
			`{"resourceList": [{"resourceName": "all", "selectors": {}}]}`,
			map[string][]string{"all": {"0000:00:06.0", "0000:3b:02.0", "0000:3b:02.1", "0000:3b:02.2", "0000:5e:00.0", "0000:af:00.2"}},
			map[string]string{"0000:3b:00.0": pfWithVFs},
		},
		{
			"the first resource that matches takes a device, and the first selector within it",
			`{"resourceList": [{"resourceName": "one", "selectors": {"pfNames": ["ens1f0#1"]}},
			  {"resourceName": "rest", "selectors": [{"vendors": ["8086"]}, {"vendors": ["8086", "15b3", "1d0f"]}]},
			  {"resourceName": "late", "selectors": {"vendors": ["8086"]}}]}`,
			map[string][]string{
				"one":  {"0000:3b:02.1"},
				"rest": {"0000:00:06.0", "0000:3b:02.0", "0000:3b:02.2", "0000:5e:00.0", "0000:af:00.2"},
				"late": nil,
			},
			map[string]string{"0000:3b:00.0": pfWithVFs},
		},
		{
			"every entry of pfNames counts, in any case, and a NIC is its own PF",
			`{"resourceList": [{"resourceName": "a", "selectors": {"pfNames": ["ENS1F0#0", "ens1f0#2", "eno1"]}}]}`,
			map[string][]string{"a": {"0000:3b:02.0", "0000:3b:02.2", "0000:5e:00.0"}},
			map[string]string{
				"0000:3b:00.0": pfWithVFs,
				"0000:3b:02.1": "no selector matches: the nearest is pool intel.com/a, VF 1 of PF ens1f0 is not in its pfNames [ENS1F0#0 ens1f0#2 eno1]",
				"0000:00:06.0": "no selector matches: the nearest is pool intel.com/a, PF eth1 is not in its pfNames [ENS1F0#0 ens1f0#2 eno1]",
				"0000:af:00.2": "no selector matches: the nearest is pool intel.com/a, VF 0 of a PF without a name is not in its pfNames [ENS1F0#0 ens1f0#2 eno1]",
			},
		},
		{
			"rootDevices and pciAddresses; a range leaves out what is no VF",
			`{"resourceList": [{"resourceName": "root", "selectors": {"rootDevices": ["0000:3b:00.0#0-1", "0000:5e:00.0#0"]}},
			  {"resourceName": "addr", "selectors": {"pciAddresses": ["0000:af:00.2"]}},
			  {"resourceName": "own", "selectors": {"rootDevices": ["0000:00:06.0"]}}]}`,
			map[string][]string{"root": {"0000:3b:02.0", "0000:3b:02.1"}, "addr": {"0000:af:00.2"}, "own": {"0000:00:06.0"}},
			map[string]string{
				"0000:3b:00.0": pfWithVFs,
				"0000:3b:02.2": "no selector matches: the nearest is pool intel.com/root, VF 2 of PF 0000:3b:00.0 is not in its rootDevices [0000:3b:00.0#0-1 0000:5e:00.0#0]",
				"0000:5e:00.0": "no selector matches: the nearest is pool intel.com/root, PF 0000:5e:00.0 is not in its rootDevices [0000:3b:00.0#0-1 0000:5e:00.0#0]",
			},
		},
		{
			"the nearest selector tells why not",
			`{"resourceList": [{"resourceName": "ena", "selectors": {"vendors": ["1d0f"], "devices": ["ec21"], "drivers": ["ena"]}},
			  {"resourceName": "x", "selectors": [{"vendors": ["15b3"], "drivers": ["mlx5_core"]}, {"vendors": ["8086"], "devices": ["154c", "10ed"], "drivers": ["iavf", "ixgbevf"]}]}]}`,
			map[string][]string{"ena": nil, "x": {"0000:3b:02.0", "0000:3b:02.1", "0000:3b:02.2"}},
			map[string]string{
				"0000:00:06.0": "no selector matches: vendor 1d0f and driver ena match pool intel.com/ena, device ec20 is not in its devices [ec21]",
				"0000:3b:00.0": pfWithVFs,
				"0000:5e:00.0": "no selector matches: vendor 8086 matches selectors[1] of pool intel.com/x, device 10fb is not in its devices [154c 10ed], " +
					"driver ixgbe is not in its drivers [iavf ixgbevf]",
				"0000:af:00.2": "no selector matches: vendor 15b3 matches selectors[0] of pool intel.com/x, driver vfio-pci is not in its drivers [mlx5_core]",
			},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c, err := config.Parse([]byte(test.in), prefix)
			if err != nil {
				t.Fatal(err)
			}
			a := c.Assign(host(t))
			pools := map[string][]string{}
			for i, p := range a.Pools {
				if p.Pool != &c.Pools[i] {
					t.Errorf("pool %d is %s, want %s", i, p.Pool.Resource, c.Pools[i].Resource)
				}
				var addrs []string
				for _, d := range p.Devices {
					addrs = append(addrs, d.Address.String())
				}
				pools[p.Pool.Resource[len(prefix)+1:]] = addrs
			}
			if d := cmp.Diff(test.pools, pools); d != "" {
				t.Errorf("pools (-want +got):\n%s", d)
			}
			if d := cmp.Diff(test.rejected, reasons(t, a)); d != "" {
				t.Errorf("rejections (-want +got):\n%s", d)
			}
		})
	}
}

// reasons are the rejections by address, which have to be sorted and single.
func reasons(t *testing.T, a config.Assignment) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, r := range a.Rejections {
		out[r.Device] = r.Reason
	}
	if len(out) != len(a.Rejections) || !slices.IsSortedFunc(a.Rejections, func(a, b config.Rejection) int { return a.Address.Compare(b.Address) }) {
		t.Errorf("rejections are not one a device, by address: %v", a.Rejections)
	}
	return out
}

func TestAssignWithoutPools(t *testing.T) {
	h := host(t)
	a := (&config.Config{}).Assign(h)
	if len(a.Pools) != 0 || len(a.Rejections) != len(h.Devices) {
		t.Fatalf("%d pools and %d rejections, want 0 and %d", len(a.Pools), len(a.Rejections), len(h.Devices))
	}
	for addr, reason := range reasons(t, a) {
		want := "no pool is configured"
		if addr == "0000:3b:00.0" {
			want = pfWithVFs
		}
		if reason != want {
			t.Errorf("%s: %q, want %q", addr, reason, want)
		}
	}
}

// A device that is known only in part stays where the known part puts it: its
// pool must not shrink because of a torn file.
func TestAssignDevicesWithProblems(t *testing.T) {
	c, err := config.Parse([]byte(`{"resourceList": [{"resourceName": "a", "selectors": {"vendors": ["8086"], "drivers": ["iavf"]}}]}`), prefix)
	if err != nil {
		t.Fatal(err)
	}
	matching, other, pf := address(t, "0000:3b:02.0"), address(t, "0000:3b:02.1"), address(t, "0000:3b:00.0")
	a := c.Assign(&topology.Host{Devices: []topology.Device{
		{Address: pf, Class: "020000", Vendor: "8086", Driver: "iavf", PF: &topology.PhysicalFunction{VFs: []topology.Address{matching}}, Problem: "sriov_numvfs: torn"},
		{Address: matching, Class: "020000", Vendor: "8086", Driver: "iavf", Problem: "numa_node: torn"},
		{Address: other, Class: "020000", Vendor: "8086", Problem: "driver: input/output error"},
	}})
	if got := a.Pools[0].Devices; len(got) != 1 || got[0].Address != matching || got[0].Problem != "numa_node: torn" {
		t.Errorf("pool holds %+v, want %s with its problem", got, matching)
	}
	want := []config.Rejection{
		{Address: pf, Device: "0000:3b:00.0", Reason: "is a PF with 1 VF: its VF is advertised instead"},
		{Address: other, Device: "0000:3b:02.1", Reason: "could not be read: driver: input/output error"},
	}
	if d := cmp.Diff(want, a.Rejections); d != "" {
		t.Errorf("rejections (-want +got):\n%s", d)
	}
}

func TestAssignShortensLongLists(t *testing.T) {
	c := config.Config{Pools: []config.Pool{{Resource: "x.io/a", DeviceType: config.NetDevice, Selectors: []config.Selector{{
		Devices: []string{"0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009", "000a"},
	}}}}}
	a := c.Assign(&topology.Host{Devices: []topology.Device{{Class: "020000", Product: "154c"}}})
	want := "no selector matches: the nearest is pool x.io/a, device 154c is not in its devices [0001 0002 0003 0004 0005 0006 0007 0008 and 2 more]"
	if got := a.Rejections[0].Reason; got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}
