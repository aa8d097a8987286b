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
			"one selector without a list",
			`{"resourceList": [{"resourceName": "a", "selectors": {"vendors": ["15b3"]}}]}`,
			one("intel.com/a", config.Selector{Vendors: []string{"15b3"}}),
		},
		{
			"what the operator's serializer leaves",
			`{"resourceList":[{"resourceName":"a","selectors":{"vendors":["8086"],"pfNames":["ens1#0-1"],"IsRdma":false,` +
				`"NeedVhostNet":false,"vdpaType":"","linkTypes":null,"ddpProfiles":[]},"SelectorObj":null,"SelectorObjs":null,` +
				`"additionalInfo":{},"deviceType":"","resourcePrefix":""}]}`,
			one("intel.com/a", config.Selector{Vendors: []string{"8086"}, PFNames: []config.PFName{
				{Name: "ens1", VFs: []config.Range{{First: 0, Last: 1}}},
			}}),
		},
		{
			"keys in any case",
			`{"RESOURCELIST": [{"resourcename": "a", "Selectors": {"Vendors": ["8086"]}}]}`,
			one("intel.com/a", config.Selector{Vendors: []string{"8086"}}),
		},
		{
			"hexadecimal digits in any case",
			`{"resourceList": [{"resourceName": "a", "selectors": {"vendors": ["15B3"], "pciAddresses": ["0000:AF:00.0"]}}]}`,
			one("intel.com/a", config.Selector{Vendors: []string{"15b3"}, PCIAddresses: []topology.Address{address(t, "0000:af:00.0")}}),
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
		})
	}
}

func TestParseCorpus(t *testing.T) {
	tests := []struct {
		file      string
		resources []string
		mistakes  []string
	}{
		{file: "article/configmap-aws.yaml", resources: []string{"intel.com/amazon_ena"}},
		{file: "article/configmap-intel.yaml", resources: []string{"intel.com/intel_sriov_netdevice"}},
		{file: "sriov-network-device-plugin/docs-dpdk-configMap.yaml", resources: []string{"intel.com/intel_x710vfio"}},
		{file: "sriov-network-device-plugin/deployments-configMap.yaml", mistakes: []string{
			"resourceList[2].selectors.isRdma: not supported yet: remove it, or leave it empty or false",
		}},
		{file: "sriov-network-device-plugin/docs-ddp-e800-configMap.yaml", mistakes: []string{
			"resourceList[0].selectors[0].ddpProfiles: not supported yet: remove it, or leave it empty or false",
			"resourceList[1].selectors[0].ddpProfiles: not supported yet: remove it, or leave it empty or false",
		}},
		{file: "sriov-network-device-plugin/docs-dpdk-configMap-all-nics.yaml", mistakes: []string{
			"resourceList[0].selectors[0].isRdma: not supported yet: remove it, or leave it empty or false",
			"resourceList[0].selectors[1].isRdma: not supported yet: remove it, or leave it empty or false",
		}},
		{file: "sriov-network-device-plugin/docs-rdma-configMap.yaml", mistakes: []string{
			"resourceList[0].selectors[0].isRdma: not supported yet: remove it, or leave it empty or false",
			"resourceList[1].selectors.isRdma: not supported yet: remove it, or leave it empty or false",
		}},
		{file: "sriov-network-device-plugin/docs-dpdk-configMap-virt.yaml", mistakes: []string{
			"line 13, column 7: invalid JSON: invalid character '}' looking for beginning of object key string: JSON has no comma after the last element",
		}},
		{file: "sriov-network-device-plugin/docs-vdpa-configMap.yaml", mistakes: []string{
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
			if c != nil {
				for _, p := range c.Pools {
					resources = append(resources, p.Resource)
				}
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
	var out []string
	for _, m := range e.Mistakes {
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
		{"a list", `[]`, []string{"the configuration: is a list, want an object"}},
		{"a word", `hello`, []string{"the configuration: is a string, want an object"}},
		{"no resourceList", `{}`, []string{"resourceList: missing"}},
		{"no list", `{"resourceList": {}}`, []string{"resourceList: is an object, want a list of resources"}},
		{"JSON that ends", `{"resourceList": [`, []string{"line 1, column 18: invalid JSON: unexpected end of JSON input"}},
		{"JSON with more behind", "{\"resourceList\": []}\n{}", []string{
			"line 2, column 1: invalid JSON: invalid character '{' after top-level value",
		}},
		{"columns are characters", `{"ääää" }`, []string{"line 1, column 9: invalid JSON: invalid character '}' after object key"}},
		{"not UTF-8", "{\"a\": \"\n\xff\"}", []string{"line 2, column 1: not UTF-8 text"}},
		{"a ConfigMap", "kind: ConfigMap\napiVersion: v1\ndata: {}\n", []string{
			"kind: this is a ConfigMap: the configuration is the value of its data.config.json",
		}},
		{"YAML that is none", "a: b: c\n", []string{"YAML: mapping values are not allowed in this context"}},
		{"YAML keys there twice, and more", "resourceList:\n- resourceName: a\n  resourceName: b\n  selector: {}\n  selectors:\n    vendors: [8086]\n", []string{
			`line 3: key "resourceName" already set in map`,
			"resourceList[0].selector: unknown key: want resourceName, resourcePrefix, deviceType, excludeTopology or selectors",
			"resourceList[0].selectors.vendors[0]: is a number, want a string in quotes",
		}},
		{"two YAML documents", "resourceList: []\n---\nresourceList: []\n", []string{"line 2: a second YAML document begins: want one"}},
		{"two YAML documents, the first on its marker's line", "--- {resourceList: []}\n--- {}\n", []string{
			"line 2: a second YAML document begins: want one",
		}},
		{"keys there twice", `{"resourceList": [], "ResourceList": []}`, []string{"ResourceList: the key is there twice, as resourceList before"}},
		{"unknown keys", `{"version": 1, "resourceList": [{"resourceName": "a", "vendors": [], "odd key": 1, "selectors": {"vendor": ["8086"]}}]}`, []string{
			"version: unknown key: want resourceList",
			"resourceList[0].vendors: unknown key: it belongs under selectors",
			`resourceList[0]["odd key"]: unknown key: want resourceName, resourcePrefix, deviceType, excludeTopology or selectors`,
			"resourceList[0].selectors.vendor: unknown key: want vendors, devices, drivers, pciAddresses, pfNames or rootDevices",
		}},
		{"wrong kinds", `{"resourceList": ["a", {"resourceName": 1, "resourcePrefix": [], "deviceType": {}, "excludeTopology": "yes", "selectors": "all"}]}`, []string{
			"resourceList[0]: is a string, want an object",
			"resourceList[1].resourceName: is a number, want a string",
			"resourceList[1].resourcePrefix: is a list, want a string",
			"resourceList[1].deviceType: is an object, want a string",
			"resourceList[1].excludeTopology: is a string, want true or false",
			"resourceList[1].selectors: is a string, want an object",
		}},
		{"nothing given", resource(``), []string{
			"resourceList[0].selectors: missing: without a selector the pool would take every network device",
			"resourceList[0].resourceName: missing",
		}},
		{"empty selectors", resource(`"resourceName": "a", "selectors": []`), []string{
			"resourceList[0].selectors: an empty list selects nothing: want at least one selector",
		}},
		{"null selector", resource(`"resourceName": "a", "selectors": [null]`), []string{
			"resourceList[0].selectors[0]: is null, want an object",
		}},
		{"device types", `{"resourceList": [{"resourceName": "a", "deviceType": "accelerator", "selectors": {}}, {"resourceName": "b", "deviceType": "auxNetDevice", "selectors": {}},
			{"resourceName": "c", "deviceType": "gpu", "selectors": {}}]}`, []string{
			`resourceList[0].deviceType: "accelerator" is not supported yet, only netDevice is`,
			`resourceList[1].deviceType: "auxNetDevice" is not supported yet, only netDevice is`,
			`resourceList[2].deviceType: "gpu" is not a device type, want netDevice`,
		}},
		{
			"known keys that would change something",
			resource(`"resourceName": "a", "additionalInfo": {"*": {"a": "b"}}, "SelectorObj": 1, "selectors": {"isRdma": true, "NeedVhostNet": true,
				"vdpaType": "vhost", "linkTypes": ["ether"], "ddpProfiles": ["x"], "pKeys": ["0x1"], "acpiIndexes": ["1"], "auxTypes": ["sf"]}`),
			[]string{
				"resourceList[0].additionalInfo: not supported yet: remove it, or leave it empty or false",
				"resourceList[0].SelectorObj: not supported yet: remove it, or leave it empty or false",
				"resourceList[0].selectors.isRdma: not supported yet: remove it, or leave it empty or false",
				"resourceList[0].selectors.NeedVhostNet: not supported yet: remove it, or leave it empty or false",
				"resourceList[0].selectors.vdpaType: not supported yet: remove it, or leave it empty or false",
				"resourceList[0].selectors.linkTypes: not supported yet: remove it, or leave it empty or false",
				"resourceList[0].selectors.ddpProfiles: not supported yet: remove it, or leave it empty or false",
				"resourceList[0].selectors.pKeys: not supported yet: remove it, or leave it empty or false",
				"resourceList[0].selectors.acpiIndexes: not supported yet: remove it, or leave it empty or false",
				"resourceList[0].selectors.auxTypes: not supported yet: remove it, or leave it empty or false",
			},
		},
		{"a resource there twice", `{"resourceList": [{"resourceName": "a", "selectors": {}}, {"resourceName": "a", "resourcePrefix": "intel.com", "selectors": {}}]}`, []string{
			"resourceList[1]: resource intel.com/a is resourceList[0] already",
		}},
		{"ids", selector(`"vendors": ["0x8086", "", "80866", "eth0", 8086, null], "devices": "154c"`), []string{
			`resourceList[0].selectors.vendors[0]: "0x8086": want four hexadecimal digits, such as 8086, without 0x`,
			`resourceList[0].selectors.vendors[1]: "": want four hexadecimal digits, such as 8086, without 0x`,
			`resourceList[0].selectors.vendors[2]: "80866": want four hexadecimal digits, such as 8086, without 0x`,
			`resourceList[0].selectors.vendors[3]: "eth0": want four hexadecimal digits, such as 8086, without 0x`,
			"resourceList[0].selectors.vendors[4]: is a number, want a string in quotes",
			"resourceList[0].selectors.vendors[5]: is null, want a string in quotes",
			"resourceList[0].selectors.devices: is a string, want a list of strings",
		}},
		{"addresses", selector(`"pciAddresses": ["3b:02.0", "0000:3b:02.0#1"], "rootDevices": ["eno1", "0000:3b:00.0#2-1"]`), []string{
			`resourceList[0].selectors.pciAddresses[0]: "3b:02.0": want a PCI address of the form 0000:3b:02.0`,
			`resourceList[0].selectors.pciAddresses[1]: "0000:3b:02.0#1": VF ranges belong to rootDevices and pfNames`,
			`resourceList[0].selectors.rootDevices[0]: "eno1": want a PCI address of the form 0000:3b:02.0`,
			`resourceList[0].selectors.rootDevices[1]: "0000:3b:00.0#2-1": range runs backwards`,
		}},
		{"ranges", selector(`"pfNames": ["eno1#3-1", "eno1#", "eno1#1,", "eno1#1#2", "eno1#1-2-3", "eno1#0, 1", "#1", "eno1#-1", "eno1#65535", "en o1", "a/b"], "drivers": [""]`), []string{
			`resourceList[0].selectors.pfNames[0]: "eno1#3-1": range runs backwards`,
			`resourceList[0].selectors.pfNames[1]: "eno1#": "" is not a VF index or a range of them: want NAME#0-3,5`,
			`resourceList[0].selectors.pfNames[2]: "eno1#1,": "" is not a VF index or a range of them: want NAME#0-3,5`,
			`resourceList[0].selectors.pfNames[3]: "eno1#1#2": more than one #: want NAME#0-3,5`,
			`resourceList[0].selectors.pfNames[4]: "eno1#1-2-3": "1-2-3" is not a VF index or a range of them: want NAME#0-3,5`,
			`resourceList[0].selectors.pfNames[5]: "eno1#0, 1": " 1" is not a VF index or a range of them: want NAME#0-3,5`,
			`resourceList[0].selectors.pfNames[6]: "#1": an empty name matches nothing`,
			`resourceList[0].selectors.pfNames[7]: "eno1#-1": "-1" is not a VF index or a range of them: want NAME#0-3,5`,
			`resourceList[0].selectors.pfNames[8]: "eno1#65535": no PF has a VF 65535`,
			`resourceList[0].selectors.pfNames[9]: "en o1": a name has no spaces and no slashes`,
			`resourceList[0].selectors.pfNames[10]: "a/b": a name has no spaces and no slashes`,
			`resourceList[0].selectors.drivers[0]: "": an empty name matches nothing`,
		}},
		{"a prefix in the name", resource(`"resourceName": "intel.com/a", "selectors": {}`), []string{
			`resourceList[0].resourceName: "intel.com/a": want the name alone: what stands before the slash is resourcePrefix`,
		}},
		{"Kubernetes' own prefixes", resource(`"resourceName": "a", "resourcePrefix": "x.kubernetes.io", "selectors": {}`), []string{
			`resourceList[0].resourcePrefix: "x.kubernetes.io": domains that end in kubernetes.io are Kubernetes' own`,
		}},
		{"a quota's prefix", resource(`"resourceName": "a", "resourcePrefix": "requests.io", "selectors": {}`), []string{
			`resourceList[0].resourcePrefix: "requests.io": resource names that begin with requests. belong to quotas`,
		}},
		{"a prefix too long for its quota", resource(`"resourceName": "a", "resourcePrefix": "` + strings.Repeat("a.", 122) + `a", "selectors": {}`), []string{
			`resourceList[0].resourcePrefix: "` + strings.Repeat("a.", 122) + `a": more than 244 characters`,
		}},
		{"a name too long", resource(`"resourceName": "` + long + `", "selectors": {}`), []string{
			`resourceList[0].resourceName: "` + long + `": name part must be no more than 63 bytes`,
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
// places, and that what is accepted is sound.
func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/article/*.yaml", "testdata/sriov-network-device-plugin/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			f.Fatalf("%s: %d files, %v", pattern, len(files), err)
		}
		for _, file := range files {
			rel, err := filepath.Rel("testdata", file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(corpus(f, rel))
		}
	}
	f.Add([]byte("resourceList:\n- resourceName: a\n  selectors: {pfNames: [eno1#0-3]}\n"))
	f.Add([]byte(`{"resourceList":[{"resourceName":"a","selectors":[{"rootDevices":["0000:3b:00.0#1,2"]}],"SelectorObj":null}]}`))
	f.Add([]byte(strings.Repeat("[", 20000)))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := config.Parse(data, prefix)
		if err != nil {
			var e *config.Error
			if !errors.As(err, &e) || len(e.Mistakes) == 0 || c != nil {
				t.Fatalf("error %T without mistakes, or with a configuration", err)
			}
			for _, m := range e.Mistakes {
				if m.Path == "" || m.Text == "" {
					t.Fatalf("mistake without place or text: %+v", m)
				}
			}
			return
		}
		var resources []string
		for _, p := range c.Pools {
			if p.Resource == "" || len(p.Selectors) == 0 || slices.Contains(resources, p.Resource) {
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
	})
}
