package topology

import (
	"fmt"
	"path/filepath"
	"slices"

	"github.com/jaypipes/ghw"
)

// crossCheck compares the NUMA nodes with ghw's account, which reads the CPUs'
// folders and not their lists: when the two differ, CPUs came or went during
// the scan. Only nodes that ghw tells are compared, for it gives up without an
// error at the first file that it misses, such as meminfo or hugepages.
func (r *reader) crossCheck() {
	if r.noNUMA || r.sameAsPrevious() {
		return
	}
	info, err := ghw.Topology(r.ghwOptions()...)
	if err != nil {
		r.problem(filepath.Join(r.sys, "devices/system/node"), err)
		return
	}
	theirs := make(map[int]CPUSet, len(info.Nodes))
	for _, n := range info.Nodes {
		var ids []int
		for _, core := range n.Cores {
			ids = append(ids, core.LogicalProcessors...)
		}
		theirs[n.ID] = NewCPUSet(ids...)
	}
	for _, n := range r.host.NUMANodes {
		if t, ok := theirs[n.ID]; ok && !t.Equal(n.CPUs) {
			r.problem(r.nodeDir(n.ID), fmt.Errorf("lists the CPUs %s and holds the folders of %s", n.CPUs, t))
		}
	}
}

func (r *reader) sameAsPrevious() bool {
	sameCPUs := func(a, b NUMANode) bool { return a.ID == b.ID && a.CPUs.Equal(b.CPUs) }
	return r.previous != nil && len(r.previous.Problems) == 0 && len(r.host.Problems) == 0 &&
		slices.EqualFunc(r.previous.NUMANodes, r.host.NUMANodes, sameCPUs)
}
