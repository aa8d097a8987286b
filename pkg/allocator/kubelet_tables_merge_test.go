package allocator

import (
	"slices"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/numalane/numalane/pkg/topology"
)

// tableMerge are hints of providers that the tests make up, most of which no
// manager would give, so they are replayed on the merger alone.
type tableMerge struct {
	NUMANodes []int         `json:"numaNodes"`
	Distances [][]int       `json:"distances"`
	Policy    string        `json:"policy"`
	Resources [][]tableHint `json:"resources"`
	Best      tableHint     `json:"best"`
	Admit     bool          `json:"admit"`
}

func (r *replay) merge(k *tableMerge) {
	n := &Node{numaIDs: k.NUMANodes}
	single := k.Policy == topology.PolicySingleNUMANode
	if !single {
		n.distances = slices.Concat(k.Distances...)
	}
	words := maskWords(len(n.numaIDs))
	m := merger{n: n, preferred: make(maskSet, words), reached: make(maskSet, words), keep: k.Policy == topology.PolicyBestEffort}
	for _, list := range k.Resources {
		hints, preferred := make(maskSet, words), make(maskSet, words)
		anywhere := list == nil
		for _, h := range list {
			mask := r.mask(n, h.NUMANodes)
			switch {
			case mask == 0 && len(list) > 1:
				r.Fatalf("a list that is at once a wish and none: %s", r.raw)
			case mask == 0:
				anywhere = h.Preferred // not preferred: a wish that cannot be met
			case !single || size(mask) == 1 && h.Preferred:
				hints.add(mask)
				if h.Preferred {
					preferred.add(mask)
				}
			}
		}
		if !anywhere {
			m.add(hints, preferred)
		}
	}
	best := m.best()
	admit := best.preferred || m.keep
	if admit != k.Admit {
		r.wrong("admitted", k.Admit, admit)
		return
	}
	if !admit {
		return // nobody asks for the hint of a pod that is refused
	}
	if single && best.mask == n.everyNUMANode() {
		best.mask = 0
	}
	got := tableHint{n.ids(best.mask), best.preferred}
	if len(got.NUMANodes) == 0 {
		got.NUMANodes = nil
	}
	if !gocmp.Equal(k.Best, got) {
		r.wrong("best hint", k.Best, got)
	}
}
