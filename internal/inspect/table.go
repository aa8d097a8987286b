package inspect

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/numalane/numalane/internal/config"
	"github.com/numalane/numalane/pkg/topology"
)

// none stands for a cell that has nothing to tell.
const none = "-"

func writeTables(b *bytes.Buffer, r Report) {
	writeSummary(b, r.Host)
	writeNUMANodes(b, r.Host)
	writePFs(b, r.Host)
	writePools(b, r)
	writeDevices(b, r)
	writeProblems(b, r.Host)
}

// section is a heading and an aligned table below it.
func section(b *bytes.Buffer, title string, rows [][]string) {
	fmt.Fprintf(b, "\n%s\n", title)
	t := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(t, "  "+strings.Join(row, "\t"))
	}
	t.Flush() // to memory: it cannot fail
}

func writeSummary(b *bytes.Buffer, h *topology.Host) {
	sockets, cores := map[int]bool{}, map[int]bool{}
	online, offline := 0, 0
	for i := range h.CPUs {
		c := &h.CPUs[i]
		if !c.Online {
			offline++
			continue
		}
		online++
		sockets[c.Socket], cores[c.Core] = true, true
	}
	pfs, nics, vfs, accelerators := 0, 0, 0, 0
	for i := range h.Devices {
		switch d := &h.Devices[i]; {
		case d.Accelerator():
			accelerators++
		case d.VF != nil:
			vfs++
		case d.PF != nil:
			pfs++
		default:
			nics++
		}
	}
	fmt.Fprintf(b, "%s, %s, %s, %s", count(len(sockets), "socket"), count(len(h.NUMANodes), "NUMA node"),
		count(len(cores), "core"), count(online, "CPU"))
	if offline > 0 {
		fmt.Fprintf(b, " (and %d offline)", offline)
	}
	fmt.Fprintf(b, "; %s, %s, %s", count(pfs, "PF"), count(vfs, "VF"), count(nics, "other NIC"))
	for _, c := range []struct {
		n    int
		what string
	}{{len(h.Subfunctions), "subfunction"}, {accelerators, "accelerator"}} {
		if c.n > 0 {
			fmt.Fprintf(b, ", %s", count(c.n, c.what))
		}
	}
	b.WriteByte('\n')
}

func writeNUMANodes(b *bytes.Buffer, h *topology.Host) {
	if len(h.NUMANodes) == 0 {
		section(b, "NUMA NODES", [][]string{{"none: this machine does not tell"}})
		return
	}
	cpus := map[int][]*topology.CPU{}
	for i := range h.CPUs {
		if c := &h.CPUs[i]; c.Online {
			cpus[c.NUMANode] = append(cpus[c.NUMANode], c)
		}
	}
	rows := [][]string{{"NODE", "SOCKET", "CORES", "CPUS", "CPU LIST", "MEMORY", "HUGEPAGES FREE/TOTAL", "DISTANCES"}}
	for _, n := range h.NUMANodes {
		sockets, cores := map[int]bool{}, map[int]bool{}
		for _, c := range cpus[n.ID] {
			sockets[c.Socket], cores[c.Core] = true, true
		}
		var pages, distances []string
		for _, p := range n.Hugepages {
			pages = append(pages, fmt.Sprintf("%s %d/%d", bytesText(p.Size), p.Free, p.Total))
		}
		for _, id := range slices.Sorted(maps.Keys(n.Distances)) {
			distances = append(distances, fmt.Sprintf("%d:%d", id, n.Distances[id]))
		}
		rows = append(rows, []string{
			strconv.Itoa(n.ID), numbers(sockets), strconv.Itoa(len(cores)), strconv.Itoa(n.CPUs.Size()), cmp.Or(n.CPUs.String(), none),
			bytesText(n.Memory), cell(pages, ", "), cell(distances, " "),
		})
	}
	section(b, "NUMA NODES", rows)
}

// writePFs lists PFs, NICs and accelerators. Their VFs are counted by driver: a machine may
// have a thousand, and the pools tell where each is.
func writePFs(b *bytes.Buffer, h *topology.Host) {
	drivers := map[topology.Address]map[string]int{}
	for i := range h.Devices {
		d := &h.Devices[i]
		if d.VF == nil {
			continue
		}
		if drivers[d.VF.PF] == nil {
			drivers[d.VF.PF] = map[string]int{}
		}
		drivers[d.VF.PF][cmp.Or(d.Driver, "without driver")]++
	}
	byNode := slices.Clone(h.Devices)
	slices.SortStableFunc(byNode, func(a, b topology.Device) int { return compareNUMA(a.NUMANode, b.NUMANode) })
	rows := [][]string{{"NUMA", "ADDRESS", "NAME", "DRIVER", "LINK", "VFS", "VF DRIVERS", "DEVICE"}}
	for i := range byNode {
		d := &byNode[i]
		if d.VF != nil {
			continue
		}
		var names, links, vfDrivers []string
		for _, n := range d.Netdevs {
			names = append(names, n.Name)
			links = append(links, link(n))
		}
		for _, driver := range slices.Sorted(maps.Keys(drivers[d.Address])) {
			vfDrivers = append(vfDrivers, fmt.Sprintf("%d %s", drivers[d.Address][driver], driver))
		}
		vfs := none
		if d.PF != nil {
			vfs = fmt.Sprintf("%d of %d", d.PF.NumVFs, d.PF.TotalVFs)
		}
		rows = append(rows, []string{
			numaText(d.NUMANode), d.Address.String(), cell(names, ","), cmp.Or(d.Driver, none), cell(links, ", "), vfs,
			cell(vfDrivers, ", "), strings.TrimSpace(d.Vendor + ":" + d.Product + " " + d.ProductName),
		})
	}
	if len(rows) == 1 {
		rows = [][]string{{"none: this machine has no PF and no other PCI network device"}}
	}
	title := "PFS AND OTHER NICS"
	if slices.ContainsFunc(h.Devices, func(d topology.Device) bool { return d.Accelerator() }) {
		title = "PFS, OTHER NICS AND ACCELERATORS"
	}
	section(b, title, rows)
}

func writePools(b *bytes.Buffer, r Report) {
	if r.ConfigFile == "" && len(r.Pools) == 0 {
		rows := [][]string{
			{"none: give a configuration with --config-file FILE, see numalane-plugin config print-defaults"},
		}
		if example, ok := exampleConfig(r.Host); ok {
			rows = append(rows, []string{"for example " + example})
		}
		section(b, "POOLS", rows)
		return
	}
	title := "POOLS"
	if r.ConfigFile != "" {
		title += " of " + r.ConfigFile
	}
	rows := [][]string{{"RESOURCE", "TOPOLOGY", "NUMA", "PF", "DEVICES", "WITH PROBLEMS"}}
	for _, p := range r.Pools {
		name, aligned := p.Pool.Resource, topologyText(p)
		if len(p.Devices) == 0 {
			rows = append(rows, []string{name, aligned, none, none, "0", "0"})
		}
		for _, g := range groups(p.Devices) {
			rows = append(rows, []string{name, aligned, numaText(g.numa), g.pf, strconv.Itoa(g.devices), strconv.Itoa(g.problems)})
			name, aligned = "", "" // told once a pool
		}
	}
	if len(rows) == 1 {
		rows = [][]string{{"none: the configuration lists no resource"}}
	}
	section(b, title, rows)
}

// topologyText tells whether the kubelet will hear where the pool's devices sit.
func topologyText(p config.AssignedPool) string {
	with := 0
	for _, d := range p.Devices {
		if d.NUMANode >= 0 {
			with++
		}
	}
	switch {
	case p.Pool.ExcludeTopology:
		return "no, excluded"
	case len(p.Devices) == 0:
		return none
	case with == 0:
		return "no"
	case with < len(p.Devices):
		// The kubelet never counts the others when it aligns.
		return fmt.Sprintf("%d of %d", with, len(p.Devices))
	default:
		return "yes"
	}
}

// group are the devices of a pool on one NUMA node and PF.
type group struct {
	numa              int
	pf                string
	devices, problems int
}

// groups are by NUMA node, and by the order of the devices within it.
func groups(devices []config.AssignedDevice) []group {
	var out []group
	for i := range devices {
		d := &devices[i].Device
		pf := pfText(d)
		g := slices.IndexFunc(out, func(g group) bool { return g.numa == d.NUMANode && g.pf == pf })
		if g < 0 {
			g = len(out)
			out = append(out, group{numa: d.NUMANode, pf: pf})
		}
		out[g].devices++
		if d.Problem != "" {
			out[g].problems++
		}
	}
	slices.SortStableFunc(out, func(a, b group) int { return compareNUMA(a.numa, b.numa) })
	return out
}

// pfText names a device's PF, or the device itself when it is no VF.
func pfText(d *topology.Device) string {
	name, address := "", d.Address
	if d.VF != nil {
		name, address = d.VF.PFName, d.VF.PF
	} else if len(d.Netdevs) > 0 {
		name = d.Netdevs[0].Name
	}
	return strings.TrimSpace(address.String() + " " + name)
}

func writeProblems(b *bytes.Buffer, h *topology.Host) {
	var rows [][]string
	for _, p := range h.Problems {
		rows = append(rows, []string{p.Path, p.Text})
	}
	for _, d := range devices(h) {
		if d.Problem != "" {
			rows = append(rows, []string{d.ID(), d.Problem})
		}
	}
	if len(rows) > 0 {
		section(b, "PROBLEMS", rows)
	}
}

// exampleConfig is a configuration that would make a pool of this machine's
// first kind of VF. A NIC is no example: it may be the node's only way out.
func exampleConfig(h *topology.Host) (string, bool) {
	i := slices.IndexFunc(h.Devices, func(d topology.Device) bool { return d.VF != nil && !d.Accelerator() })
	if i < 0 {
		return "", false
	}
	selectors := struct {
		Vendors []string `json:"vendors"`
		Devices []string `json:"devices"`
		Drivers []string `json:"drivers,omitempty"`
	}{Vendors: []string{h.Devices[i].Vendor}, Devices: []string{h.Devices[i].Product}}
	if driver := h.Devices[i].Driver; driver != "" {
		selectors.Drivers = []string{driver}
	}
	s, err := json.Marshal(selectors)
	return fmt.Sprintf(`{"resourceList":[{"resourceName":"sriov","selectors":%s}]}`, s), err == nil
}

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

func cell(parts []string, sep string) string { return cmp.Or(strings.Join(parts, sep), none) }

// compareNUMA puts the devices that do not say where they sit last.
func compareNUMA(a, b int) int { return cmp.Compare(uint(a), uint(b)) }

func numaText(n int) string {
	if n < 0 {
		return none
	}
	return strconv.Itoa(n)
}

func numbers(set map[int]bool) string {
	var parts []string
	for _, n := range slices.Sorted(maps.Keys(set)) {
		parts = append(parts, numaText(n))
	}
	return cell(parts, ",")
}

func link(n topology.Netdev) string {
	switch {
	case !n.Up:
		return "down"
	case n.Speed == 0:
		return "up"
	case n.Speed%1000 == 0:
		return fmt.Sprintf("up %d Gb/s", n.Speed/1000)
	case n.Speed > 1000:
		return fmt.Sprintf("up %.1f Gb/s", float64(n.Speed)/1000)
	default:
		return fmt.Sprintf("up %d Mb/s", n.Speed)
	}
}

// bytesText is a size in the largest unit of which there is one, to one digit
// where it is not whole.
func bytesText(n uint64) string {
	unit, name := uint64(1), "B"
	for _, next := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if n/unit < 1024 {
			break
		}
		unit, name = unit*1024, next
	}
	if n%unit == 0 {
		return fmt.Sprintf("%d %s", n/unit, name)
	}
	return fmt.Sprintf("%.1f %s", float64(n)/float64(unit), name)
}
