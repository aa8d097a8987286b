package inventory

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/numalane/numalane/pkg/topology"
)

// TestUplinks: what a way out stands on, by shapes that nodes have.
func TestUplinks(t *testing.T) {
	nic := func(index int, name, device string, master int) link {
		return link{index: index, name: name, kind: "device", device: device, master: master}
	}
	v4 := func(links ...int) (routes []defaultRoute) {
		for _, l := range links {
			routes = append(routes, defaultRoute{"IPv4", l})
		}
		return routes
	}
	tests := []struct {
		name   string
		links  []link
		routes []defaultRoute
		want   map[string]string
	}{
		{"no way out", []link{nic(2, "ens1", "0000:3b:00.0", 0)}, nil, map[string]string{}},
		{"the NIC itself", []link{nic(2, "ens1", "0000:3b:00.0", 0), nic(3, "ens2", "0000:3b:00.1", 0)}, v4(2), map[string]string{
			"ens1": "IPv4 default route by ens1", "0000:3b:00.0": "IPv4 default route by ens1",
		}},
		{"both families", []link{nic(2, "ens1", "", 0)}, []defaultRoute{{"IPv4", 2}, {"IPv6", 2}}, map[string]string{
			"ens1": "IPv4 default route by ens1, IPv6 default route by ens1",
		}},
		{"two ways out", []link{nic(2, "ens1", "", 0), nic(3, "ens2", "", 0)}, v4(2, 3), map[string]string{
			"ens1": "IPv4 default route by ens1", "ens2": "IPv4 default route by ens2",
		}},
		{"a VLAN on a bond under a bridge", []link{
			nic(2, "ens1", "", 10), nic(3, "ens2", "", 10), nic(4, "ens3", "", 0),
			{index: 10, name: "bond0", kind: "bond"},
			{index: 11, name: "bond0.7", kind: "vlan", parent: 10, master: 12},
			{index: 12, name: "br0", kind: "bridge"},
			{index: 13, name: "veth1", kind: "veth", master: 12},
		}, v4(12), map[string]string{
			"br0": "IPv4 default route by br0", "bond0.7": "IPv4 default route by br0", "bond0": "IPv4 default route by br0",
			"ens1": "IPv4 default route by br0", "ens2": "IPv4 default route by br0", "veth1": "IPv4 default route by br0",
		}},
		{"what stands on the way out does not carry it", []link{
			nic(2, "ens1", "", 0), {index: 10, name: "ens1.7", kind: "vlan", parent: 2}, {index: 11, name: "mv0", kind: "macvlan", parent: 2},
		}, v4(2), map[string]string{"ens1": "IPv4 default route by ens1"}},
		{"a slave of the synthetic interface", []link{ // netvsc and its VF
			{index: 2, name: "eth0", kind: "device"}, nic(3, "enP1s1", "0001:00:02.0", 2),
		}, v4(2), map[string]string{
			"eth0": "IPv4 default route by eth0", "enP1s1": "IPv4 default route by eth0", "0001:00:02.0": "IPv4 default route by eth0",
		}},
		{"a bridge of Open vSwitch", []link{
			nic(2, "ens1", "", 10), nic(3, "ens2", "", 0),
			{index: 10, name: "ovs-system", kind: "openvswitch"},
			{index: 11, name: "br-ex", kind: "openvswitch"},
		}, v4(11), map[string]string{"br-ex": "IPv4 default route by br-ex", "ens1": "IPv4 default route by br-ex"}},
		{"a ring ends", []link{
			{index: 2, name: "a", kind: "veth", parent: 3}, {index: 3, name: "b", kind: "veth", parent: 2},
		}, v4(2), map[string]string{"a": "IPv4 default route by a", "b": "IPv4 default route by a"}},
		{"a route of a link that has gone", []link{nic(2, "ens1", "", 99)}, v4(7), map[string]string{}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, uplinks(test.links, test.routes)); diff != "" {
				t.Errorf("uplinks (-want +got):\n%s", diff)
			}
		})
	}
}

// The files may show the node's interfaces to a process that is in a network
// namespace of its own, where there is no way out to be seen.
func TestAnotherNetworkNamespaceIsNoAnswer(t *testing.T) {
	links := []link{{index: 1, name: "lo"}, {index: 2, name: "eth0"}}
	host := func(names ...string) *topology.Host {
		h := &topology.Host{Devices: []topology.Device{{}}}
		for _, n := range names {
			h.Devices = append(h.Devices, topology.Device{Netdevs: []topology.Netdev{{Name: n}}})
		}
		return h
	}
	for _, test := range []struct {
		name string
		h    *topology.Host
		ok   bool
	}{
		{"no interface at all", host(), true},
		{"the same", host("eth0"), true},
		{"one that has just come", host("eth0", "eth1"), true},
		{"none of them", host("ens1", "ens2"), false},
	} {
		if err := sameNamespace(test.h, links); (err == nil) != test.ok {
			t.Errorf("%s: %v, want no error: %v", test.name, err, test.ok)
		}
	}
}
