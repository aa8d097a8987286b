package allocator

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// question is what Prefer is asked.
type question struct {
	policy    Policy
	told      map[int]map[int]int
	available []Device
	must      []string
	size      int
}

func (q *question) ask() []string {
	return Prefer(q.policy, NewDistances(q.told), q.available, q.must, q.size)
}

// draw makes a small question: up to 4 NUMA nodes, 3 PFs on each, 4 devices of
// each PF, below few bridges.
func draw(rng *rand.Rand, policy Policy) question {
	q := question{policy: policy}
	nodes := 1 + rng.IntN(4)
	if rng.IntN(4) > 0 {
		q.told = map[int]map[int]int{}
		for a := range nodes {
			q.told[a] = map[int]int{a: 10}
			for b := range a {
				d := 11 + rng.IntN(3)*10
				q.told[a][b], q.told[b][a] = d, d
			}
		}
	}
	for numa := range nodes {
		for pf := range rng.IntN(4) + max(0, 1-numa) {
			name := fmt.Sprintf("%d%c", numa, 'a'+pf)
			root := fmt.Sprint("root", numa, rng.IntN(2))
			upstream := []string{root}
			for range rng.IntN(3) {
				upstream = slices.Insert(upstream, 0, fmt.Sprint(upstream[0], "-", rng.IntN(2)))
			}
			for i := range 1 + rng.IntN(4) {
				q.available = append(q.available, Device{ID: fmt.Sprint(name, i), NUMANodes: []int{numa}, PF: name, Upstream: upstream})
			}
		}
	}
	rng.Shuffle(len(q.available), func(i, j int) { q.available[i], q.available[j] = q.available[j], q.available[i] })
	q.size = 1 + rng.IntN(len(q.available))
	if rng.IntN(3) == 0 {
		for _, d := range q.available[:rng.IntN(q.size)] {
			q.must = append(q.must, d.ID)
		}
	}
	return q
}

// counts are devices by NUMA node and by PF.
type counts struct {
	numa map[int]int
	pf   map[string]int
}

func countOf(devices []Device, ids func(id string) bool) counts {
	c := counts{map[int]int{}, map[string]int{}}
	for _, d := range devices {
		if ids(d.ID) {
			c.numa[d.NUMANodes[0]]++
			c.pf[d.PF]++
		}
	}
	return c
}

// TestPreferIsOptimal holds Prefer against what it shall be, over all that it
// could have answered: first the NUMA nodes, then how many of each PF.
func TestPreferIsOptimal(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for _, policy := range []Policy{PolicyPacked, PolicySpread, PolicyPaired} {
		t.Run(string(policy), func(t *testing.T) {
			rounds := 2000
			if testing.Short() {
				rounds = 200
			}
			for range rounds {
				q := draw(rng, policy)
				if err := q.check(q.ask()); err != nil {
					t.Fatalf("%v\npolicy %s, %d of %+v\nwith %v, distances %v\ngot %v", err, q.policy, q.size, q.available, q.must, q.told, q.ask())
				}
			}
		})
	}
}

// FuzzPrefer looks for a question that Prefer answers less than well.
func FuzzPrefer(f *testing.F) {
	f.Add(uint64(1), uint64(1))
	f.Add(uint64(2), uint64(40))
	f.Fuzz(func(t *testing.T, a, b uint64) {
		for _, policy := range []Policy{PolicyPacked, PolicySpread, PolicyPaired} {
			q := draw(rand.New(rand.NewPCG(a, b)), policy)
			if err := q.check(q.ask()); err != nil {
				t.Errorf("%v\n%+v\ngot %v", err, q, q.ask())
			}
		}
	})
}

func (q *question) check(got []string) error {
	if !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != q.size {
		return fmt.Errorf("%v are not %d devices, sorted", got, q.size)
	}
	for _, id := range q.must {
		if !slices.Contains(got, id) {
			return fmt.Errorf("%s is left out", id)
		}
	}
	all := countOf(q.available, func(string) bool { return true })
	had := countOf(q.available, func(id string) bool { return slices.Contains(q.must, id) })
	took := countOf(q.available, func(id string) bool { return slices.Contains(got, id) })
	if want := q.numaNodes(all, had); !maps.Equal(want, took.numa) {
		return fmt.Errorf("NUMA nodes give %v, want %v", took.numa, want)
	}
	// Within these: no other split over the PFs is better.
	best, better := q.cost(took.pf, all, had), ""
	q.splits(all, had, took.numa, func(split map[string]int) {
		if c := q.cost(split, all, had); slices.Compare(c, best) < 0 {
			best, better = c, fmt.Sprint(split, " with ", c)
		}
	})
	if better != "" {
		return fmt.Errorf("PFs give %v, which costs %v: better were %s", took.pf, q.cost(took.pf, all, had), better)
	}
	return nil
}

// numaNodes is how many devices each NUMA node gives.
func (q *question) numaNodes(all, had counts) map[int]int {
	took := maps.Clone(had.numa)
	need := q.size - len(q.must)
	take := func(numa int) {
		n := min(need, all.numa[numa]-took[numa])
		took[numa] += n
		need -= n
	}
	// What is used already comes first: the tightest that has enough, or the fullest.
	for need > 0 {
		best, found := 0, false
		for _, numa := range slices.Sorted(maps.Keys(had.numa)) {
			left := all.numa[numa] - took[numa]
			if left > 0 && (!found || tighter(left, all.numa[best]-took[best], need)) {
				best, found = numa, true
			}
		}
		if !found {
			break
		}
		take(best)
	}
	for need > 0 {
		var rest []int
		for _, numa := range slices.Sorted(maps.Keys(all.numa)) {
			if took[numa] == 0 {
				rest = append(rest, numa)
			}
		}
		fewest := leastNodes(all, rest, need)
		best, found := 0, false
		for _, numa := range rest {
			others := slices.DeleteFunc(slices.Clone(rest), func(n int) bool { return n == numa })
			if left := need - all.numa[numa]; left > 0 && leastNodes(all, others, left)+1 > fewest || left <= 0 && fewest > 1 {
				continue
			}
			if !found || q.nearer(numa, best, took, need) {
				best, found = numa, true
			}
		}
		take(best)
	}
	return took
}

func tighter(left, than, need int) bool {
	if (left >= need) != (than >= need) {
		return left >= need
	}
	return left >= need && left < than || left < need && left > than
}

// leastNodes is the size of the smallest set of NUMA nodes that have enough.
func leastNodes(all counts, nodes []int, need int) int {
	least := len(nodes) + 1
	for mask := range 1 << len(nodes) {
		have, size := 0, 0
		for i, numa := range nodes {
			if mask>>i&1 == 1 {
				have, size = have+all.numa[numa], size+1
			}
		}
		if have >= need {
			least = min(least, size)
		}
	}
	return least
}

// nearer compares two NUMA nodes that are not used yet, the lower one second.
func (q *question) nearer(a, b int, took map[int]int, need int) bool {
	all := countOf(q.available, func(string) bool { return true })
	used := slices.Collect(maps.Keys(took))
	if len(used) == 0 && q.policy == PolicyPaired && all.numa[a] >= need && all.numa[b] >= need {
		if x, y := q.redundancy(a, need), q.redundancy(b, need); x != y {
			return x > y
		}
	}
	way := func(numa int) (sum int) {
		for _, u := range used {
			if q.told != nil {
				sum += q.told[numa][u] + q.told[u][numa]
			}
		}
		return sum
	}
	if x, y := way(a), way(b); x != y {
		return x < y
	}
	return tighter(all.numa[a], all.numa[b], need)
}

// redundancy is 2 where some two PFs of the NUMA node give equal parts, 1 where
// there are two.
func (q *question) redundancy(numa, need int) int {
	pfs := countOf(slices.DeleteFunc(slices.Clone(q.available), func(d Device) bool { return d.NUMANodes[0] != numa }), func(string) bool { return true }).pf
	if len(pfs) == 1 && need == 1 {
		return 2
	}
	for a, x := range pfs {
		for b, y := range pfs {
			if a < b && (x >= need/2 && y >= need-need/2 || y >= need/2 && x >= need-need/2) {
				return 2
			}
		}
	}
	return min(1, len(pfs)-1)
}

// splits goes through all ways in which the PFs may give what their NUMA nodes give.
func (q *question) splits(all, had counts, numa map[int]int, visit func(map[string]int)) {
	pfs := slices.Sorted(maps.Keys(all.pf))
	split := map[string]int{}
	var walk func(i int, left map[int]int)
	walk = func(i int, left map[int]int) {
		if i == len(pfs) {
			for _, n := range left {
				if n != 0 {
					return
				}
			}
			visit(split)
			return
		}
		on := int(pfs[i][0] - '0')
		least := had.pf[pfs[i]]
		if numa[on] == all.numa[on] {
			least = all.pf[pfs[i]] // the NUMA node gives all it has
		}
		for n := least; n <= min(all.pf[pfs[i]], left[on]); n++ {
			split[pfs[i]] = n
			left[on] -= n
			walk(i+1, left)
			left[on] += n
		}
		delete(split, pfs[i])
	}
	walk(0, maps.Clone(numa))
}

// cost is what a policy makes of a split, what counts most first.
func (q *question) cost(split map[string]int, all, had counts) []int {
	var pfs []string // those that give, most first
	for _, pf := range slices.Sorted(maps.Keys(split)) {
		if split[pf] > 0 {
			pfs = append(pfs, pf)
		}
	}
	slices.SortStableFunc(pfs, func(a, b string) int { return split[b] - split[a] })
	shares := make([]int, len(pfs))
	for i, pf := range pfs {
		shares[i] = split[pf]
	}
	switch q.policy {
	case PolicySpread:
		return shares // the greatest is as small as can be, then the next
	case PolicyPaired:
		cost := []int{0, len(pfs), shares[0], 0, 0}
		if len(pfs) == 1 && q.size > 1 {
			cost[0] = 1
		}
		if len(pfs) == 2 && len(had.pf) < 2 {
			cost[3] = sharedBridges(q.above(pfs[0]), q.above(pfs[1]))
			cost[4] = -all.pf[pfs[0]] - all.pf[pfs[1]]
		}
		return cost
	default:
		cost := []int{len(pfs), 0}
		if len(had.pf) == 0 && oneNode(pfs) {
			// PFs that are taken whole are the fullest, and the last is the tightest.
			for _, n := range shares[:len(shares)-1] {
				cost[1] -= n
			}
			for _, pf := range pfs {
				cost = append(cost, all.pf[pf]-split[pf])
			}
		}
		return cost
	}
}

func (q *question) above(pf string) []string {
	return q.available[slices.IndexFunc(q.available, func(d Device) bool { return d.PF == pf })].Upstream
}

func oneNode(pfs []string) bool {
	return !slices.ContainsFunc(pfs, func(pf string) bool { return pf[0] != pfs[0][0] })
}

// TestPreferAnyOrder: the kubelet hands ids over in random order.
func TestPreferAnyOrder(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, policy := range []Policy{PolicyPacked, PolicySpread, PolicyPaired} {
		for range 500 {
			q := draw(rng, policy)
			for i := range q.available {
				if rng.IntN(3) == 0 {
					q.available[i].PF = "" // bridges then choose among ids
				}
			}
			want := q.ask()
			for range 5 {
				rng.Shuffle(len(q.available), func(i, j int) { q.available[i], q.available[j] = q.available[j], q.available[i] })
				rng.Shuffle(len(q.must), func(i, j int) { q.must[i], q.must[j] = q.must[j], q.must[i] })
				if diff := cmp.Diff(want, q.ask()); diff != "" {
					t.Fatalf("%+v (-want +got):\n%s", q, diff)
				}
			}
		}
	}
}

// TestPreferByNumbersAlone: a scheduler that knows how many devices each PF has,
// and the bridges above it, knows how many of each are taken.
func TestPreferByNumbersAlone(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for _, policy := range []Policy{PolicyPacked, PolicySpread, PolicyPaired} {
		for range 500 {
			q := draw(rng, policy)
			got := q.ask()
			want := countOf(q.available, func(id string) bool { return slices.Contains(got, id) })
			// Other ids of the same PFs, and other ones of them in mustInclude.
			reverse := func(id string) string { return id[:2] + string('9'-(id[2]-'0')) }
			for i := range q.available {
				q.available[i].ID = reverse(q.available[i].ID)
			}
			for i := range q.must {
				q.must[i] = reverse(q.must[i])
			}
			got = q.ask()
			if diff := cmp.Diff(want.pf, countOf(q.available, func(id string) bool { return slices.Contains(got, id) }).pf); diff != "" {
				t.Fatalf("%+v (-by ids +by other ids):\n%s", q, strings.TrimSpace(diff))
			}
		}
	}
}
