package topology_test

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/numalane/numalane/internal/sysfstest"
	"github.com/numalane/numalane/pkg/topology"
)

var update = flag.Bool("update", false, "write golden files")

// unpack makes a captured machine below a temporary folder and returns the
// folder that holds its sys.
func unpack(t *testing.T, archive string) string {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata/machines", archive))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	root, err := sysfstest.Unpack(f, t.TempDir())
	if err != nil {
		t.Fatalf("%s: %v", archive, err)
	}
	return root
}

// TestMachines reads every captured machine and compares it with hwloc's
// account beside it, on all that both tell.
func TestMachines(t *testing.T) {
	tests := []struct {
		archive, account string
		// hidden are NUMA nodes that hwloc leaves out of this account.
		hidden []int
		// elsewhere says that hwloc was told where the PCI buses are (env in
		// the .test file), against the -1 that the devices say.
		elsewhere bool
		problems  []string
	}{
		{archive: "128arm-2pa2n8cluster4co", account: "128arm-2pa2n8cluster4co.console", problems: []string{noBus}},
		{archive: "16em64t-4s2c2t-offlines", account: "16em64t-4s2c2t-offlines.console", problems: []string{noBus}},
		{archive: "16em64t-4s2c2t-offlines", account: "16em64t-4s2c2t-offlines-xml.xml", problems: []string{noBus}},
		// The NIC says no NUMA node; on this machine of one node hwloc puts
		// its bus beside the package that local_cpus names.
		{archive: "2pa-pcidomain32bits", account: "2pa-pcidomain32bits.console"},
		{archive: "32em64t-2n8c+dax+nvme+mic+dimms", account: "32em64t-2n8c+dax+nvme+mic+dimms.xml"},
		{archive: "40intel64-2g2n4c+pcilocality", account: "40intel64-2g2n4c+pcilocality.xml", elsewhere: true},
		{archive: "48amd64-4pa2n6c-sparse", account: "48amd64-4pa2n6c-sparse.console", problems: []string{noBus}},
		{archive: "64amd64-4s2n4ca2co", account: "64amd64-4s2n4ca2co.console", problems: []string{noBus}},
		// Eight nodes list all CPUs each. hwloc merges them into the first, and
		// so do we, with a problem for each other one.
		{archive: "8em64t-2s2ca2c-buggynuma", account: "8em64t-2s2ca2c-buggynuma.console", hidden: []int{1, 2, 3, 4, 5, 6, 7}, problems: []string{
			"node1/cpulist: the CPUs 0-7", "node2/cpulist: the CPUs 0-7", "node3/cpulist: the CPUs 0-7", "node4/cpulist: the CPUs 0-7",
			"node5/cpulist: the CPUs 0-7", "node6/cpulist: the CPUs 0-7", "node7/cpulist: the CPUs 0-7", noBus,
		}},
		{archive: "nvidiagpunumanodes", account: "nvidiagpunumanodes-kept.console"},
		// By default hwloc hides the memory of GPUs.
		{archive: "nvidiagpunumanodes", account: "nvidiagpunumanodes.console", hidden: []int{250, 251, 252, 253, 254, 255}},
	}
	for _, tt := range tests {
		t.Run(tt.account, func(t *testing.T) {
			t.Parallel()
			host, err := topology.Read(unpack(t, tt.archive+".tar.bz2"))
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata/machines", tt.account)
			var want *hwloc
			if strings.HasSuffix(file, ".xml") {
				want = parseXML(t, file)
			} else {
				want = parseConsole(t, file)
			}
			compareNodes(t, host, want, tt.hidden)
			compareCPUs(t, host, want)
			compareNICs(t, host, want, tt.elsewhere)
			checkProblems(t, host, tt.problems...)
			for _, d := range host.Devices {
				if d.Problem != "" {
					t.Errorf("%s: %s", d.Address, d.Problem)
				}
			}
		})
	}
}

const noBus = "bus/pci/devices: no PCI bus"

// checkProblems compares problems with what each is to begin with, by the end
// of its path.
func checkProblems(t *testing.T, h *topology.Host, want ...string) {
	t.Helper()
	for i := range max(len(want), len(h.Problems)) {
		switch {
		case i >= len(want):
			t.Errorf("problem %s: %s", h.Problems[i].Path, h.Problems[i].Text)
		case i >= len(h.Problems):
			t.Errorf("no problem %q", want[i])
		default:
			path, text, _ := strings.Cut(want[i], ": ")
			if p := h.Problems[i]; !strings.HasSuffix(p.Path, path) || !strings.HasPrefix(p.Text, text) {
				t.Errorf("problem %s: %s, want %q", p.Path, p.Text, want[i])
			}
		}
	}
}

func compareNodes(t *testing.T, host *topology.Host, want *hwloc, hidden []int) {
	t.Helper()
	memory, distances := map[int]string{}, map[[2]int]int{}
	for _, n := range host.NUMANodes {
		if slices.Contains(hidden, n.ID) {
			if !n.CPUs.IsEmpty() {
				t.Errorf("NUMA node %d, which hwloc leaves out, has the CPUs %s", n.ID, n.CPUs)
			}
			continue
		}
		memory[n.ID] = hwlocSize(n.Memory)
		for to, d := range n.Distances {
			if !slices.Contains(hidden, to) {
				distances[[2]int{n.ID, to}] = d
			}
		}
	}
	if diff := cmp.Diff(want.memory, memory); diff != "" {
		t.Errorf("memory of NUMA nodes (-hwloc +ours):\n%s", diff)
	}
	if len(want.memory) == 1 {
		return // hwloc tells no distances of one node
	}
	if diff := cmp.Diff(want.distances, distances); diff != "" {
		t.Errorf("distances (-hwloc +ours):\n%s", diff)
	}
}

func compareCPUs(t *testing.T, host *topology.Host, want *hwloc) {
	t.Helper()
	packages, cores := map[int]int{}, map[int][]int{}
	var offline []int
	for _, c := range host.CPUs {
		if !c.Online {
			offline = append(offline, c.ID)
			continue
		}
		packages[c.ID] = c.Socket
		cores[c.Core] = append(cores[c.Core], c.ID)
		if !slices.Contains(want.nodesOf[c.ID], c.NUMANode) {
			t.Errorf("CPU %d is on NUMA node %d; hwloc: %v", c.ID, c.NUMANode, want.nodesOf[c.ID])
		}
		if c.Core != c.Threads.List()[0] {
			t.Errorf("CPU %d: core %d with the threads %s", c.ID, c.Core, c.Threads)
		}
	}
	if diff := cmp.Diff(want.packageOf, packages); diff != "" {
		t.Errorf("packages of online CPUs (-hwloc +ours):\n%s", diff)
	}
	wantCores := map[int][]int{}
	for _, c := range want.cores {
		wantCores[c[0]] = c
	}
	if diff := cmp.Diff(wantCores, cores); diff != "" {
		t.Errorf("cores (-hwloc +ours):\n%s", diff)
	}
	if diff := cmp.Diff(want.absent, offline, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("offline CPUs (-hwloc +ours):\n%s", diff)
	}
}

func compareNICs(t *testing.T, host *topology.Host, want *hwloc, elsewhere bool) {
	t.Helper()
	got := map[string]hwlocNIC{}
	for _, d := range host.Devices {
		n := hwlocNIC{ID: d.Vendor + ":" + d.Product, Class: d.Class[:4], cpus: want.nics[d.Address.String()].cpus}
		for _, r := range d.RDMA {
			n.RDMA = append(n.RDMA, r.Name)
		}
		for _, dev := range d.Netdevs {
			n.Netdevs = append(n.Netdevs, dev.Name)
		}
		got[d.Address.String()] = n
		if d.NUMANode == topology.NoNUMANode {
			continue
		}
		if elsewhere {
			t.Errorf("%s: NUMA node %d, where the note above has it say none", d.Address, d.NUMANode)
		}
		for _, node := range host.NUMANodes {
			if node.ID == d.NUMANode && !slices.Equal(node.CPUs.List(), n.cpus) {
				t.Errorf("%s: NUMA node %d has the CPUs %s; hwloc sees it beside %v", d.Address, d.NUMANode, node.CPUs, n.cpus)
			}
		}
	}
	if diff := cmp.Diff(want.nics, got, cmp.AllowUnexported(hwlocNIC{})); diff != "" {
		t.Errorf("network devices (-hwloc +ours):\n%s", diff)
	}
}

// TestMachinesFabric holds what the two captured machines with InfiniBand tell
// of it, and where their ports sit.
func TestMachinesFabric(t *testing.T) {
	tests := []struct {
		archive  string
		ethernet []string
		fabric   string // of class 02
		hidden   string // of class 0c06, a bus controller: no network device
	}{
		{"32em64t-2n8c+dax+nvme+mic+dimms", []string{"0000:02:00.0", "0000:02:00.3"}, "0000:82:00.0", ""},
		{"40intel64-2g2n4c+pcilocality", []string{"0000:02:00.0", "0000:02:00.1", "0000:03:00.0", "0000:03:00.1"}, "", "0000:43:00.0"},
	}
	for _, tt := range tests {
		t.Run(tt.archive, func(t *testing.T) {
			t.Parallel()
			h := read(t, unpack(t, tt.archive+".tar.bz2"))
			for _, a := range tt.ethernet {
				if d := device(t, h, a); len(d.Netdevs) != 1 || d.Netdevs[0].Type != "ether" || len(d.Upstream) != 1 || len(d.RDMA) > 0 {
					t.Errorf("%s: %+v below %v", a, d.Netdevs, d.Upstream)
				}
			}
			if tt.hidden != "" {
				if d, ok := h.Device(address(t, tt.hidden)); ok {
					t.Errorf("%s is a device, of class %s", tt.hidden, d.Class)
				}
			}
			if tt.fabric == "" {
				return
			}
			got := device(t, h, tt.fabric)
			want := got
			want.Upstream = []topology.Address{address(t, "0000:80:02.2")}
			want.RDMA = []topology.RDMADevice{{Name: "mlx4_0", CharDevices: []string{"issm0", "umad0", "uverbs0"}, PKey: "0xffff"}}
			want.Netdevs = []topology.Netdev{{Name: "ib0", Type: "infiniband", Up: true}}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestCaptures holds the whole account of the two guests with SR-IOV.
func TestCaptures(t *testing.T) {
	for _, name := range []string{"igb-2n-novfs", "igb-2n-4vfs"} {
		t.Run(name, func(t *testing.T) {
			root := unpack(t, name+".tar.gz")
			host, err := topology.Read(root)
			if err != nil {
				t.Fatal(err)
			}
			fromSys, err := topology.Read(filepath.Join(root, "sys"))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(host, fromSys); diff != "" {
				t.Errorf("the sysfs itself reads differently:\n%s", diff)
			}
			got, err := json.MarshalIndent(host, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, '\n')
			golden := filepath.Join("testdata", name+".golden.json")
			if *update {
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("(-golden +got):\n%s", diff)
			}
		})
	}
}
