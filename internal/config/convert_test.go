package config_test

import (
	"encoding/json"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/jsonschema-go/jsonschema"
	"sigs.k8s.io/yaml"

	"github.com/numalane/numalane/internal/config"
	"github.com/numalane/numalane/internal/config/v1alpha1"
)

// corpusFiles are the ConfigMaps of others.
func corpusFiles(t testing.TB) []string {
	t.Helper()
	var out []string
	for _, dir := range []string{"article", "sriov-network-device-plugin"} {
		files, err := filepath.Glob(filepath.Join("testdata", dir, "*.yaml"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", dir, len(files), err)
		}
		for _, file := range files {
			out = append(out, filepath.Join(dir, filepath.Base(file)))
		}
	}
	return out
}

func resolvedSchema(t testing.TB) *jsonschema.Resolved {
	t.Helper()
	var s jsonschema.Schema
	if err := json.Unmarshal(v1alpha1.Schema, &s); err != nil {
		t.Fatal(err)
	}
	r, err := s.Resolve(nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// converted is a configuration in our own format, which has to be the same when
// it is read again, and to fit the schema.
func converted(t *testing.T, schema *jsonschema.Resolved, c *config.Config) []byte {
	t.Helper()
	text, err := c.YAML()
	if err != nil {
		t.Fatal(err)
	}
	again, err := config.Parse(text, "other.example.com")
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if d := cmp.Diff(c.Pools, again.Pools); d != "" {
		t.Fatalf("pools (-read +converted and read):\n%s\n%s", d, text)
	}
	validate(t, schema, text)
	return text
}

func validate(t *testing.T, schema *jsonschema.Resolved, text []byte) {
	t.Helper()
	var doc any
	if err := yaml.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	if err := schema.Validate(doc); err != nil {
		t.Fatalf("the schema refuses it: %v\n%s", err, text)
	}
}

func TestConvertCorpus(t *testing.T) {
	schema := resolvedSchema(t)
	valid := 0
	for _, file := range corpusFiles(t) {
		c, err := config.Parse(corpus(t, file), prefix)
		if err != nil {
			continue // the two that TestParseCorpus wants refused
		}
		valid++
		converted(t, schema, c)
	}
	if valid != 7 {
		t.Errorf("%d files are valid, want 7", valid)
	}
}

func TestConvertReadsWell(t *testing.T) {
	c, err := config.Parse([]byte(`{"resourceList": [
		{"resourceName": "net", "excludeTopology": true, "additionalInfo": {"*": {"a": "yes", "b": "line\nline"}},
		 "selectors": {"vendors": ["8086"], "devices": ["154c", "1889"], "pfNames": ["ens1f0#0-3,5"], "pciAddresses": ["0000:3B:02.0"], "needVhostNet": true}},
		{"resourceName": "fpga", "resourcePrefix": "example.com", "deviceType": "accelerator", "selectors": [{}, {"drivers": ["vfio-pci"]}]}]}`), prefix)
	if err != nil {
		t.Fatal(err)
	}
	want := `apiVersion: numalane.io/v1alpha1
kind: PoolConfiguration
pools:
- resource: intel.com/net
  excludeTopology: true
  health:
    link: false
  additionalInfo:
    "*":
      a: "yes"
      b: "line\nline"
  selectors:
  - vendors: ["8086"]
    devices: ["154c", "1889"]
    pciAddresses: ["0000:3b:02.0"]
    pfNames: ["ens1f0#0-3,5"]
    vhostNet: true
- resource: example.com/fpga
  deviceType: accelerator
  selectors:
  - {}
  - drivers: [vfio-pci]
`
	if d := cmp.Diff(want, string(converted(t, resolvedSchema(t), c))); d != "" {
		t.Errorf("YAML (-want +got):\n%s", d)
	}
}

func TestConvertNothing(t *testing.T) {
	got := string(converted(t, resolvedSchema(t), &config.Config{}))
	if want := "apiVersion: numalane.io/v1alpha1\nkind: PoolConfiguration\npools: []\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// The example says what holds without it.
func TestDefaultsAreTheDefaults(t *testing.T) {
	validate(t, resolvedSchema(t), v1alpha1.Defaults)
	got, err := config.Parse(v1alpha1.Defaults, prefix)
	if err != nil {
		t.Fatal(err)
	}
	want, err := config.Parse([]byte(`{"apiVersion": "numalane.io/v1alpha1", "kind": "PoolConfiguration",
		"pools": [{"resource": "example.com/sriov", "selectors": [{"vendors": ["8086"], "devices": ["154c", "1889"]}]}]}`), prefix)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want.Pools, got.Pools); d != "" {
		t.Errorf("pools (-without +with the defaults said):\n%s", d)
	}
	// What it only mentions is valid as well, but for what is of another device type.
	mention := regexp.MustCompile(`^( +)# (\w+: .*)$`)
	lines := strings.Split(string(v1alpha1.Defaults), "\n")
	mentioned := 0
	for i, line := range lines {
		if !mention.MatchString(line) {
			continue
		}
		mentioned++
		with := slices.Clone(lines)
		with[i] = mention.ReplaceAllString(line, "$1$2")
		text := strings.Join(with, "\n")
		if strings.Contains(line, "auxTypes") {
			text = strings.Replace(text, "deviceType: netDevice", "deviceType: auxNetDevice", 1)
		}
		c, err := config.Parse([]byte(text), prefix)
		if err != nil {
			t.Errorf("with %q: %v", with[i], err)
		} else if cmp.Equal(c.Pools, got.Pools) {
			t.Errorf("%q changes nothing", with[i])
		}
	}
	if mentioned < 10 {
		t.Errorf("%d keys are mentioned, want at least 10", mentioned)
	}
}
