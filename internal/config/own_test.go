package config_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/numalane/numalane/internal/config"
	"github.com/numalane/numalane/pkg/allocator"
	"github.com/numalane/numalane/pkg/topology"
)

const ourHead = "apiVersion: numalane.io/v1alpha1\nkind: PoolConfiguration\n"

func TestParseOursTakes(t *testing.T) {
	tests := []struct {
		name, in string
		want     []config.Pool
	}{
		{
			"every key", ourHead + `
pools:
- resource: example.com/net
  deviceType: netDevice
  excludeTopology: true
  allocationPolicy: spread
  health: {link: true, holdDown: 1m30s}
  additionalInfo: {"*": {a: b}, "0000:3B:02.0": {c: d}}
  selectors:
  - vendors: ["8086"]
    devices: [154C]
    drivers: [iavf]
    pciAddresses: ["0000:3b:02.0"]
    acpiIndexes: ["101"]
    pfNames: ["ens1f0#0-3,5"]
    rootDevices: ["0000:3b:00.0#7"]
    linkTypes: [infiniband, ether]
    ddpProfiles: [ICE COMMS Package]
    pKeys: ["0x8001"]
    rdma: true
    vhostNet: true
  - vdpa: virtio
`,
			[]config.Pool{{
				Resource: "example.com/net", DeviceType: config.NetDevice, ExcludeTopology: true, AllocationPolicy: allocator.PolicySpread,
				LinkHealth: true, LinkHoldDown: 90 * time.Second,
				AdditionalInfo: map[string]map[string]string{"*": {"a": "b"}, "0000:3b:02.0": {"c": "d"}},
				Selectors: []config.Selector{{
					Vendors: []string{"8086"}, Devices: []string{"154c"}, Drivers: []string{"iavf"},
					PCIAddresses: []topology.Address{address(t, "0000:3b:02.0")}, ACPIIndexes: []string{"101"},
					PFNames:     []config.PFName{{Name: "ens1f0", VFs: []config.Range{{First: 0, Last: 3}, {First: 5, Last: 5}}}},
					RootDevices: []config.RootDevice{{Address: address(t, "0000:3b:00.0"), VFs: []config.Range{{First: 7, Last: 7}}}},
					LinkTypes:   []string{"infiniband", "ether"}, DDPProfiles: []string{"ICE COMMS Package"}, PKeys: []string{"0x8001"},
					RDMA: true, VhostNet: true,
				}, {VDPA: "virtio"}},
			}},
		},
		{
			"the other device types, and what holds without a word", `{"apiVersion": "numalane.io/v1alpha1", "kind": "PoolConfiguration", "pools": [
			{"resource": "example.com/sf", "deviceType": "auxNetDevice", "allocationPolicy": "paired", "selectors": [{"auxTypes": ["sf"]}]},
			{"resource": "example.com/fpga", "deviceType": "accelerator", "selectors": [{}]},
			{"resource": "example.com/calm", "health": {"link": false}, "selectors": [{}]},
			{"resource": "example.com/quick", "health": {"holdDown": "0s"}, "selectors": [{}]}]}`,
			[]config.Pool{
				{
					Resource: "example.com/sf", DeviceType: config.AuxNetDevice, AllocationPolicy: allocator.PolicyPaired, LinkHealth: true,
					LinkHoldDown: 5 * time.Second, Selectors: []config.Selector{{AuxTypes: []string{"sf"}}},
				},
				{Resource: "example.com/fpga", DeviceType: config.Accelerator, AllocationPolicy: allocator.PolicyPacked, Selectors: []config.Selector{{}}},
				{Resource: "example.com/calm", DeviceType: config.NetDevice, AllocationPolicy: allocator.PolicyPacked, Selectors: []config.Selector{{}}},
				{Resource: "example.com/quick", DeviceType: config.NetDevice, AllocationPolicy: allocator.PolicyPacked, LinkHealth: true, Selectors: []config.Selector{{}}},
			},
		},
		{"no pools", ourHead + "pools: []\n", nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c, err := config.Parse([]byte(test.in), "unused.example.com")
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(test.want, c.Pools); d != "" {
				t.Errorf("pools (-want +got):\n%s", d)
			}
			converted(t, resolvedSchema(t), c)
		})
	}
}

func TestParseOursRefuses(t *testing.T) {
	pool := func(s string) string { return ourHead + "pools:\n- resource: example.com/a\n" + s }
	tests := []struct {
		name, in string
		want     []string
	}{
		{"another version", "apiVersion: numalane.io/v1\nkind: PoolConfiguration\npools: []\n", []string{
			`line 1, column 13: apiVersion: is "numalane.io/v1", want numalane.io/v1alpha1`,
		}},
		{"no version", "kind: PoolConfiguration\nresourceList: []\n", []string{
			"line 1, column 1: apiVersion: missing",
			"line 1, column 1: pools: missing",
			"line 2, column 1: resourceList: unknown key: want apiVersion, kind or pools",
		}},
		{"another kind", "apiVersion: numalane.io/v1alpha1\nkind: Pools\nPools: []\n", []string{
			"line 1, column 1: pools: missing",
			`line 2, column 7: kind: is "Pools", want PoolConfiguration`,
			"line 3, column 1: Pools: unknown key: did you mean pools?",
		}},
		{"keys in their own case, and not the peer's", pool("  DeviceType: netDevice\n  resourceName: b\n  vendors: []\n  selectors:\n  - pfnames: [eno1]\n    isRdma: true\n    needVhostNet: true\n    vdpaType: vhost\n"), []string{
			"line 5, column 3: pools[0].DeviceType: unknown key: did you mean deviceType?",
			"line 6, column 3: pools[0].resourceName: unknown key: did you mean resource?",
			"line 7, column 3: pools[0].vendors: unknown key: it belongs under selectors",
			"line 9, column 5: pools[0].selectors[0].pfnames: unknown key: did you mean pfNames?",
			"line 10, column 5: pools[0].selectors[0].isRdma: unknown key: did you mean rdma?",
			"line 11, column 5: pools[0].selectors[0].needVhostNet: unknown key: did you mean vhostNet?",
			"line 12, column 5: pools[0].selectors[0].vdpaType: unknown key: did you mean vdpa?",
		}},
		{"selectors", pool("- resource: example.com/b\n  selectors: {}\n- resource: example.com/c\n  selectors: []\n- selectors: [{}]\n"), []string{
			"line 4, column 3: pools[0].selectors: missing: a selector without keys, {}, takes every device of the type",
			"line 6, column 14: pools[1].selectors: is an object, want a list of selectors",
			"line 8, column 14: pools[2].selectors: an empty list selects nothing: want at least one selector",
			"line 9, column 3: pools[3].resource: missing",
		}},
		{"resources", ourHead + "pools:\n- {resource: sriov, selectors: [{}]}\n- {resource: a/b/c, selectors: [{}]}\n- {resource: kubernetes.io/b, selectors: [{}]}\n" +
			"- {resource: x.io/-b, selectors: [{}]}\n- {resource: x.io/b, selectors: [{}]}\n- {resource: x.io/b, selectors: [{}]}\n- {resource: 1, selectors: [{}]}\n", []string{
			`line 4, column 14: pools[0].resource: "sriov": want prefix and name, such as example.com/sriov`,
			`line 5, column 14: pools[1].resource: "a/b/c": want prefix and name, such as example.com/sriov`,
			`line 6, column 14: pools[2].resource: "kubernetes.io/b": domains that end in kubernetes.io are Kubernetes' own`,
			`line 7, column 14: pools[3].resource: "x.io/-b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an ` +
				`alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')`,
			"line 9, column 3: pools[5]: resource x.io/b is pools[4] already",
			"line 10, column 14: pools[6].resource: is a number, want a string",
		}},
		{"health", pool("  selectors: [{}]\n  health: {link: false, holdDown: 5s}\n- resource: example.com/b\n  deviceType: accelerator\n  selectors: [{}]\n  health: {link: true}\n" +
			"- resource: example.com/c\n  selectors: [{}]\n  health: {holdDown: -1s, links: true}\n- resource: example.com/d\n  selectors: [{}]\n  health: {holdDown: 5}\n" +
			"- resource: example.com/e\n  selectors: [{}]\n  health: on\n"), []string{
			"line 6, column 35: pools[0].health.holdDown: has no effect without link",
			"line 10, column 18: pools[1].health.link: accelerators have no link",
			`line 13, column 22: pools[2].health.holdDown: "-1s": want a time such as 5s, or 0s for none`,
			"line 13, column 27: pools[2].health.links: unknown key: did you mean link?",
			"line 16, column 22: pools[3].health.holdDown: is a number, want a string",
			"line 19, column 11: pools[4].health: is a string, want an object",
		}},
		{"policies, types and information", pool("  selectors: [{}]\n  allocationPolicy: balanced\n  deviceType: \"\"\n  additionalInfo: {eno1: {a: b}}\n"), []string{
			`line 6, column 21: pools[0].allocationPolicy: "balanced" is not an allocation policy, want packed, spread or paired`,
			`line 7, column 15: pools[0].deviceType: "" is not a device type, want netDevice, accelerator or auxNetDevice`,
			`line 8, column 20: pools[0].additionalInfo.eno1: "eno1" names no device: want "*", a PCI address such as 0000:3b:02.0 or a subfunction such as mlx5_core.sf.4`,
		}},
		{"what the device type has not, and contradictions", pool("  selectors:\n  - {auxTypes: [sf]}\n  - {rdma: true, vdpa: vhost}\n  - {pKeys: [\"0x1\"], linkTypes: [ether]}\n  - {vdpa: \"\"}\n" +
			"- resource: example.com/b\n  deviceType: auxNetDevice\n  selectors: [{pciAddresses: [\"0000:3b:02.0\"]}]\n"), []string{
			"line 6, column 16: pools[0].selectors[0].auxTypes: has no effect for deviceType netDevice",
			"line 7, column 24: pools[0].selectors[1].vdpa: contradicts rdma: a device is handed out for the one or for the other",
			"line 8, column 13: pools[0].selectors[2].pKeys: no device has a P_Key and one of these linkTypes: the selector takes nothing",
			`line 9, column 12: pools[0].selectors[3].vdpa: "": want vhost or virtio`,
			"line 12, column 15: pools[1].selectors[0].auxTypes: missing: deviceType auxNetDevice needs it, with sf",
			"line 12, column 30: pools[1].selectors[0].pciAddresses: has no effect for deviceType auxNetDevice",
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c, err := config.Parse([]byte(test.in), prefix)
			if c != nil {
				t.Errorf("it gives a configuration of %d pools", len(c.Pools))
			}
			if d := cmp.Diff(test.want, mistakes(t, err)); d != "" {
				t.Errorf("mistakes (-want +got):\n%s", d)
			}
		})
	}
}
