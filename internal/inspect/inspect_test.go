package inspect_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/numalane/numalane/internal/config"
	"github.com/numalane/numalane/internal/inspect"
	"github.com/numalane/numalane/pkg/topology"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func address(t *testing.T, s string) topology.Address {
	t.Helper()
	a, err := topology.ParseAddress(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

const gib = 1 << 30

// server has two sockets of one NUMA node each with a sparse id, a node that
// has memory only, an offline CPU, and NICs of many kinds.
func server(t *testing.T) *topology.Host {
	h := &topology.Host{
		NUMANodes: []topology.NUMANode{
			{
				ID: 0, CPUs: topology.NewCPUSet(0, 1, 4, 5), Distances: map[int]int{0: 10, 2: 21, 8: 24}, Memory: 64 * gib,
				Hugepages: []topology.Hugepages{{Size: 2 << 20, Total: 1024, Free: 512}, {Size: gib, Total: 8, Free: 8}},
			},
			{ID: 2, CPUs: topology.NewCPUSet(2, 3, 6), Distances: map[int]int{0: 21, 2: 10, 8: 31}, Memory: 64*gib - 700<<20},
			{ID: 8, Distances: map[int]int{0: 24, 2: 31, 8: 10}, Memory: 2048 * gib},
		},
		Problems: []topology.Problem{{Path: "devices/system/node/node8/hugepages", Text: "permission denied"}},
	}
	for id, node := range []int{0, 0, 2, 2, 0, 0, 2} {
		core := id % 4
		threads := topology.NewCPUSet(core, core+4)
		if core == 3 {
			threads = topology.NewCPUSet(3)
		}
		h.CPUs = append(h.CPUs, topology.CPU{ID: id, Online: true, NUMANode: node, Socket: node / 2, Core: core, Threads: threads})
	}
	h.CPUs = append(h.CPUs, topology.CPU{ID: 7, NUMANode: 2, Socket: -1, Core: -1, CacheID: -1})

	x710, cx5, gone := address(t, "0000:3b:00.0"), address(t, "10000:01:00.1"), address(t, "0000:d8:00.0")
	vf := func(addr string, index int, d topology.Device) topology.Device {
		d.Address = address(t, addr)
		d.Class = "020000"
		d.VF.Index = index
		return d
	}
	iavf := func() topology.Device {
		return topology.Device{
			Vendor: "8086", Product: "154c", Driver: "iavf", NUMANode: 0,
			VF: &topology.VirtualFunction{PF: x710, PFName: "ens1f0"},
		}
	}
	h.Devices = []topology.Device{
		{
			Address: address(t, "0000:00:06.0"), Class: "020000", Vendor: "1d0f", Product: "ec20", Driver: "ena", NUMANode: topology.NoNUMANode,
			Netdevs: []topology.Netdev{{Name: "eth0", Up: true}},
		},
		{
			Address: x710, Class: "020000", Vendor: "8086", Product: "1572", ProductName: "Ethernet Controller X710 for 10GbE SFP+", Driver: "i40e",
			Netdevs: []topology.Netdev{{Name: "ens1f0", Up: true, Speed: 10000}},
			PF:      &topology.PhysicalFunction{TotalVFs: 64, NumVFs: 4, VFs: []topology.Address{address(t, "0000:3b:02.0")}},
		},
		vf("0000:3b:02.0", 0, iavf()),
		vf("0000:3b:02.1", 1, iavf()),
		vf("0000:3b:02.2", 2, iavf()),
		vf("0000:3b:02.3", 3, iavf()),
		{
			Address: address(t, "0000:5e:00.0"), Class: "020000", Vendor: "8086", Product: "1521", Driver: "igb", NUMANode: 2,
			Netdevs: []topology.Netdev{{Name: "eno1", Up: true, Speed: 100}, {Name: "eno1d1"}},
			PF:      &topology.PhysicalFunction{TotalVFs: 7},
		},
		vf("0000:d8:01.0", 3, topology.Device{
			Vendor: "15b3", Product: "1018", Driver: "vfio-pci", NUMANode: 2,
			VF: &topology.VirtualFunction{PF: gone}, Problem: "physfn: 0000:d8:00.0 is not there",
		}),
		{
			Address: cx5, Class: "020000", Vendor: "15b3", Product: "1017", NUMANode: 2,
			PF: &topology.PhysicalFunction{TotalVFs: 16, NumVFs: 2},
		},
		vf("10000:01:01.0", 0, topology.Device{
			Vendor: "15b3", Product: "1018", Driver: "mlx5_core", NUMANode: 2, VF: &topology.VirtualFunction{PF: cx5},
			Netdevs: []topology.Netdev{{Name: "ens9v0", Up: true, Speed: 2500}},
		}),
		vf("10000:01:01.1", 1, topology.Device{Vendor: "15b3", Product: "1018", NUMANode: topology.NoNUMANode, VF: &topology.VirtualFunction{PF: cx5}}),
	}
	h.Devices[3].Driver = "vfio-pci"
	h.Devices[4].Problem = "numa_node: input/output error"
	return h
}

// report is a host with the pools of a configuration, as the plugin makes it.
func report(t *testing.T, h *topology.Host, text string) inspect.Report {
	t.Helper()
	if text == "" {
		return inspect.Report{Host: h, Rejections: (&config.Config{}).Assign(h).Rejections}
	}
	c, err := config.Parse([]byte(text), "intel.com")
	if err != nil {
		t.Fatal(err)
	}
	a := c.Assign(h)
	return inspect.Report{Host: h, ConfigFile: "/etc/numalane/config.json", Pools: a.Pools, Rejections: a.Rejections}
}

const pools = `{"resourceList": [
	{"resourceName": "x710", "selectors": {"vendors": ["8086"], "devices": ["154c"], "drivers": ["iavf"]}},
	{"resourceName": "mellanox", "selectors": {"vendors": ["15b3"]}},
	{"resourceName": "flat", "excludeTopology": true, "selectors": {"drivers": ["vfio-pci"]}},
	{"resourceName": "cloud", "resourcePrefix": "amazonaws.com", "selectors": {"drivers": ["ena"]}},
	{"resourceName": "unused", "selectors": {"vendors": ["14e4"]}}
]}`

func TestWrite(t *testing.T) {
	bare := &topology.Host{
		NUMANodes: []topology.NUMANode{{ID: 0, CPUs: topology.NewCPUSet(0), Memory: 512 << 20}},
		CPUs:      []topology.CPU{{ID: 0, Online: true, Threads: topology.NewCPUSet(0)}},
	}
	plain := &topology.Host{Devices: []topology.Device{{
		Address: address(t, "0000:00:03.0"), Class: "020000", Vendor: "1af4", Product: "1000", NUMANode: topology.NoNUMANode,
	}}}
	port := address(t, "0000:b0:00.0")
	others := &topology.Host{
		Devices: []topology.Device{
			{
				Address: port, Class: "120001", Vendor: "8086", Product: "0d5c", Driver: "igb_uio", UIO: "uio0",
				PF: &topology.PhysicalFunction{TotalVFs: 16, NumVFs: 1, VFs: []topology.Address{address(t, "0000:b0:02.0")}},
			},
			{
				Address: address(t, "0000:b0:02.0"), Class: "120001", Vendor: "8086", Product: "0d5d", Driver: "vfio-pci",
				VF: &topology.VirtualFunction{PF: port},
			},
		},
		Subfunctions: []topology.Device{{
			Class: "020000", Aux: &topology.AuxiliaryDevice{Name: "mlx5_core.sf.4", Type: "sf", SFNum: -1}, Problem: `sfnum: "" is not a number`,
		}},
	}
	tests := []struct {
		golden, format string
		report         inspect.Report
	}{
		{"accelerator-without-config.table", "table", report(t, others, "")},
		{"server.table", "table", report(t, server(t), pools)},
		{"server.json", "json", report(t, server(t), pools)},
		{"server.yaml", "yaml", report(t, server(t), pools)},
		{"server-without-config.table", "table", report(t, server(t), "")},
		{"bare-without-config.table", "table", report(t, bare, "")},
		{"bare-without-config.json", "json", report(t, bare, "")},
		{"nic-without-config.table", "table", report(t, plain, "")},
		{"more.table", "table", report(t, withMore(t), pools)},
		{"empty-config.table", "table", report(t, bare, `{"resourceList": []}`)},
	}
	for _, test := range tests {
		t.Run(test.golden, func(t *testing.T) {
			golden(t, test.golden, func(b *bytes.Buffer) error { return inspect.Write(b, test.format, test.report) })
		})
	}
}

// golden holds what is written against a file.
func golden(t *testing.T, name string, write func(*bytes.Buffer) error) {
	t.Helper()
	var b bytes.Buffer
	if err := write(&b); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), b.String()); d != "" {
		t.Errorf("%s (-want +got), go test -update rewrites it:\n%s", name, d)
	}
	for i, line := range strings.Split(b.String(), "\n") {
		if strings.TrimRight(line, " ") != line {
			t.Errorf("%s: line %d ends in spaces: %q", name, i+1, line)
		}
	}
}

// JSON and YAML carry the host whole.
func TestWriteLosesNothing(t *testing.T) {
	for format, unmarshal := range map[string]func([]byte, any) error{
		"json": json.Unmarshal,
		"yaml": func(b []byte, v any) error { return yaml.UnmarshalStrict(b, v) },
	} {
		r := report(t, server(t), pools)
		var b bytes.Buffer
		if err := inspect.Write(&b, format, r); err != nil {
			t.Fatal(err)
		}
		var got struct {
			Host       *topology.Host     `json:"host"`
			ConfigFile string             `json:"configFile"`
			Pools      []map[string]any   `json:"pools"`
			Rejections []config.Rejection `json:"rejections"`
		}
		if err := unmarshal(b.Bytes(), &got); err != nil {
			t.Fatalf("%s: %v", format, err)
		}
		if d := cmp.Diff(r.Host, got.Host); d != "" {
			t.Errorf("%s: host (-want +got):\n%s", format, d)
		}
		if d := cmp.Diff(r.Rejections, got.Rejections); d != "" {
			t.Errorf("%s: rejections (-want +got):\n%s", format, d)
		}
		if len(got.Pools) != len(r.Pools) || got.ConfigFile != r.ConfigFile {
			t.Errorf("%s: %d pools of %q, want %d of %q", format, len(got.Pools), got.ConfigFile, len(r.Pools), r.ConfigFile)
		}
	}
}

// The example that is printed for want of a configuration is one.
func TestExampleConfigIsOne(t *testing.T) {
	h := server(t)
	var b bytes.Buffer
	if err := inspect.Write(&b, "table", report(t, h, "")); err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(b.String(), "for example ")
	if !ok {
		t.Fatalf("no example in:\n%s", &b)
	}
	example, _, _ := strings.Cut(rest, "\n")
	c, err := config.Parse([]byte(example), "intel.com")
	if err != nil {
		t.Fatalf("%s: %v", example, err)
	}
	if a := c.Assign(h); len(a.Pools) != 1 || len(a.Pools[0].Devices) == 0 {
		t.Errorf("%s: selects nothing of the machine it was made for", example)
	}
}

// withMore has an uplink, an accelerator and a subfunction besides.
func withMore(t *testing.T) *topology.Host {
	h := server(t)
	h.Devices[0].Uplink = "IPv4 default route by eth0"
	h.Devices = append(h.Devices, topology.Device{
		Address: address(t, "10000:02:00.0"), Class: "120000", Vendor: "8086", Product: "0d5c", Driver: "vfio-pci", NUMANode: 2,
	})
	h.Subfunctions = []topology.Device{{
		Address: address(t, "10000:01:00.1"), Class: "020000", Vendor: "15b3", Product: "1017", NUMANode: 2,
		Aux: &topology.AuxiliaryDevice{Name: "mlx5_core.sf.4", Type: "sf", SFNum: 88},
	}}
	return h
}

func explanations(t *testing.T, names ...string) []config.Explanation {
	t.Helper()
	c, err := config.Parse([]byte(pools), "intel.com")
	if err != nil {
		t.Fatal(err)
	}
	es := c.Explain(withMore(t))
	if len(names) == 0 {
		return es
	}
	if es, err = inspect.Select(es, names); err != nil {
		t.Fatal(err)
	}
	return es
}

func TestWriteExplanations(t *testing.T) {
	some := []string{"0000:3B:02.1", "eth0", "mlx5_core.sf.4", "ens1f0", "0000:d8:01.0"}
	golden(t, "explained.table", func(b *bytes.Buffer) error { return inspect.WriteExplanations(b, "table", explanations(t, some...)) })
	golden(t, "explained.json", func(b *bytes.Buffer) error {
		return inspect.WriteExplanations(b, "json", explanations(t, "0000:3b:02.1", "eth0"))
	})
	golden(t, "explained-all.table", func(b *bytes.Buffer) error { return inspect.WriteExplanations(b, "table", explanations(t)) })
	golden(t, "explained-without-config.table", func(b *bytes.Buffer) error {
		return inspect.WriteExplanations(b, "table", (&config.Config{}).Explain(withMore(t))[:1])
	})
}

func TestSelectErrors(t *testing.T) {
	for _, name := range []string{"0000:ff:00.0", "eth7", "mlx5_core.sf.5", ""} {
		if es, err := inspect.Select(explanations(t), []string{"eth0", name}); err == nil || !strings.Contains(err.Error(), "no device is called") {
			t.Errorf("%q: %d explanations, error %v, want one that says what is wanted", name, len(es), err)
		}
	}
}

type brokenWriter struct{}

var errBroken = errors.New("broken pipe")

func (brokenWriter) Write([]byte) (int, error) { return 0, errBroken }

func TestWriteErrors(t *testing.T) {
	r := report(t, server(t), pools)
	if err := inspect.Write(&bytes.Buffer{}, "xml", r); err == nil || !strings.Contains(err.Error(), "table, json or yaml") {
		t.Errorf("format xml: %v, want an error that names the formats", err)
	}
	for _, format := range []string{"table", "json", "yaml"} {
		if err := inspect.Write(brokenWriter{}, format, r); !errors.Is(err, errBroken) {
			t.Errorf("%s to a broken pipe: %v, want its error", format, err)
		}
	}
}
