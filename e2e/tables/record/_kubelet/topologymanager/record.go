// Package topologymanager, this file: what the recorder adds to the kubelet's.
// The functions that it stands in for are named kubelet… in the kubelet's files.
package topologymanager

import (
	"maps"
	"slices"

	"k8s.io/klog/v2"

	"github.com/numalane/numalane/e2e/tables/vector"
)

// recorded are the questions to ask when the kubelet's tests have ended.
var recorded vector.Queue

func (p *bestEffortPolicy) Merge(logger klog.Logger, hints []map[string][]TopologyHint) (TopologyHint, bool) {
	recordMerge(p.numaInfo, p.opts, hints)
	return p.kubeletMerge(logger, hints)
}

func (p *restrictedPolicy) Merge(logger klog.Logger, hints []map[string][]TopologyHint) (TopologyHint, bool) {
	recordMerge(p.numaInfo, p.opts, hints)
	return p.kubeletMerge(logger, hints)
}

func (p *singleNumaNodePolicy) Merge(logger klog.Logger, hints []map[string][]TopologyHint) (TopologyHint, bool) {
	recordMerge(p.numaInfo, p.opts, hints)
	return p.kubeletMerge(logger, hints)
}

// recordMerge asks all policies about hints that a test gives to one.
func recordMerge(info *NUMAInfo, opts PolicyOptions, hints []map[string][]TopologyHint) {
	copied := make([]map[string][]TopologyHint, len(hints))
	var resources [][]vector.Hint
	for i, of := range hints {
		copied[i] = maps.Clone(of)
		for _, name := range slices.Sorted(maps.Keys(of)) {
			copied[i][name] = slices.Clone(of[name])
			resources = append(resources, recordedHints(of[name]))
		}
	}
	recorded.Later(func(test string) {
		if info == nil || len(info.Nodes) == 0 {
			vector.Emit(test, vector.Vector{Left: "a machine without NUMA nodes"})
			return
		}
		for _, list := range resources {
			for _, h := range list {
				if slices.ContainsFunc(h.NUMANodes, func(id int) bool { return !slices.Contains(info.Nodes, id) }) {
					vector.Emit(test, vector.Vector{Left: "hints of NUMA nodes that the machine does not have"})
					return
				}
			}
		}
		best := bestEffortPolicy{info, opts}
		restricted := restrictedPolicy{bestEffortPolicy{info, opts}}
		single := singleNumaNodePolicy{info, opts}
		for _, policy := range []struct {
			name  string
			merge func(klog.Logger, []map[string][]TopologyHint) (TopologyHint, bool)
		}{{PolicyBestEffort, best.kubeletMerge}, {PolicyRestricted, restricted.kubeletMerge}, {PolicySingleNumaNode, single.kubeletMerge}} {
			hint, admit := policy.merge(klog.Logger{}, copied)
			m := vector.Merge{NUMANodes: slices.Sorted(slices.Values(info.Nodes)), Policy: policy.name, Resources: resources, Best: recordedHint(hint), Admit: admit}
			if opts.PreferClosestNUMA {
				for _, from := range m.NUMANodes {
					var row []int
					for _, to := range m.NUMANodes {
						row = append(row, int(info.NUMADistances[from][to]))
					}
					m.Distances = append(m.Distances, row)
				}
			}
			vector.Emit(test, vector.Vector{Merge: &m})
		}
	})
}

func recordedHints(hints []TopologyHint) []vector.Hint {
	if hints == nil {
		return nil
	}
	out := make([]vector.Hint, 0, len(hints))
	for _, h := range hints {
		out = append(out, recordedHint(h))
	}
	return out
}

func recordedHint(h TopologyHint) vector.Hint {
	out := vector.Hint{Preferred: h.Preferred}
	if h.NUMANodeAffinity != nil {
		out.NUMANodes = h.NUMANodeAffinity.GetBits()
	}
	return out
}
