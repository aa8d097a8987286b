package allocator

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// devices makes a pool out of "numa/pf/id" words.
func devices(words ...string) []Device {
	var ds []Device
	for _, w := range words {
		var d Device
		var numa int
		if _, err := fmt.Sscanf(w, "%d/%1s/%s", &numa, &d.PF, &d.ID); err != nil {
			panic(err)
		}
		if numa >= 0 {
			d.NUMANodes = []int{numa}
		}
		ds = append(ds, d)
	}
	return ds
}

func TestPrefer(t *testing.T) {
	pool := devices("0/a/a0", "0/a/a1", "0/b/b0", "0/b/b1", "0/b/b2", "1/c/c0", "1/c/c1")
	four := devices("0/a/a0", "0/a/a1", "0/a/a2", "0/a/a3", "0/b/b0", "0/b/b1", "0/b/b2", "0/c/c0", "0/c/c1", "0/d/d0")
	tests := []struct {
		name   string
		policy Policy
		pool   []Device
		must   []string
		size   int
		want   []string
	}{
		{"packed: the PF with just enough", PolicyPacked, pool, nil, 3, []string{"b0", "b1", "b2"}},
		{"packed: the tighter PF and NUMA node", PolicyPacked, pool, nil, 2, []string{"c0", "c1"}},
		{"packed: go on where one is begun", PolicyPacked, pool, []string{"b1"}, 2, []string{"b0", "b1"}},
		{"stay on the NUMA node that is used", PolicyPacked, pool, []string{"a0"}, 4, []string{"a0", "a1", "b0", "b1"}},
		{"spread: over PFs of one NUMA node", PolicySpread, pool, nil, 4, []string{"a0", "a1", "b0", "b1"}},
		{"more than one NUMA node has", PolicyPacked, pool, nil, 6, []string{"a0", "a1", "b0", "b1", "b2", "c0"}},
		{"more than there are", PolicyPacked, pool, nil, 99, []string{"a0", "a1", "b0", "b1", "b2", "c0", "c1"}},
		{"none", PolicyPacked, pool, nil, 0, []string{}},
		{"an id that is not available is left out", PolicyPacked, pool, []string{"gone"}, 1, []string{"c0"}},
		{"no policy is packed", "", pool, nil, 3, []string{"b0", "b1", "b2"}},

		{"paired: the two PFs with most", PolicyPaired, four, nil, 4, []string{"a0", "a1", "b0", "b1"}},
		{"paired: one more of the PF with more", PolicyPaired, four, nil, 5, []string{"a0", "a1", "a2", "b0", "b1"}},
		{"paired: uneven rather than three PFs", PolicyPaired, four, nil, 7, []string{"a0", "a1", "a2", "a3", "b0", "b1", "b2"}},
		{"paired: three PFs where two have too little", PolicyPaired, four, nil, 8, []string{"a0", "a1", "a2", "b0", "b1", "b2", "c0", "c1"}},
		{"paired: a single one, so that most pairs stay", PolicyPaired, four, nil, 1, []string{"a0"}},
		{"paired: an init container has one of the pair", PolicyPaired, four, []string{"c0"}, 2, []string{"a0", "c0"}},
		{"paired: an init container has both", PolicyPaired, four, []string{"c0", "d0"}, 3, []string{"c0", "c1", "d0"}},
		{"paired: both, and they have too little", PolicyPaired, four, []string{"c0", "d0"}, 5, []string{"a0", "a1", "c0", "c1", "d0"}},
		{"paired: an init container has one PF's", PolicyPaired, four, []string{"a0", "a1", "a2"}, 4, []string{"a0", "a1", "a2", "b0"}},
		{"paired: the NUMA node with two PFs, though another is tighter", PolicyPaired, pool, nil, 2, []string{"a0", "b0"}},
		{"paired: one NUMA node before two PFs", PolicyPaired, devices("0/a/a0", "0/a/a1", "1/b/b0"), nil, 2, []string{"a0", "a1"}},
		{"paired: the NUMA node with equal parts", PolicyPaired, devices("0/a/a0", "0/a/a1", "0/a/a2", "0/b/b0", "1/c/c0", "1/c/c1", "1/d/d0", "1/d/d1", "1/d/d2"), nil, 4, []string{"c0", "c1", "d0", "d1"}},
		{"paired: over NUMA nodes where one has too little", PolicyPaired, devices("0/a/a0", "0/a/a1", "1/b/b0", "1/b/b1", "1/c/c0"), nil, 4, []string{"a0", "b0", "b1", "c0"}},
		{"devices without topology come last", PolicyPacked, devices("-1/z/z0", "-1/z/z1", "-1/z/z2", "1/c/c0"), nil, 1, []string{"c0"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, Prefer(tt.policy, Distances{}, tt.pool, tt.must, tt.size)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// TestPreferNear is a machine of two sockets with two NUMA nodes each, 0 and 1,
// 4 and 9.
func TestPreferNear(t *testing.T) {
	near := map[int]map[int]int{
		0: {0: 10, 1: 12, 4: 31, 9: 21}, 1: {0: 12, 1: 10, 4: 21, 9: 31},
		4: {0: 31, 1: 21, 4: 10, 9: 12}, 9: {0: 21, 1: 31, 4: 12, 9: 10},
	}
	partly := map[int]map[int]int{0: near[0], 1: near[1], 4: {4: 10}, 9: near[9]}
	pool := devices("0/a/a0", "0/a/a1", "1/b/b0", "1/b/b1", "4/c/c0", "4/c/c1", "9/d/d0", "9/d/d1")
	tests := []struct {
		name string
		told map[int]map[int]int
		pool []Device
		must []string
		size int
		want []string
	}{
		{"the neighbour", near, pool, []string{"d0"}, 4, []string{"c0", "c1", "d0", "d1"}},
		{"the neighbour, then the nearest to both", near, pool, []string{"c0"}, 5, []string{"a0", "c0", "c1", "d0", "d1"}},
		{"no distances: the lowest id", nil, pool, []string{"d0"}, 4, []string{"a0", "a1", "d0", "d1"}},
		{"distances in part: the lowest id", partly, pool, []string{"d0"}, 4, []string{"a0", "a1", "d0", "d1"}},
		{"nearer before tighter", near, devices("0/a/a0", "1/b/b0", "1/b/b1", "4/c/c0"), []string{"a0"}, 2, []string{"a0", "b0"}},
		{"fewer before nearer", near, devices("0/a/a0", "1/b/b0", "4/c/c0", "4/c/c1"), []string{"a0"}, 3, []string{"a0", "c0", "c1"}},
		{"nearer where it stays as few", near, devices("0/a/a0", "1/b/b0", "1/b/b1", "4/c/c0", "4/c/c1", "4/c/c2", "9/d/d0"), []string{"a0"}, 5, []string{"a0", "b0", "b1", "c0", "c1"}},
		{"one that the machine does not have is far", near, devices("0/a/a0", "3/x/x0", "4/c/c0"), []string{"a0"}, 2, []string{"a0", "c0"}},
		{"none at all is far", near, devices("0/a/a0", "-1/x/x0", "4/c/c0", "4/c/c1"), []string{"a0"}, 2, []string{"a0", "c0"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, Prefer(PolicyPacked, NewDistances(tt.told), tt.pool, tt.must, tt.size)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// TestPreferBridges has two cards of two ports below one switch, and a third
// card of its own.
func TestPreferBridges(t *testing.T) {
	above := map[string][]string{
		"a": {"down1", "up", "root1"}, "b": {"down1", "up", "root1"}, "c": {"down2", "up", "root1"}, "d": {"down2", "up", "root1"},
		"e": {"root2"}, "f": {"root2"},
	}
	twoEach := []string{"0/a/a0", "0/a/a1", "0/b/b0", "0/b/b1", "0/c/c0", "0/c/c1", "0/d/d0", "0/d/d1", "0/e/e0", "0/e/e1", "0/f/f0", "0/f/f1"}
	tests := []struct {
		name   string
		policy Policy
		pool   []string
		must   []string
		size   int
		want   []string
	}{
		{"packed: the card's other port", PolicyPacked, twoEach, []string{"d0"}, 4, []string{"c0", "c1", "d0", "d1"}},
		{"packed: then the card below the same switch", PolicyPacked, twoEach, []string{"c0", "d0"}, 6, []string{"a0", "a1", "c0", "c1", "d0", "d1"}},
		{"packed: a PF with just enough first", PolicyPacked, append(slices.Clone(twoEach), "0/g/g0"), []string{"d0", "d1"}, 3, []string{"d0", "d1", "g0"}},
		{"spread: over all cards", PolicySpread, twoEach, nil, 3, []string{"a0", "c0", "e0"}},
		{"spread: not on the same card", PolicySpread, twoEach, []string{"c0", "f0"}, 3, []string{"a0", "c0", "f0"}},
		{"paired: another card", PolicyPaired, twoEach[:8], nil, 2, []string{"a0", "c0"}},
		{"paired: of another switch", PolicyPaired, twoEach, nil, 4, []string{"a0", "a1", "e0", "e1"}},
		{"paired: another card before the one with more", PolicyPaired, append(slices.Clone(twoEach[:6]), "0/a/a2", "0/b/b2"), nil, 2, []string{"a0", "c0"}},
		{"paired: equal parts before another card", PolicyPaired, append(slices.Clone(twoEach[:6]), "0/a/a2", "0/b/b2"), nil, 6, []string{"a0", "a1", "a2", "b0", "b1", "b2"}},
		{"paired: apart from what the init container has", PolicyPaired, twoEach, []string{"e1"}, 2, []string{"a0", "e1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			pool := devices(tt.pool...)
			for i := range pool {
				pool[i].Upstream = above[pool[i].PF]
			}
			if diff := cmp.Diff(tt.want, Prefer(tt.policy, Distances{}, pool, tt.must, tt.size)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
	// Accelerators without VFs are of no PF. How many are taken does not depend
	// on where they are, so bridges choose freely.
	for policy, want := range map[Policy][]string{PolicyPacked: {"c0", "d1"}, PolicySpread: {"b0", "d1"}, PolicyPaired: {"b0", "d1"}} {
		t.Run(string(policy)+": devices without a PF", func(t *testing.T) {
			pool := devices("0/a/a0", "0/e/b0", "0/c/c0", "0/d/d1")
			for i := range pool {
				pool[i].PF, pool[i].Upstream = "", above[pool[i].PF]
			}
			if diff := cmp.Diff(want, Prefer(policy, Distances{}, pool, []string{"d1"}, 2)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestScore(t *testing.T) {
	tests := []struct {
		name          string
		better, worse machine
		pod           asks
	}{
		{"into the smaller hole", machine{cores: []int{4}, vfs: []int{2}}, machine{cores: []int{8}, vfs: []int{4}}, asks{cpu: "4", vf: 2}},
		{"many CPUs go where few VFs are", machine{cores: []int{8}, vfs: []int{1}}, machine{cores: []int{8}, vfs: []int{8}}, asks{cpu: "6", vf: 1}},
		{"many VFs go where few CPUs are", machine{cores: []int{2}, vfs: []int{6}}, machine{cores: []int{9}, vfs: []int{6}}, asks{cpu: "1", vf: 5}},
		{"only where the pod lands counts", machine{cores: []int{4, 32}, vfs: []int{2, 9}}, machine{cores: []int{6, 0}, vfs: []int{2, 0}}, asks{cpu: "4", vf: 2}},
		{"one that admits before one that refuses", machine{cores: []int{64}, vfs: []int{64}}, machine{cores: []int{1}, vfs: []int{1}}, asks{cpu: "2", vf: 1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := NewRequest(podOf(tt.pod))
			const most = 1000
			better := compile(t, tt.better.state()).Score(r, most)
			worse := compile(t, tt.worse.state()).Score(r, most)
			if better <= worse || better > most || worse < 0 {
				t.Errorf("better node scores %d, worse one %d, of %d", better, worse, most)
			}
		})
	}
}
