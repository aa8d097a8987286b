package topology

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

func (r *reader) cpuDir(id int) string {
	return filepath.Join(r.sys, "devices/system/cpu/cpu"+strconv.Itoa(id))
}

func (r *reader) nodeDir(id int) string {
	return filepath.Join(r.sys, "devices/system/node/node"+strconv.Itoa(id))
}

// readMachine reads all that is not PCI.
func (r *reader) readMachine() {
	r.readCPUs()
	r.readNodes()
	r.readCores()
	r.readUncore()
	r.crossCheck()
}

// readCPUs lists the CPUs and tells which of them are online.
func (r *reader) readCPUs() {
	dir := filepath.Join(r.sys, "devices/system/cpu")
	ids, err := numbered(dir, "cpu")
	if err != nil {
		r.problem(dir, err)
	}
	listFile := filepath.Join(dir, "online")
	s, err := text(listFile)
	var online CPUSet
	if err == nil {
		online, err = ParseCPUSet(s)
	}
	listed := err == nil
	if err != nil && !missing(err) {
		r.problem(listFile, err)
	}
	r.cpu = make(map[int]int, len(ids))
	for i, id := range ids {
		c := CPU{ID: id, NUMANode: NoNUMANode, Socket: -1, Core: -1, CacheID: -1}
		if listed {
			c.Online = online.Contains(id)
		} else {
			c.Online = r.onlineByItself(id)
		}
		r.cpu[id] = i
		r.host.CPUs = append(r.host.CPUs, c)
	}
	if lost := online.Difference(NewCPUSet(ids...).CPUSet); listed && !lost.IsEmpty() {
		r.problem(listFile, fmt.Errorf("CPUs %s are online and have no folder", lost))
	}
}

// onlineByItself is for kernels without the list of online CPUs. A CPU that
// cannot be taken offline, as often the first, has no file of its own.
func (r *reader) onlineByItself(id int) bool {
	file := filepath.Join(r.cpuDir(id), "online")
	n, err := number(file)
	if missing(err) {
		return true
	}
	if err != nil {
		r.problem(file, err)
	}
	return err == nil && n == 1
}

// readNodes reads the NUMA nodes that are online and gives each its CPUs.
func (r *reader) readNodes() {
	dir := filepath.Join(r.sys, "devices/system/node")
	if _, err := os.Stat(dir); missing(err) {
		r.noNUMA = true
		return
	}
	ids, err := r.nodeIDs(dir)
	if err != nil {
		r.problem(dir, err)
		return
	}
	for _, id := range ids {
		r.readNode(id, ids)
	}
	var lost []int
	for i := range r.host.CPUs {
		if c := &r.host.CPUs[i]; c.Online && c.NUMANode == NoNUMANode {
			lost = append(lost, c.ID)
		}
	}
	if len(lost) > 0 {
		r.problem(dir, fmt.Errorf("no NUMA node lists the CPUs %s", NewCPUSet(lost...)))
	}
}

// nodeIDs are the online nodes, ascending: the order of the distance rows.
func (r *reader) nodeIDs(dir string) ([]int, error) {
	s, err := text(filepath.Join(dir, "online"))
	if missing(err) {
		return numbered(dir, "node")
	}
	if err != nil {
		return nil, err
	}
	ids, err := ParseCPUSet(s) // the same list form
	if err != nil {
		return nil, fmt.Errorf("online: %w", err)
	}
	return ids.List(), nil
}

func (r *reader) readNode(id int, online []int) {
	dir := r.nodeDir(id)
	n := NUMANode{ID: id}
	if list, err := cpus(dir, "cpulist", "cpumap"); err != nil {
		r.problem(filepath.Join(dir, "cpulist"), err)
	} else {
		n.CPUs = r.own(id, list)
	}
	var err error
	if n.Distances, err = distances(filepath.Join(dir, "distance"), online); err != nil {
		r.problem(filepath.Join(dir, "distance"), err)
	}
	if n.Memory, err = memTotal(filepath.Join(dir, "meminfo")); err != nil {
		r.problem(filepath.Join(dir, "meminfo"), err)
	}
	n.Hugepages = r.hugepages(filepath.Join(dir, "hugepages"))
	r.host.NUMANodes = append(r.host.NUMANodes, n)
}

// own gives CPUs to a node and returns the online ones. A CPU belongs to one
// node: broken firmware that lists it in several leaves it with the first.
func (r *reader) own(node int, list CPUSet) CPUSet {
	var mine, taken []int
	for _, id := range list.List() {
		i, ok := r.cpu[id]
		if !ok {
			continue // possible, and not present
		}
		c := &r.host.CPUs[i]
		if c.NUMANode != NoNUMANode {
			taken = append(taken, id)
			continue
		}
		c.NUMANode = node
		if c.Online {
			mine = append(mine, id)
		}
	}
	if len(taken) > 0 {
		r.problem(filepath.Join(r.nodeDir(node), "cpulist"),
			fmt.Errorf("the CPUs %s are in an earlier NUMA node too and count there", NewCPUSet(taken...)))
	}
	return NewCPUSet(mine...)
}

// distances reads a SLIT row. It lists the online nodes by position
// (drivers/base/node.c, node_read_distance), so ids come from their list.
func distances(file string, online []int) (map[int]int, error) {
	s, err := text(file)
	if err != nil {
		return nil, err
	}
	row := strings.Fields(s)
	if len(row) != len(online) {
		return nil, fmt.Errorf("%d distances for %d online NUMA nodes", len(row), len(online))
	}
	byID := make(map[int]int, len(row))
	for i, f := range row {
		d, err := strconv.Atoi(f)
		if err != nil {
			return nil, fmt.Errorf("%q is not a distance", f)
		}
		byID[online[i]] = d
	}
	return byID, nil
}

// memTotal reads "Node 0 MemTotal: 131732940 kB".
func memTotal(file string) (uint64, error) {
	s, err := text(file)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(s) {
		_, value, ok := strings.Cut(line, "MemTotal:")
		if !ok {
			continue
		}
		kb, err := strconv.ParseUint(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 54)
		if err != nil {
			return 0, fmt.Errorf("MemTotal: %q is not a number of kB", strings.TrimSpace(value))
		}
		return kb << 10, nil
	}
	return 0, errors.New("no MemTotal")
}

// hugepages reads a node's pools. A kernel without them has no folder.
func (r *reader) hugepages(dir string) []Hugepages {
	entries, err := os.ReadDir(dir)
	if err != nil {
		if !missing(err) {
			r.problem(dir, err)
		}
		return nil
	}
	var pools []Hugepages
	for _, e := range entries {
		size, ok := strings.CutPrefix(e.Name(), "hugepages-")
		kb, err := strconv.ParseUint(strings.TrimSuffix(size, "kB"), 10, 54)
		if !ok || err != nil {
			continue
		}
		total, err := number(filepath.Join(dir, e.Name(), "nr_hugepages"))
		if err != nil {
			r.problem(filepath.Join(dir, e.Name(), "nr_hugepages"), err)
			continue
		}
		free, err := number(filepath.Join(dir, e.Name(), "free_hugepages"))
		if err != nil {
			r.problem(filepath.Join(dir, e.Name(), "free_hugepages"), err)
			continue
		}
		pools = append(pools, Hugepages{Size: kb << 10, Total: uint64(max(total, 0)), Free: uint64(max(free, 0))})
	}
	slices.SortFunc(pools, func(a, b Hugepages) int { return cmp.Compare(a.Size, b.Size) })
	return pools
}
