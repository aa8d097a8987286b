package topology_test

import (
	"encoding/xml"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// hwloc is what hwloc tells of a machine, in its own terms.
type hwloc struct {
	memory    map[int]string // NUMA node to its memory, in the words of hwloc's console
	nodesOf   map[int][]int  // CPU to the NUMA nodes beside it
	packageOf map[int]int    // CPU to the P# of its package
	cores     [][]int        // the CPUs of each core
	absent    []int          // CPUs that are there and not in the topology
	nics      map[string]hwlocNIC
	distances map[[2]int]int
}

type hwlocNIC struct {
	ID, Class     string
	Netdevs, RDMA []string
	cpus          []int // of the object that its bus hangs below
}

// object is a node of hwloc's tree.
type object struct {
	kind     string
	os       int
	attrs    map[string]string
	name     string
	children []*object
}

func (o *object) isIO() bool {
	return slices.Contains([]string{"HostBridge", "PCIBridge", "Bridge", "PCI", "PCIDev", "OSDev"}, o.kind)
}

// pus are the CPUs below an object.
func (o *object) pus() []int {
	if o.kind == "PU" {
		return []int{o.os}
	}
	var all []int
	for _, c := range o.children {
		all = append(all, c.pus()...)
	}
	slices.Sort(all)
	return all
}

// account reads the tree. NUMA nodes hang beside the CPUs they are local to.
func account(root *object) *hwloc {
	h := &hwloc{
		memory: map[int]string{}, nodesOf: map[int][]int{}, packageOf: map[int]int{},
		nics: map[string]hwlocNIC{}, distances: map[[2]int]int{},
	}
	h.walk(root, root)
	return h
}

func (h *hwloc) walk(o, near *object) {
	if !o.isIO() {
		near = o
	}
	switch o.kind {
	case "Package":
		for _, cpu := range o.pus() {
			h.packageOf[cpu] = o.os
		}
	case "Core":
		h.cores = append(h.cores, o.pus())
	case "PCI", "PCIDev":
		if strings.HasPrefix(o.attrs["class"], "02") {
			n := hwlocNIC{ID: o.attrs["id"], Class: o.attrs["class"], cpus: near.pus()}
			for _, dev := range o.children {
				switch {
				case dev.kind == "OSDev" && dev.attrs["type"] == "Network":
					n.Netdevs = append(n.Netdevs, dev.name)
				case dev.kind == "OSDev" && dev.attrs["type"] == "OpenFabrics":
					n.RDMA = append(n.RDMA, dev.name)
				}
			}
			h.nics[o.attrs["busid"]] = n
		}
	}
	for _, c := range o.children {
		if c.kind == "NUMANode" {
			h.memory[c.os] = c.attrs["local"]
			for _, cpu := range o.pus() {
				h.nodesOf[cpu] = append(h.nodesOf[cpu], c.os)
			}
		}
		h.walk(c, near)
	}
}

var (
	consoleObject  = regexp.MustCompile(`^( *)([A-Za-z0-9]+)(?:\[([^\]]*)\])?(?:\([^)]*\))?(?: L#(\d+))?(?: \((.*)\))?(?: "(.*)")?$`)
	consoleOS      = regexp.MustCompile(`^P#(\d+)\b`)
	consoleAttr    = regexp.MustCompile(`\b(local|busid|id|class)=([^ ()]+)`)
	consoleMissing = regexp.MustCompile(`^\d+ processors not represented in topology: (\S+)`)
)

// parseConsole reads the output of lstopo -v.
func parseConsole(t *testing.T, file string) *hwloc {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(b), "\n")
	var path []*object
	var logical []int // L# of a NUMA node to its P#
	i := 0
	for ; i < len(lines) && !strings.HasPrefix(lines[i], "depth 0:"); i++ {
		m := consoleObject.FindStringSubmatch(lines[i])
		if m == nil {
			t.Fatalf("%s:%d: not understood: %s", file, i+1, lines[i])
		}
		o := &object{kind: m[2], os: -1, name: m[6], attrs: map[string]string{"type": m[3]}}
		if p := consoleOS.FindStringSubmatch(m[5]); p != nil {
			o.os, _ = strconv.Atoi(p[1])
		}
		for _, a := range consoleAttr.FindAllStringSubmatch(m[5], -1) {
			o.attrs[a[1]] = a[2]
		}
		depth := len(m[1]) / 2
		path = append(path[:depth], o)
		if depth > 0 {
			path[depth-1].children = append(path[depth-1].children, o)
		}
		if o.kind == "NUMANode" {
			logical = append(logical, o.os)
		}
	}
	h := account(path[0])
	for ; i < len(lines); i++ {
		if m := consoleMissing.FindStringSubmatch(lines[i]); m != nil {
			h.absent = hwlocSet(t, m[1])
		}
		if strings.HasPrefix(lines[i], " index ") {
			cols := fields(t, lines[i][len(" index"):])
			for j := range cols {
				row := fields(t, lines[i+1+j])
				for k, d := range row[1:] {
					h.distances[[2]int{logical[row[0]], logical[cols[k]]}] = d
				}
			}
		}
	}
	return h
}

type xmlObject struct {
	Type     string      `xml:"type,attr"`
	OS       string      `xml:"os_index,attr"`
	Name     string      `xml:"name,attr"`
	Memory   string      `xml:"local_memory,attr"`
	BusID    string      `xml:"pci_busid,attr"`
	PCI      string      `xml:"pci_type,attr"`
	DevType  int         `xml:"osdev_type,attr"`
	CPUs     string      `xml:"cpuset,attr"`
	Complete string      `xml:"complete_cpuset,attr"`
	Children []xmlObject `xml:"object"`
}

// parseXML reads the output of lstopo with an XML file name.
func parseXML(t *testing.T, file string) *hwloc {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Machine   xmlObject `xml:"object"`
		Distances []struct {
			Type    string   `xml:"type,attr"`
			Indexes []string `xml:"indexes"`
			Values  []string `xml:"u64values"`
		} `xml:"distances2"`
	}
	if err := xml.Unmarshal(b, &doc); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	h := account(doc.Machine.object(t))
	h.absent = slices.DeleteFunc(hwlocSet(t, doc.Machine.Complete), func(cpu int) bool {
		return slices.Contains(hwlocSet(t, doc.Machine.CPUs), cpu)
	})
	for _, d := range doc.Distances {
		ids, values := fields(t, strings.Join(d.Indexes, " ")), fields(t, strings.Join(d.Values, " "))
		for i, v := range values {
			h.distances[[2]int{ids[i/len(ids)], ids[i%len(ids)]}] = v
		}
	}
	return h
}

func (x xmlObject) object(t *testing.T) *object {
	o := &object{kind: x.Type, os: -1, name: x.Name, attrs: map[string]string{}}
	if n, err := strconv.Atoi(x.OS); err == nil {
		o.os = n
	}
	if x.Memory != "" {
		n, err := strconv.ParseUint(x.Memory, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		o.attrs["local"] = hwlocSize(n)
	}
	if x.PCI != "" { // "0200 [8086:1521] [1028:0000] 01 00"
		o.attrs["busid"], o.attrs["class"], o.attrs["id"] = x.BusID, x.PCI[:4], x.PCI[6:15]
	}
	// Bits of hwloc_obj_osdev_type_e.
	o.attrs["type"] = map[int]string{1 << 4: "Network", 1<<4 | 1<<5: "OpenFabrics"}[x.DevType]
	for _, c := range x.Children {
		o.children = append(o.children, c.object(t))
	}
	return o
}

// hwlocSet reads "0x000000ff,0xffffffff", where a word may be empty for 0.
func hwlocSet(t *testing.T, s string) []int {
	t.Helper()
	var ids []int
	words := strings.Split(s, ",")
	slices.Reverse(words)
	for i, w := range words {
		if w == "" {
			continue
		}
		bits, err := strconv.ParseUint(strings.TrimPrefix(w, "0x"), 16, 32)
		if err != nil {
			t.Fatalf("hwloc's set %q: %v", s, err)
		}
		for b := range 32 {
			if bits>>b&1 == 1 {
				ids = append(ids, 32*i+b)
			}
		}
	}
	return ids
}

// hwlocSize rounds bytes as hwloc's console does.
func hwlocSize(n uint64) string {
	switch {
	case n < 10<<20:
		return fmt.Sprintf("%dKiB", (n>>9+1)>>1)
	case n < 10<<30:
		return fmt.Sprintf("%dMiB", (n>>19+1)>>1)
	case n < 10<<40:
		return fmt.Sprintf("%dGiB", (n>>29+1)>>1)
	}
	return fmt.Sprintf("%dTiB", (n>>39+1)>>1)
}

func fields(t *testing.T, s string) []int {
	t.Helper()
	var all []int
	for _, f := range strings.Fields(s) {
		n, err := strconv.Atoi(f)
		if err != nil {
			t.Fatalf("%q: %v", s, err)
		}
		all = append(all, n)
	}
	return all
}
