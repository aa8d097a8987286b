package config_test

import (
	"strings"
	"testing"

	"github.com/numalane/numalane/internal/config"
	"github.com/numalane/numalane/pkg/topology"
)

// amazon is an instance with the interface that it is reached by, and one for
// pods: nothing in PCI tells them apart.
func amazon(t *testing.T) *topology.Host {
	ena := func(addr, name string) topology.Device {
		return topology.Device{
			Address: address(t, addr), Class: "020000", Vendor: "1d0f", Product: "ec20", Driver: "ena",
			Netdevs: []topology.Netdev{{Name: name, Type: "ether", Up: true}},
		}
	}
	h := &topology.Host{Devices: []topology.Device{ena("0000:00:05.0", "eth0"), ena("0000:00:06.0", "eth1")}}
	h.Devices[0].Uplink = "IPv4 default route by eth0"
	return h
}

const enaReason = "is the node's way out (IPv4 default route by eth0): list its address in pciAddresses to advertise it all the same"

func TestENASelectorNeverTakesTheUplink(t *testing.T) {
	c, err := config.Parse(corpus(t, "article/configmap-aws.yaml"), prefix)
	if err != nil {
		t.Fatal(err)
	}
	a := c.Assign(amazon(t))
	if got := a.Pools[0].Devices; len(got) != 1 || got[0].ID() != "0000:00:06.0" {
		t.Errorf("intel.com/amazon_ena holds %v, want 0000:00:06.0 alone", got)
	}
	if got := reasons(t, a)["0000:00:05.0"]; got != enaReason {
		t.Errorf("got  %q\nwant %q", got, enaReason)
	}
}

// The way out is had by asking for that very device.
func TestUplinkByAddress(t *testing.T) {
	pf, vf := address(t, "0000:3b:00.0"), address(t, "0000:3b:02.3")
	host := func() *topology.Host {
		h := amazon(t)
		h.Devices = append(h.Devices,
			topology.Device{Address: pf, Class: "020000", Vendor: "15b3", Driver: "mlx5_core", Netdevs: []topology.Netdev{{Name: "p0"}}, PF: &topology.PhysicalFunction{NumVFs: 1}},
			topology.Device{
				Address: vf, Class: "020000", Vendor: "15b3", Driver: "mlx5_core", VF: &topology.VirtualFunction{PF: pf, PFName: "p0", Index: 3},
				Uplink: "IPv6 default route by bond0",
			})
		h.Subfunctions = []topology.Device{{
			Address: pf, Class: "020000", Vendor: "15b3", Driver: "mlx5_core", Uplink: "IPv4 default route by br-ex",
			Aux: &topology.AuxiliaryDevice{Name: "mlx5_core.sf.4", Type: "sf", SFNum: 88},
		}}
		return h
	}
	tests := []struct {
		deviceType, selectors, device string
		takes                         bool
	}{
		{"netDevice", `{"vendors": ["1d0f"]}`, "0000:00:05.0", false},
		{"netDevice", `{"pfNames": ["eth0"]}`, "0000:00:05.0", false},
		{"netDevice", `{"pciAddresses": ["0000:00:05.0"]}`, "0000:00:05.0", true},
		{"netDevice", `{"rootDevices": ["0000:00:05.0"]}`, "0000:00:05.0", true},
		{"netDevice", `[{"drivers": ["ena"]}, {"pciAddresses": ["0000:00:05.0"]}]`, "0000:00:05.0", true},
		{"netDevice", `{"pciAddresses": ["0000:00:05.0"], "drivers": ["vfio-pci"]}`, "0000:00:05.0", false},
		{"netDevice", `{"rootDevices": ["0000:3b:00.0"]}`, "0000:3b:02.3", false},
		{"netDevice", `{"rootDevices": ["0000:3b:00.0#0-7"]}`, "0000:3b:02.3", false},
		{"netDevice", `{"rootDevices": ["0000:3b:00.0#3"]}`, "0000:3b:02.3", true},
		{"netDevice", `{"pciAddresses": ["0000:3b:02.3"]}`, "0000:3b:02.3", true},
		{"auxNetDevice", `{"auxTypes": ["sf"]}`, "mlx5_core.sf.4", false},
		{"auxNetDevice", `{"auxTypes": ["sf"], "rootDevices": ["0000:3b:00.0"]}`, "mlx5_core.sf.4", false},
		{"auxNetDevice", `{"auxTypes": ["sf"], "rootDevices": ["0000:3b:00.0#88"]}`, "mlx5_core.sf.4", true},
	}
	for _, test := range tests {
		c, err := config.Parse([]byte(`{"resourceList": [{"resourceName": "a", "deviceType": "`+test.deviceType+`", "selectors": `+test.selectors+`}]}`), prefix)
		if err != nil {
			t.Fatal(err)
		}
		reason, out := reasons(t, c.Assign(host()))[test.device]
		if out == test.takes {
			t.Errorf("%s %s: takes %s %t (%s), want %t", test.deviceType, test.selectors, test.device, !out, reason, test.takes)
		}
		if !test.takes && !strings.Contains(test.selectors, "vfio") && !strings.HasPrefix(reason, "is the node's way out (IPv") {
			t.Errorf("%s: %s is out for %q", test.selectors, test.device, reason)
		}
		if test.device == "mlx5_core.sf.4" && !test.takes && !strings.HasSuffix(reason, "list 0000:3b:00.0#88 in rootDevices to advertise it all the same") {
			t.Errorf("%s: %q does not say how to have it", test.selectors, reason)
		}
	}
}

// A device that nothing selects is out for that, way out or not.
func TestUplinkThatNothingSelects(t *testing.T) {
	c, err := config.Parse([]byte(`{"resourceList": [{"resourceName": "a", "selectors": {"vendors": ["8086"]}}]}`), prefix)
	if err != nil {
		t.Fatal(err)
	}
	want := "no selector matches: the nearest is pool intel.com/a, vendor 1d0f is not in its vendors [8086]"
	if got := reasons(t, c.Assign(amazon(t)))["0000:00:05.0"]; got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}
