package allocator

import (
	"fmt"
	"math/rand/v2"
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
	tests := []struct {
		name   string
		policy Policy
		must   []string
		size   int
		want   []string
	}{
		{"packed: the PF with just enough", PolicyPacked, nil, 3, []string{"b0", "b1", "b2"}},
		{"packed: the tighter PF and NUMA node", PolicyPacked, nil, 2, []string{"c0", "c1"}},
		{"packed: go on where one is begun", PolicyPacked, []string{"b1"}, 2, []string{"b0", "b1"}},
		{"stay on the NUMA node that is used", PolicyPacked, []string{"a0"}, 4, []string{"a0", "a1", "b0", "b1"}},
		{"spread: over PFs of one NUMA node", PolicySpread, nil, 4, []string{"a0", "a1", "b0", "b1"}},
		{"more than one NUMA node has", PolicyPacked, nil, 6, []string{"a0", "a1", "b0", "b1", "b2", "c0"}},
		{"more than there are", PolicyPacked, nil, 99, []string{"a0", "a1", "b0", "b1", "b2", "c0", "c1"}},
		{"none", PolicyPacked, nil, 0, []string{}},
		{"an id that is not available is left out", PolicyPacked, []string{"gone"}, 1, []string{"c0"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, Prefer(tt.policy, Distances{}, pool, tt.must, tt.size)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
	t.Run("devices without topology come last", func(t *testing.T) {
		got := Prefer(PolicyPacked, Distances{}, devices("-1/z/z0", "-1/z/z1", "-1/z/z2", "1/c/c0"), nil, 1)
		if diff := cmp.Diff([]string{"c0"}, got); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	})
}

// TestPreferAnyOrder: the kubelet hands ids over in random order.
func TestPreferAnyOrder(t *testing.T) {
	pool := devices("0/a/a0", "0/a/a1", "0/b/b0", "1/c/c0", "1/d/d0", "1/d/d1", "1/c/c1", "2/e/e0")
	rng := rand.New(rand.NewPCG(1, 2))
	for _, p := range []Policy{PolicyPacked, PolicySpread} {
		for size := range len(pool) + 1 {
			want := Prefer(p, Distances{}, pool, []string{"d0"}, size)
			for range 20 {
				shuffled := slices.Clone(pool)
				rng.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
				if diff := cmp.Diff(want, Prefer(p, Distances{}, shuffled, []string{"d0"}, size)); diff != "" {
					t.Fatalf("%s, size %d (-want +got):\n%s", p, size, diff)
				}
			}
		}
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
