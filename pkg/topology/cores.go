package topology

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
)

// coreKey is what makes two CPUs threads of one core for the kubelet: cAdvisor's
// getCoresInfo joins the same core_id and package within a NUMA node, and asks
// nothing else. (An AMD module's two cores share thread_siblings and are two
// cores; two dies of a node that repeat a core_id are one.)
type coreKey struct{ node, socket, core int }

// readCores gives each online CPU its socket and its core.
func (r *reader) readCores() {
	coreID := make(map[int]int, len(r.host.CPUs))
	for i := range r.host.CPUs {
		c := &r.host.CPUs[i]
		if !c.Online {
			continue
		}
		dir := filepath.Join(r.cpuDir(c.ID), "topology")
		var err error
		if c.Socket, err = number(filepath.Join(dir, "physical_package_id")); err != nil {
			r.problem(filepath.Join(dir, "physical_package_id"), err)
			c.Socket = -1
		}
		if coreID[c.ID], err = number(filepath.Join(dir, "core_id")); err != nil {
			r.problem(filepath.Join(dir, "core_id"), err)
			coreID[c.ID] = -1 - c.ID // a core of its own
		}
	}
	if r.noNUMA {
		r.nodesByPackage()
	}
	threads := map[coreKey][]int{}
	for i := range r.host.CPUs {
		if c := &r.host.CPUs[i]; c.Online {
			k := coreKey{c.NUMANode, c.Socket, coreID[c.ID]}
			threads[k] = append(threads[k], c.ID)
		}
	}
	for _, ids := range threads {
		set := NewCPUSet(ids...)
		for _, id := range ids {
			c := &r.host.CPUs[r.cpu[id]]
			c.Core, c.Threads = ids[0], set
		}
	}
}

// nodesByPackage is what cAdvisor's getCPUTopology, and with it the kubelet,
// takes for NUMA nodes on a kernel that has none: the packages, without
// memory or distances.
func (r *reader) nodesByPackage() {
	byPackage := map[int][]int{}
	for i := range r.host.CPUs {
		c := &r.host.CPUs[i]
		if !c.Online {
			continue
		}
		// Firmware that tells no package gives -1, which is no node id.
		c.NUMANode = max(c.Socket, 0)
		byPackage[c.NUMANode] = append(byPackage[c.NUMANode], c.ID)
	}
	for _, id := range slices.Sorted(maps.Keys(byPackage)) {
		r.host.NUMANodes = append(r.host.NUMANodes, NUMANode{ID: id, CPUs: NewCPUSet(byPackage[id]...)})
	}
	r.problem(filepath.Join(r.sys, "devices/system/node"),
		errors.New("this kernel tells no NUMA nodes: each package counts as one, as for the kubelet"))
}

// uncore is a cache of level 3 or more and how many CPUs share it.
type uncore struct{ id, cpus int }

// readUncore sets CacheID as the kubelet counts it (cpumanager/topology,
// getUncoreCacheID, over cAdvisor's addCacheInfo): the id of the L3 cache when
// it is not exactly that of the whole NUMA node, else the socket.
func (r *reader) readUncore() {
	coresOf := map[int]int{}
	for i := range r.host.CPUs {
		if c := &r.host.CPUs[i]; c.Core == c.ID {
			coresOf[c.NUMANode]++
		}
	}
	known := map[int]*uncore{}
	for i := range r.host.CPUs {
		c := &r.host.CPUs[i]
		if c.Core == -1 {
			continue
		}
		if _, ok := known[c.Core]; !ok {
			known[c.Core] = nil
			if u, sharers, err := readUncoreCache(r.cpuDir(c.Core)); err != nil {
				r.problem(filepath.Join(r.cpuDir(c.Core), "cache"), err)
			} else if u != nil {
				for _, s := range sharers.List() {
					known[s] = u
				}
				known[c.Core] = u
			}
		}
		c.CacheID = c.Socket
		if u := known[c.Core]; u != nil && u.cpus != coresOf[c.NUMANode]*c.Threads.Size() {
			c.CacheID = u.id
		}
	}
}

// readUncoreCache is nil for a CPU without such a cache, and on a kernel
// before 4.11, which gives caches no id: cAdvisor then tells none.
func readUncoreCache(cpuDir string) (*uncore, CPUSet, error) {
	dir := filepath.Join(cpuDir, "cache")
	indexes, err := numbered(dir, "index")
	if missing(err) {
		return nil, CPUSet{}, nil
	}
	if err != nil {
		return nil, CPUSet{}, err
	}
	for _, i := range indexes {
		cache := filepath.Join(dir, "index"+strconv.Itoa(i))
		level, err := number(filepath.Join(cache, "level"))
		if err != nil {
			return nil, CPUSet{}, fmt.Errorf("index%d/level: %s", i, cause(err))
		}
		if level < 3 {
			continue
		}
		id, err := number(filepath.Join(cache, "id"))
		if missing(err) {
			return nil, CPUSet{}, nil
		}
		if err != nil {
			return nil, CPUSet{}, fmt.Errorf("index%d/id: %s", i, cause(err))
		}
		sharers, err := cpus(cache, "shared_cpu_list", "shared_cpu_map")
		if err != nil {
			return nil, CPUSet{}, fmt.Errorf("index%d/shared_cpu_list: %s", i, cause(err))
		}
		return &uncore{id: id, cpus: sharers.Size()}, sharers, nil
	}
	return nil, CPUSet{}, nil
}
