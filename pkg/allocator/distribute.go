package allocator

import (
	"math"
	"math/bits"
)

// takeDistributed is takeByTopologyNUMADistributed, for the option
// distribute-cpus-across-numa: the fewest NUMA nodes that share the CPUs evenly
// (KEP-2902), in chunks of group CPUs.
func (t *cpuTopology) takeDistributed(available *cpuBits, count, group int, o *cpuOptions) (cpuBits, bool) {
	if count%group != 0 {
		return t.takePacked(available, count, o.spreadCores, false)
	}
	a := taker{t: t, free: *available, need: count, spread: o.spreadCores}
	if a.satisfied() {
		return a.taken, true
	}
	if a.need > a.free.size() {
		return cpuBits{}, false
	}
	d := distribution{t: t, numas: a.numaNodes(), count: count, group: group, bySocket: o.bySocket && o.newDistribution, capped: o.newDistribution}
	d.free = make([]int, len(t.numa))
	for i := range t.numa {
		d.free[i] = t.numa[i].set.shared(&a.free)
	}
	least, most := d.sizes()
	for k := least; k <= most; k++ {
		if d.best(k); d.combo != nil {
			return d.take(&a)
		}
	}
	return t.takePacked(available, count, o.spreadCores, false)
}

// distribution is the search for the NUMA nodes to share CPUs.
type distribution struct {
	t        *cpuTopology
	numas    []int // with free CPUs, in the kubelet's order; one that lies in two sockets may come twice
	free     []int // free CPUs by NUMA node
	count    int
	group    int
	bySocket bool // align-by-socket, which this step heeds since 1.37
	capped   bool // no NUMA node is asked for more than it has; since 1.37

	combo     []int // the best found
	rest      []int // the NUMA nodes of it that give what cannot be shared evenly
	balance   float64
	oneSocket bool
}

// sizes are the least and the largest number of NUMA nodes worth a look
// (rangeNUMANodesNeededToSatisfy).
func (d *distribution) sizes() (least, most int) {
	groups := (len(d.t.ids)-1)/d.group + 1
	perNUMA := (groups-1)/d.t.withCPUs + 1
	needed := (d.count-1)/d.group + 1
	return (needed-1)/perNUMA + 1, min(needed, bits.OnesCount64(maskOf(d.numas)))
}

// best looks at all sets of k NUMA nodes.
func (d *distribution) best(k int) {
	d.combo, d.rest, d.balance, d.oneSocket = nil, nil, math.MaxFloat64, false
	combinations(d.numas, k, func(combo []int) bool {
		if d.balance == 0 && (!d.bySocket || d.oneSocket) {
			return false
		}
		each, ok := d.share(combo)
		if !ok {
			return true
		}
		balance, rest := d.spreadRest(combo, each)
		one := d.bySocket && d.inOneSocket(combo)
		better := balance < d.balance
		if d.bySocket && one != d.oneSocket {
			better = one
		}
		if better {
			d.combo, d.rest, d.balance, d.oneSocket = combo, rest, balance, one
		}
		return true
	})
}

// share is how many CPUs each NUMA node of the combination gives, if all can.
func (d *distribution) share(combo []int) (each int, ok bool) {
	all, groups := 0, 0
	for mask := maskOf(combo); mask != 0; mask &= mask - 1 {
		all += d.free[firstBit(mask)]
	}
	for _, n := range combo {
		groups += d.free[n] / d.group
	}
	if all < d.count || groups*d.group < d.count {
		return 0, false
	}
	each = d.count / len(combo) / d.group * d.group
	if d.bySocket {
		each = d.cap(combo, each)
	}
	for _, n := range combo {
		if d.free[n] < each {
			return 0, false
		}
	}
	return each, true
}

func (d *distribution) cap(combo []int, each int) int {
	for _, n := range combo {
		each = min(each, d.free[n]/d.group*d.group)
	}
	return each
}

// spreadRest finds the subset of the combination that gives the CPUs beyond
// the even share and leaves the machine most even.
func (d *distribution) spreadRest(combo []int, each int) (balance float64, rest []int) {
	after := make([]int, len(d.free))
	copy(after, d.free)
	for _, n := range combo {
		after[n] -= each
	}
	left := d.count - each*len(combo)
	if left == 0 {
		return d.deviation(after), nil
	}
	balance = math.MaxFloat64
	var givers []int
	for _, n := range combo {
		if after[n] >= d.group {
			givers = append(givers, n)
		}
	}
	trial := make([]int, len(after))
	for k := len(givers); k >= 1; k-- {
		combinations(givers, k, func(subset []int) bool {
			copy(trial, after)
			have := 0
			for _, n := range subset {
				have += trial[n]
			}
			if have < left {
				return true
			}
			if !d.deal(trial, subset, left) {
				return true
			}
			if b := d.deviation(trial); b < balance {
				balance, rest = b, subset
			}
			return true
		})
	}
	return balance, rest
}

// deal takes chunks from the NUMA nodes in turn. The kubelet would turn for
// ever where no node has a chunk left; this tells so.
func (d *distribution) deal(free, from []int, left int) bool {
	for left > 0 {
		before := left
		for _, n := range from {
			if left > 0 && free[n] >= d.group {
				free[n] -= d.group
				left -= d.group
			}
		}
		if left == before {
			return false
		}
	}
	return true
}

// deviation is the kubelet's balance score, rounded as it does.
func (d *distribution) deviation(after []int) float64 {
	numas := maskOf(d.numas)
	sum, count := 0.0, float64(bits.OnesCount64(numas))
	for mask := numas; mask != 0; mask &= mask - 1 {
		sum += float64(after[firstBit(mask)])
	}
	mean := thousandths(sum / count)
	sum = 0
	for mask := numas; mask != 0; mask &= mask - 1 {
		off := float64(after[firstBit(mask)]) - mean
		sum += off * off
	}
	return thousandths(math.Sqrt(sum / count))
}

func maskOf(list []int) uint64 {
	var mask uint64
	for _, i := range list {
		mask |= 1 << i
	}
	return mask
}

func thousandths(x float64) float64 { return math.Round(x*1000) / 1000 }

func (d *distribution) inOneSocket(combo []int) bool {
	var cpus cpuBits
	for _, n := range combo {
		cpus = cpus.or(&d.t.numa[n].set)
	}
	_, sockets := d.t.onSockets(&cpus)
	return sockets <= 1
}

// take allocates from the combination that was found.
func (d *distribution) take(a *taker) (cpuBits, bool) {
	each := d.count / len(d.combo) / d.group * d.group
	if d.capped {
		each = d.cap(d.combo, each)
	}
	from := func(n, count int) {
		here := a.free.and(&d.t.numa[n].set)
		got, _ := d.t.takePacked(&here, count, a.spread, false)
		a.take(&cpuGroup{set: got, size: got.size()})
	}
	for _, n := range d.combo {
		from(n, each)
	}
	for left := d.count - each*len(d.combo); left > 0; {
		before := left
		for _, n := range d.rest {
			if left > 0 && d.t.numa[n].set.shared(&a.free) >= d.group {
				from(n, d.group)
				left -= d.group
			}
		}
		if left == before {
			return cpuBits{}, false // the kubelet would not return
		}
	}
	return a.taken, a.need == 0
}

// combinations calls f with all k-element subsets of list in lexicographic
// order until it returns false (cpuAccumulator.iterateCombinations).
//
// The subsets share memory just as the kubelet's do: one of four or more
// elements that f keeps is changed by the next call. A kubelet of eight NUMA
// nodes distributes CPUs over the wrong ones for it, and so does this.
func combinations(list []int, k int, f func([]int) bool) {
	if k < 1 {
		return
	}
	var walk func(k, start int, chosen []int) bool
	walk = func(k, start int, chosen []int) bool {
		if k == 0 {
			return f(chosen)
		}
		for i := start; i <= len(list)-k; i++ {
			if !walk(k-1, i+1, append(chosen, list[i])) {
				return false
			}
		}
		return true
	}
	walk(k, 0, []int{})
}
