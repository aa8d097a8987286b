package config_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/numalane/numalane/internal/config"
	"github.com/numalane/numalane/internal/config/v1alpha1"
	"github.com/numalane/numalane/pkg/allocator"
	"github.com/numalane/numalane/pkg/topology"
)

const prefix = "intel.com"

// corpus is the configuration in a ConfigMap of the corpus.
func corpus(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	var m struct {
		Data map[string]string `json:"data"`
	}
	if err := yaml.Unmarshal(data, &m); err != nil {
		t.Fatal(err)
	}
	if m.Data["config.json"] == "" {
		t.Fatalf("%s holds no config.json", name)
	}
	return []byte(m.Data["config.json"])
}

func address(t testing.TB, s string) topology.Address {
	t.Helper()
	a, err := topology.ParseAddress(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestParseTakes(t *testing.T) {
	one := func(resource string, selectors ...config.Selector) []config.Pool {
		return []config.Pool{{Resource: resource, AllocationPolicy: allocator.PolicyPacked, DeviceType: config.NetDevice, Selectors: selectors}}
	}
	tests := []struct {
		name, in string
		want     []config.Pool
	}{
		{
			"every key",
			`{"resourceList": [{"resourceName": "all", "resourcePrefix": "example.com", "deviceType": "netDevice",
			  "excludeTopology": true, "selectors": [{"vendors": ["8086"], "devices": ["154c", "10ed"], "drivers": ["iavf"],
			  "pciAddresses": ["0000:3b:02.0"], "pfNames": ["eno1#0-3,5"], "rootDevices": ["10000:01:00.1#7"]}, {}]}]}`,
			[]config.Pool{{
				Resource: "example.com/all", ExcludeTopology: true, AllocationPolicy: allocator.PolicyPacked, DeviceType: config.NetDevice,
				Selectors: []config.Selector{{
					Vendors: []string{"8086"}, Devices: []string{"154c", "10ed"}, Drivers: []string{"iavf"},
					PCIAddresses: []topology.Address{address(t, "0000:3b:02.0")},
					PFNames:      []config.PFName{{Name: "eno1", VFs: []config.Range{{First: 0, Last: 3}, {First: 5, Last: 5}}}},
					RootDevices:  []config.RootDevice{{Address: address(t, "10000:01:00.1"), VFs: []config.Range{{First: 7, Last: 7}}}},
				}, {}},
			}},
		},
		{
			"every other key of a netDevice",
			`{"resourceList": [{"resourceName": "a", "additionalInfo": {"*": {"token": "x", "k": ""}, "0000:AF:00.1": {"token": "y"}}, "selectors": [
			  {"acpiIndexes": ["101"], "linkTypes": ["infiniband"], "ddpProfiles": ["ICE COMMS Package"], "pKeys": ["0x1", "0X8001"], "isRdma": true, "needVhostNet": true},
			  {"vdpaType": "vhost"}, {"vdpaType": "virtio", "isRdma": false}]}]}`,
			[]config.Pool{{
				Resource: "intel.com/a", AllocationPolicy: allocator.PolicyPacked, DeviceType: config.NetDevice,
				AdditionalInfo: map[string]map[string]string{"*": {"token": "x", "k": ""}, "0000:af:00.1": {"token": "y"}},
				Selectors: []config.Selector{
					{
						ACPIIndexes: []string{"101"}, LinkTypes: []string{"infiniband"}, DDPProfiles: []string{"ICE COMMS Package"},
						PKeys: []string{"0x0001", "0x8001"}, RDMA: true, VhostNet: true,
					},
					{VDPA: "vhost"},
					{VDPA: "virtio"},
				},
			}},
		},
		{
			"the other device types, before and behind the selectors",
			`{"resourceList": [{"resourceName": "fpga", "deviceType": "accelerator", "selectors": {"vendors": ["8086"], "devices": ["0d5c"], "drivers": ["vfio-pci"], "acpiIndexes": ["7"]}},
			  {"selectors": [{"auxTypes": ["sf"], "vendors": ["15b3"], "pfNames": ["p0#0-87"], "isRdma": true, "needVhostNet": true}], "resourceName": "sf", "deviceType": "auxNetDevice"}]}`,
			[]config.Pool{
				{
					Resource: "intel.com/fpga", AllocationPolicy: allocator.PolicyPacked, DeviceType: config.Accelerator,
					Selectors: []config.Selector{{Vendors: []string{"8086"}, Devices: []string{"0d5c"}, Drivers: []string{"vfio-pci"}, ACPIIndexes: []string{"7"}}},
				},
				{
					Resource: "intel.com/sf", AllocationPolicy: allocator.PolicyPacked, DeviceType: config.AuxNetDevice,
					Selectors: []config.Selector{{
						AuxTypes: []string{"sf"}, Vendors: []string{"15b3"}, RDMA: true, VhostNet: true,
						PFNames: []config.PFName{{Name: "p0", VFs: []config.Range{{First: 0, Last: 87}}}},
					}},
				},
			},
		},
		{
			"one selector without a list",
			`{"resourceList": [{"resourceName": "a", "selectors": {"vendors": ["15b3"]}}]}`,
			one("intel.com/a", config.Selector{Vendors: []string{"15b3"}}),
		},
		{
			"what the operator's serializer leaves",
			`{"resourceList":[{"resourceName":"a","selectors":{"vendors":["8086"],"pfNames":["ens1#0-1"],"IsRdma":false,` +
				`"NeedVhostNet":false,"vdpaType":"","linkTypes":null,"ddpProfiles":[],"auxTypes":[]},"SelectorObj":{"a":[1]},"SelectorObjs":null,` +
				`"additionalInfo":{},"deviceType":"","resourcePrefix":""}]}`,
			one("intel.com/a", config.Selector{Vendors: []string{"8086"}, PFNames: []config.PFName{
				{Name: "ens1", VFs: []config.Range{{First: 0, Last: 1}}},
			}}),
		},
		{
			"keys in any case",
			`{"RESOURCELIST": [{"resourcename": "a", "Selectors": {"Vendors": ["8086"], "IsRdma": true, "NEEDVHOSTNET": true, "pfnames": ["eno1"]}}]}`,
			one("intel.com/a", config.Selector{Vendors: []string{"8086"}, RDMA: true, VhostNet: true, PFNames: []config.PFName{{Name: "eno1"}}}),
		},
		{
			"hexadecimal digits in any case",
			`{"resourceList": [{"resourceName": "a", "selectors": {"vendors": ["15B3"], "pciAddresses": ["0000:AF:00.0"]}}]}`,
			one("intel.com/a", config.Selector{Vendors: []string{"15b3"}, PCIAddresses: []topology.Address{address(t, "0000:af:00.0")}}),
		},
		{
			"YAML with aliases",
			"resourceList:\n- resourceName: a\n  selectors: &all\n    drivers: [yes, 1.2.3]\n- resourceName: b\n  excludeTopology: False\n  selectors: *all\n",
			append(one("intel.com/a", config.Selector{Drivers: []string{"yes", "1.2.3"}}), one("intel.com/b", config.Selector{Drivers: []string{"yes", "1.2.3"}})...),
		},
		{
			"YAML",
			"# pools\n---\nresourceList:\n- resourceName: a\n  selectors:\n    vendors: [\"8086\"]\n",
			one("intel.com/a", config.Selector{Vendors: []string{"8086"}}),
		},
		{"no resources", `{"resourceList": []}`, nil},
		{"no resources, from the operator", `{"resourceList":null}`, nil},
		{
			"one name under two prefixes",
			`{"resourceList": [{"resourceName": "a", "selectors": {}}, {"resourceName": "a", "resourcePrefix": "x.io", "selectors": {}}]}`,
			append(one("intel.com/a", config.Selector{}), one("x.io/a", config.Selector{})...),
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c, err := config.Parse([]byte(test.in), prefix)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(test.want, c.Pools); d != "" {
				t.Errorf("pools (-want +got):\n%s", d)
			}
			if len(c.Warnings) > 0 {
				t.Errorf("warnings: %v", c.Warnings)
			}
		})
	}
}

func TestParseCorpus(t *testing.T) {
	peer := "sriov-network-device-plugin/"
	tests := []struct {
		file      string
		resources []string
		rdma      int // selectors that ask for it
		mistakes  []string
	}{
		{file: "article/configmap-aws.yaml", resources: []string{"intel.com/amazon_ena"}},
		{file: "article/configmap-intel.yaml", resources: []string{"intel.com/intel_sriov_netdevice"}},
		{file: peer + "docs-dpdk-configMap.yaml", resources: []string{"intel.com/intel_x710vfio"}},
		{file: peer + "deployments-configMap.yaml", rdma: 1, resources: []string{
			"intel.com/intel_sriov_netdevice", "intel.com/intel_sriov_dpdk", "intel.com/mlnx_sriov_rdma", "intel.com/brcm_sriov_bnxt",
		}},
		{file: peer + "docs-ddp-e800-configMap.yaml", resources: []string{"intel.com/e800_default", "intel.com/e800_comms"}},
		{file: peer + "docs-dpdk-configMap-all-nics.yaml", rdma: 2, resources: []string{"dpdk.org/nic"}},
		{file: peer + "docs-rdma-configMap.yaml", rdma: 2, resources: []string{"mellanox.com/mlnx_rdma", "intel.com/intel_rdma"}},
		{file: peer + "docs-dpdk-configMap-virt.yaml", mistakes: []string{
			"line 13, column 7: invalid JSON: invalid character '}' looking for beginning of object key string: JSON has no comma after the last element",
		}},
		{file: peer + "docs-vdpa-configMap.yaml", mistakes: []string{
			"line 3, column 9: invalid JSON: invalid character '{' looking for beginning of object key string",
		}},
	}
	for _, test := range tests {
		t.Run(filepath.Base(test.file), func(t *testing.T) {
			c, err := config.Parse(corpus(t, test.file), prefix)
			if d := cmp.Diff(test.mistakes, mistakes(t, err)); d != "" {
				t.Errorf("mistakes (-want +got):\n%s", d)
			}
			var resources []string
			rdma := 0
			if c != nil {
				for _, p := range c.Pools {
					resources = append(resources, p.Resource)
					for _, s := range p.Selectors {
						if s.RDMA {
							rdma++
						}
					}
				}
				if len(c.Warnings) > 0 {
					t.Errorf("warnings: %v", c.Warnings)
				}
			}
			if rdma != test.rdma {
				t.Errorf("%d selectors ask for RDMA, want %d", rdma, test.rdma)
			}
			if d := cmp.Diff(test.resources, resources); d != "" {
				t.Errorf("resources (-want +got):\n%s", d)
			}
		})
	}
}

func mistakes(t *testing.T, err error) []string {
	t.Helper()
	if err == nil {
		return nil
	}
	var e *config.Error
	if !errors.As(err, &e) {
		t.Fatalf("error is %T, want *config.Error", err)
	}
	return texts(e.Mistakes)
}

func texts(ms []config.Mistake) []string {
	var out []string
	for _, m := range ms {
		out = append(out, m.String())
	}
	return out
}

func TestParseRefuses(t *testing.T) {
	resource := func(s string) string { return `{"resourceList": [{` + s + `}]}` }
	selector := func(s string) string { return resource(`"resourceName": "a", "selectors": {` + s + `}`) }
	long := strings.Repeat("x", 64)
	tests := []struct {
		name, in string
		want     []string
	}{
		{"nothing", " \n", []string{"line 1: the configuration is empty"}},
		{"a list", `[]`, []string{"line 1, column 1: the configuration: is a list, want an object"}},
		{"a word", `hello`, []string{"line 1, column 1: the configuration: is a string, want an object"}},
		{"no resourceList", `{}`, []string{"line 1, column 1: resourceList: missing"}},
		{"no list", `{"resourceList": {}}`, []string{"line 1, column 18: resourceList: is an object, want a list of resources"}},
		{"JSON that ends", `{"resourceList": [`, []string{"line 1, column 18: invalid JSON: unexpected end of JSON input"}},
		{"JSON with more behind", "{\"resourceList\": []}\n{}", []string{
			"line 2, column 1: invalid JSON: invalid character '{' after top-level value",
		}},
		{"columns are characters", `{"ääää" }`, []string{"line 1, column 9: invalid JSON: invalid character '}' after object key"}},
		{"not UTF-8", "{\"a\": \"\n\xff\"}", []string{"line 2, column 1: not UTF-8 text"}},
		{"a ConfigMap", "kind: ConfigMap\napiVersion: v1\ndata: {}\n", []string{
			"line 1, column 7: kind: this is a ConfigMap: the configuration is the value of its data.config.json",
		}},
		{"YAML that is none", "a: b: c\n", []string{"line 1: invalid YAML near here: mapping values are not allowed in this context"}},
		{"YAML keys there twice, and more", "resourceList:\n- resourceName: a\n  resourceName: b\n  selector: {}\n  selectors:\n    vendors: [8086]\n", []string{
			"line 3, column 3: resourceList[0].resourceName: the key is there twice, as resourceName before",
			"line 6, column 15: resourceList[0].selectors.vendors[0]: is a number, want a string in quotes",
		}},
		{"two YAML documents", "resourceList: []\n---\nresourceList: []\n", []string{"line 2, column 1: a second YAML document begins: want one"}},
		{"two YAML documents, the first on its marker's line", "--- {resourceList: []}\n--- {}\n", []string{
			"line 2, column 1: a second YAML document begins: want one",
		}},
		{"keys there twice", `{"resourceList": [], "ResourceList": []}`, []string{"line 1, column 22: ResourceList: the key is there twice, as resourceList before"}},
		{"wrong kinds", `{"resourceList": ["a", {"resourceName": 1, "resourcePrefix": [], "deviceType": {}, "excludeTopology": "yes", "selectors": "all"}]}`, []string{
			"line 1, column 19: resourceList[0]: is a string, want an object",
			"line 1, column 41: resourceList[1].resourceName: is a number, want a string",
			"line 1, column 62: resourceList[1].resourcePrefix: is a list, want a string",
			"line 1, column 80: resourceList[1].deviceType: is an object, want a string",
			"line 1, column 103: resourceList[1].excludeTopology: is a string, want true or false",
			"line 1, column 123: resourceList[1].selectors: is a string, want an object",
		}},
		{"nothing given", resource(``), []string{
			"line 1, column 19: resourceList[0].selectors: missing: without a selector the pool would take every device",
			"line 1, column 19: resourceList[0].resourceName: missing",
		}},
		{"empty selectors", resource(`"resourceName": "a", "selectors": []`), []string{
			"line 1, column 54: resourceList[0].selectors: an empty list selects nothing: want at least one selector",
		}},
		{"null selector", resource(`"resourceName": "a", "selectors": [null]`), []string{
			"line 1, column 55: resourceList[0].selectors[0]: is null, want an object",
		}},
		{"device types", `{"resourceList": [{"resourceName": "c", "deviceType": "gpu", "selectors": {"auxTypes": []}}, {"resourceName": "d", "deviceType": "NetDevice", "selectors": {}}]}`, []string{
			`line 1, column 55: resourceList[0].deviceType: "gpu" is not a device type, want netDevice, accelerator or auxNetDevice`,
			`line 1, column 130: resourceList[1].deviceType: "NetDevice" is not a device type, want netDevice, accelerator or auxNetDevice`,
		}},
		{"contradictions", `{"resourceList": [{"resourceName": "a", "selectors": [{"vdpaType": "vhost", "isRdma": true}, {"vdpaType": "net"}]},
			{"resourceName": "b", "deviceType": "auxNetDevice", "selectors": [{"vendors": ["15b3"]}, {"auxTypes": ["sf", "eth"]}, {"auxTypes": null}]}]}`, []string{
			"line 1, column 68: resourceList[0].selectors[0].vdpaType: contradicts isRdma: a device is handed out for the one or for the other",
			`line 1, column 107: resourceList[0].selectors[1].vdpaType: "net": want vhost or virtio`,
			"line 2, column 70: resourceList[1].selectors[0].auxTypes: missing: deviceType auxNetDevice needs it, with sf",
			`line 2, column 113: resourceList[1].selectors[1].auxTypes[1]: "eth": want sf`,
			"line 2, column 122: resourceList[1].selectors[2].auxTypes: missing: deviceType auxNetDevice needs it, with sf",
		}},
		{"values of the other keys", selector(`"acpiIndexes": [101, ""], "linkTypes": ["IB"], "ddpProfiles": [" "], "pKeys": ["8001", "0x", "0x12345"], "isRdma": "yes",
			"needVhostNet": 1, "vdpaType": true`), []string{
			"line 1, column 71: resourceList[0].selectors.acpiIndexes[0]: is a number, want a string in quotes",
			`line 1, column 76: resourceList[0].selectors.acpiIndexes[1]: "": an empty name matches nothing`,
			`line 1, column 95: resourceList[0].selectors.linkTypes[0]: "IB": want ether or infiniband`,
			`line 1, column 118: resourceList[0].selectors.ddpProfiles[0]: " ": an empty name matches nothing`,
			`line 1, column 134: resourceList[0].selectors.pKeys[0]: "8001": want a P_Key of 16 bits, such as 0x8001`,
			`line 1, column 142: resourceList[0].selectors.pKeys[1]: "0x": want a P_Key of 16 bits, such as 0x8001`,
			`line 1, column 148: resourceList[0].selectors.pKeys[2]: "0x12345": want a P_Key of 16 bits, such as 0x8001`,
			"line 1, column 170: resourceList[0].selectors.isRdma: is a string, want true or false",
			"line 2, column 20: resourceList[0].selectors.needVhostNet: is a number, want true or false",
			"line 2, column 35: resourceList[0].selectors.vdpaType: is true or false, want a string",
		}},
		{"additional information", resource(`"resourceName": "a", "additionalInfo": {"*": {"n": 1, "k": "a", "k": "b"}, "0000:af:00.0": {"a": "b"}, "0000:AF:00.0": {}, "mlx5_core.sf.4": "x"}, "selectors": {}`), []string{
			`line 1, column 71: resourceList[0].additionalInfo["*"].n: is a number, want a string`,
			`line 1, column 84: resourceList[0].additionalInfo["*"].k: the key is there twice`,
			`line 1, column 123: resourceList[0].additionalInfo["0000:AF:00.0"]: device 0000:af:00.0 is there twice`,
			`line 1, column 161: resourceList[0].additionalInfo["mlx5_core.sf.4"]: is a string, want an object of strings`,
		}},
		{"additional information that is none", resource(`"resourceName": "a", "additionalInfo": [], "selectors": {}`), []string{
			"line 1, column 59: resourceList[0].additionalInfo: is a list, want an object of devices",
		}},
		{"YAML that multiplies", "a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\n" +
			"d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\nresourceList: [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\n", []string{
			"line 1, column 8: more than 20000 values, with those of aliases",
		}},
		{"YAML that holds itself", "resourceList: &a [*a]\n", []string{
			"line 1, column 19: more than 20000 values, with those of aliases",
		}},
		{"YAML of its own kind", "resourceList:\n- <<: {resourceName: a}\n  ? [x]\n  : 1\n  resourcePrefix: !x y\n", []string{
			"line 2, column 3: YAML's merge key is not read: write out what it stands for",
			"line 3, column 5: a key has to be text",
			"line 5, column 19: YAML's tag !x is not read: want plain text",
		}},
		{"YAML that ends", "resourceList:\n- {resourceName: a\n", []string{
			"line 1: invalid YAML near here: did not find expected ',' or '}'",
		}},
		{"a resource there twice", `{"resourceList": [{"resourceName": "a", "selectors": {}}, {"resourceName": "a", "resourcePrefix": "intel.com", "selectors": {}}]}`, []string{
			"line 1, column 59: resourceList[1]: resource intel.com/a is resourceList[0] already",
		}},
		{"ids", selector(`"vendors": ["0x8086", "", "80866", "eth0", 8086, null], "devices": "154c"`), []string{
			`line 1, column 67: resourceList[0].selectors.vendors[0]: "0x8086": want four hexadecimal digits, such as 8086, without 0x`,
			`line 1, column 77: resourceList[0].selectors.vendors[1]: "": want four hexadecimal digits, such as 8086, without 0x`,
			`line 1, column 81: resourceList[0].selectors.vendors[2]: "80866": want four hexadecimal digits, such as 8086, without 0x`,
			`line 1, column 90: resourceList[0].selectors.vendors[3]: "eth0": want four hexadecimal digits, such as 8086, without 0x`,
			"line 1, column 98: resourceList[0].selectors.vendors[4]: is a number, want a string in quotes",
			"line 1, column 104: resourceList[0].selectors.vendors[5]: is null, want a string in quotes",
			"line 1, column 122: resourceList[0].selectors.devices: is a string, want a list of strings",
		}},
		{"addresses", selector(`"pciAddresses": ["3b:02.0", "0000:3b:02.0#1"], "rootDevices": ["eno1", "0000:3b:00.0#2-1"]`), []string{
			`line 1, column 72: resourceList[0].selectors.pciAddresses[0]: "3b:02.0": want a PCI address of the form 0000:3b:02.0`,
			`line 1, column 83: resourceList[0].selectors.pciAddresses[1]: "0000:3b:02.0#1": VF ranges belong to rootDevices and pfNames`,
			`line 1, column 118: resourceList[0].selectors.rootDevices[0]: "eno1": want a PCI address of the form 0000:3b:02.0`,
			`line 1, column 126: resourceList[0].selectors.rootDevices[1]: "0000:3b:00.0#2-1": range runs backwards`,
		}},
		{"ranges", selector(`"pfNames": ["eno1#3-1", "eno1#", "eno1#1,", "eno1#1#2", "eno1#1-2-3", "eno1#0, 1", "#1", "eno1#-1", "eno1#65535", "en o1", "a/b"], "drivers": [""]`), []string{
			`line 1, column 67: resourceList[0].selectors.pfNames[0]: "eno1#3-1": range runs backwards`,
			`line 1, column 79: resourceList[0].selectors.pfNames[1]: "eno1#": "" is not a VF index or a range of them: want NAME#0-3,5`,
			`line 1, column 88: resourceList[0].selectors.pfNames[2]: "eno1#1,": "" is not a VF index or a range of them: want NAME#0-3,5`,
			`line 1, column 99: resourceList[0].selectors.pfNames[3]: "eno1#1#2": more than one #: want NAME#0-3,5`,
			`line 1, column 111: resourceList[0].selectors.pfNames[4]: "eno1#1-2-3": "1-2-3" is not a VF index or a range of them: want NAME#0-3,5`,
			`line 1, column 125: resourceList[0].selectors.pfNames[5]: "eno1#0, 1": " 1" is not a VF index or a range of them: want NAME#0-3,5`,
			`line 1, column 138: resourceList[0].selectors.pfNames[6]: "#1": an empty name matches nothing`,
			`line 1, column 144: resourceList[0].selectors.pfNames[7]: "eno1#-1": "-1" is not a VF index or a range of them: want NAME#0-3,5`,
			`line 1, column 155: resourceList[0].selectors.pfNames[8]: "eno1#65535": no PF has a VF 65535`,
			`line 1, column 169: resourceList[0].selectors.pfNames[9]: "en o1": a name has no spaces and no slashes`,
			`line 1, column 178: resourceList[0].selectors.pfNames[10]: "a/b": a name has no spaces and no slashes`,
			`line 1, column 198: resourceList[0].selectors.drivers[0]: "": an empty name matches nothing`,
		}},
		{"a prefix in the name", resource(`"resourceName": "intel.com/a", "selectors": {}`), []string{
			`line 1, column 36: resourceList[0].resourceName: "intel.com/a": want the name alone: what stands before the slash is resourcePrefix`,
		}},
		{"Kubernetes' own prefixes", resource(`"resourceName": "a", "resourcePrefix": "x.kubernetes.io", "selectors": {}`), []string{
			`line 1, column 59: resourceList[0].resourcePrefix: "x.kubernetes.io": domains that end in kubernetes.io are Kubernetes' own`,
		}},
		{"a quota's prefix", resource(`"resourceName": "a", "resourcePrefix": "requests.io", "selectors": {}`), []string{
			`line 1, column 59: resourceList[0].resourcePrefix: "requests.io": resource names that begin with requests. belong to quotas`,
		}},
		{"a prefix too long for its quota", resource(`"resourceName": "a", "resourcePrefix": "` + strings.Repeat("a.", 122) + `a", "selectors": {}`), []string{
			`line 1, column 59: resourceList[0].resourcePrefix: "` + strings.Repeat("a.", 122) + `a": more than 244 characters`,
		}},
		{"a name too long", resource(`"resourceName": "` + long + `", "selectors": {}`), []string{
			`line 1, column 36: resourceList[0].resourceName: "` + long + `": name part must be no more than 63 bytes`,
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

// What has no effect in the peer's plugin has none here, and is told.
func TestParseWarns(t *testing.T) {
	tests := []struct {
		name, in string
		want     []string
	}{
		{"unknown keys", `{"version": 1, "resourceList": [{"resourceName": "a", "vendors": [], "odd key": 1,
			"selectors": {"vendor": ["8086"], "pf_names": ["eno1"], "needVhost": true, "link": "up", "x": null}}]}`, []string{
			"line 1, column 2: version: unknown key, without effect: want resourceList",
			"line 1, column 55: resourceList[0].vendors: unknown key, without effect: it belongs under selectors",
			`line 1, column 70: resourceList[0]["odd key"]: unknown key, without effect: want resourceName, resourcePrefix, deviceType, ` +
				"excludeTopology, selectors, additionalInfo, SelectorObj or SelectorObjs",
			"line 2, column 18: resourceList[0].selectors.vendor: unknown key, without effect: did you mean vendors?",
			"line 2, column 38: resourceList[0].selectors.pf_names: unknown key, without effect: did you mean pfNames?",
			"line 2, column 60: resourceList[0].selectors.needVhost: unknown key, without effect: did you mean needVhostNet?",
			"line 2, column 79: resourceList[0].selectors.link: unknown key, without effect: did you mean linkTypes?",
			"line 2, column 93: resourceList[0].selectors.x: unknown key, without effect: want vendors, devices, drivers, pciAddresses, acpiIndexes, " +
				"pfNames, rootDevices, linkTypes, ddpProfiles, pKeys, auxTypes, isRdma, vdpaType or needVhostNet",
		}},
		{
			"keys that the device type has not", `{"resourceList": [{"resourceName": "a", "selectors": {"auxTypes": ["sf"]}},
			{"resourceName": "b", "deviceType": "accelerator", "selectors": [{"pfNames": ["eno1#x"], "rootDevices": ["y"], "linkTypes": ["ether"], "ddpProfiles": ["z"],
			 "pKeys": [1], "isRdma": true, "needVhostNet": true, "vdpaType": "vhost"}, {"pfNames": [], "isRdma": false, "vdpaType": "", "linkTypes": null}]},
			{"resourceName": "c", "deviceType": "auxNetDevice", "selectors": {"auxTypes": ["sf"], "pciAddresses": ["0000:3b:00.0"], "vdpaType": "vhost", "isRdma": true, "pKeys": ["0x1"]}}]}`,
			[]string{
				"line 1, column 67: resourceList[0].selectors.auxTypes: has no effect for deviceType netDevice",
				"line 2, column 81: resourceList[1].selectors[0].pfNames: has no effect for deviceType accelerator",
				"line 2, column 108: resourceList[1].selectors[0].rootDevices: has no effect for deviceType accelerator",
				"line 2, column 128: resourceList[1].selectors[0].linkTypes: has no effect for deviceType accelerator",
				"line 2, column 154: resourceList[1].selectors[0].ddpProfiles: has no effect for deviceType accelerator",
				"line 3, column 14: resourceList[1].selectors[0].pKeys: has no effect for deviceType accelerator",
				"line 3, column 29: resourceList[1].selectors[0].isRdma: has no effect for deviceType accelerator",
				"line 3, column 51: resourceList[1].selectors[0].needVhostNet: has no effect for deviceType accelerator",
				"line 3, column 69: resourceList[1].selectors[0].vdpaType: has no effect for deviceType accelerator",
				"line 4, column 106: resourceList[2].selectors.pciAddresses: has no effect for deviceType auxNetDevice",
				"line 4, column 136: resourceList[2].selectors.vdpaType: has no effect for deviceType auxNetDevice",
				"line 4, column 170: resourceList[2].selectors.pKeys: has no effect for deviceType auxNetDevice",
			},
		},
		{"P_Keys of Ethernet", `{"resourceList": [{"resourceName": "a", "selectors": {"pKeys": ["0x1"], "linkTypes": ["ether"]}}]}`, []string{
			"line 1, column 64: resourceList[0].selectors.pKeys: no device has a P_Key and one of these linkTypes: the selector takes nothing",
		}},
		{"information for no device", `{"resourceList": [{"resourceName": "a", "selectors": {}, "additionalInfo": {"eno1": {"a": "b"}, "all": {}}}]}`, []string{
			`line 1, column 77: resourceList[0].additionalInfo.eno1: "eno1" names no device: want "*", a PCI address such as 0000:3b:02.0 or a subfunction such as mlx5_core.sf.4`,
			`line 1, column 97: resourceList[0].additionalInfo.all: "all" names no device: want "*", a PCI address such as 0000:3b:02.0 or a subfunction such as mlx5_core.sf.4`,
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c, err := config.Parse([]byte(test.in), prefix)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(test.want, texts(c.Warnings)); d != "" {
				t.Errorf("warnings (-want +got):\n%s", d)
			}
		})
	}
}

// Warnings are told beside mistakes too.
func TestParseWarnsOfWhatItRefuses(t *testing.T) {
	_, err := config.Parse([]byte("resourceList:\n- name: a\n  selectors: {}\n"), prefix)
	var e *config.Error
	if !errors.As(err, &e) {
		t.Fatalf("error %v, want *config.Error", err)
	}
	want := []string{"line 2, column 3: resourceList[0].name: unknown key, without effect: did you mean resourceName?"}
	if d := cmp.Diff(want, texts(e.Warnings)); d != "" {
		t.Errorf("warnings (-want +got):\n%s", d)
	}
}

// The names' rules are Kubernetes' own, word by word; what matters here is
// that they are asked, and where the mistake is said to be.
func TestParseRefusesNamesOfTheKubelet(t *testing.T) {
	for _, test := range []struct{ name, prefix, path string }{
		{"-a", prefix, "resourceList[0].resourceName"},
		{"a_", prefix, "resourceList[0].resourceName"},
		{"", prefix, "resourceList[0].resourceName"},
		{"a b", prefix, "resourceList[0].resourceName"},
		{"a", "Intel.com", "default resource prefix"},
		{"a", "intel..com", "default resource prefix"},
		{"a", "", "default resource prefix"},
	} {
		in := `{"resourceList": [{"resourceName": "` + test.name + `", "selectors": {}}]}`
		_, err := config.Parse([]byte(in), test.prefix)
		var e *config.Error
		if !errors.As(err, &e) {
			t.Errorf("%s/%s: error %v, want *config.Error", test.prefix, test.name, err)
			continue
		}
		for _, m := range e.Mistakes {
			if m.Path != test.path {
				t.Errorf("%s/%s: mistake at %s, want %s", test.prefix, test.name, m.Path, test.path)
			}
		}
	}
}

func TestParseTellsTheDefaultPrefixOnce(t *testing.T) {
	in := `{"resourceList": [{"resourceName": "a", "selectors": {}}, {"resourceName": "b", "selectors": {}}]}`
	_, err := config.Parse([]byte(in), "kubernetes.io")
	want := []string{`default resource prefix: "kubernetes.io": domains that end in kubernetes.io are Kubernetes' own`}
	if d := cmp.Diff(want, mistakes(t, err)); d != "" {
		t.Errorf("mistakes (-want +got):\n%s", d)
	}
}

func TestErrorListsMistakes(t *testing.T) {
	e := &config.Error{Mistakes: []config.Mistake{{Path: "a", Text: "is wrong"}}}
	if got, want := e.Error(), "a: is wrong"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	e.Mistakes = append(e.Mistakes, config.Mistake{Path: "b", Text: "is too"})
	if got, want := e.Error(), "2 mistakes:\n  a: is wrong\n  b: is too"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	if _, err := config.Load(filepath.Join(dir, "none"), prefix); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing file: %v, want fs.ErrNotExist", err)
	}
	bad := filepath.Join(dir, "bad.json")
	if err := os.WriteFile(bad, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := config.Load(bad, prefix)
	if e := new(config.Error); !errors.As(err, &e) || !strings.Contains(err.Error(), bad) {
		t.Errorf("bad file: %v, want *config.Error and the path", err)
	}
	good := filepath.Join(dir, "good.json")
	if err := os.WriteFile(good, corpus(t, "article/configmap-intel.yaml"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(good, prefix)
	if err != nil || len(c.Pools) != 1 {
		t.Errorf("good file: %v, %v", c, err)
	}
}

// FuzzParse holds that any input gives a configuration or mistakes with
// places, that what is accepted is sound, and that our own format can say it.
func FuzzParse(f *testing.F) {
	for _, file := range corpusFiles(f) {
		f.Add(corpus(f, file))
	}
	f.Add(v1alpha1.Defaults)
	f.Add([]byte("resourceList:\n- resourceName: a\n  selectors: {pfNames: [eno1#0-3]}\n"))
	f.Add([]byte(`{"resourceList":[{"resourceName":"a","selectors":[{"rootDevices":["0000:3b:00.0#1,2"]}],"SelectorObj":null}]}`))
	f.Add([]byte(strings.Repeat("[", 20000)))
	schema := resolvedSchema(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := config.Parse(data, prefix)
		if err != nil {
			var e *config.Error
			if !errors.As(err, &e) || len(e.Mistakes) == 0 || c != nil {
				t.Fatalf("error %T without mistakes, or with a configuration", err)
			}
			for _, m := range e.Mistakes {
				if m.Line == 0 && m.Path != "default resource prefix" || m.Text == "" {
					t.Fatalf("mistake without place or text: %+v", m)
				}
			}
			return
		}
		var resources []string
		for _, p := range c.Pools {
			if p.Resource == "" || p.DeviceType == "" || len(p.Selectors) == 0 || slices.Contains(resources, p.Resource) {
				t.Fatalf("pool %+v among %q", p, resources)
			}
			resources = append(resources, p.Resource)
			for _, s := range p.Selectors {
				for _, n := range s.PFNames {
					for _, r := range n.VFs {
						if r.First < 0 || r.First > r.Last {
							t.Fatalf("range %+v", r)
						}
					}
				}
			}
		}
		converted(t, schema, c)
	})
}
