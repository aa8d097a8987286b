package allocator

import "slices"

// taker picks CPUs one group after the other, as the kubelet's cpuAccumulator
// does (cpumanager/cpu_assignment.go). What looks odd in it is the kubelet's:
// groups are taken whole as the machine has them, and counted so, even where a
// machine of uneven cores makes "free" mean something else.
type taker struct {
	t      *cpuTopology
	free   cpuBits
	need   int
	taken  cpuBits
	spread bool // distribute-cpus-across-cores
}

// takePacked is takeByTopologyNUMAPacked: whole NUMA nodes and sockets, then
// (byCache) whole or fitting uncore caches, then whole cores, then threads, out
// of the fullest part that has them. It fails when there are too few.
func (t *cpuTopology) takePacked(available *cpuBits, count int, spread, byCache bool) (cpuBits, bool) {
	a := taker{t: t, free: *available, need: count, spread: spread}
	if a.satisfied() {
		return a.taken, true
	}
	if a.need > a.free.size() {
		return cpuBits{}, false
	}
	steps := [...]func(){a.takeFullSockets, a.takeFullNUMANodes, a.takeCaches, a.takeFullCores, a.takeThreads}
	if t.numaFirst() {
		steps[0], steps[1] = a.takeFullNUMANodes, a.takeFullSockets
	}
	for i, step := range steps {
		if i == 2 && !byCache || i == 3 && spread {
			continue
		}
		if step(); a.satisfied() {
			return a.taken, true
		}
	}
	return cpuBits{}, false
}

func (a *taker) satisfied() bool { return a.need < 1 }

func (a *taker) take(g *cpuGroup) {
	a.taken = a.taken.or(&g.set)
	a.free = a.free.without(&a.taken)
	a.need -= g.size
}

// order appends the groups that have free CPUs within a set, those with the
// fewest free CPUs first (cpuAccumulator.sort).
func (a *taker) order(out []int, groups []cpuGroup, within *cpuBits) []int {
	from := len(out)
	here := a.free.and(within)
	for i := range groups {
		if groups[i].set.intersects(&here) {
			out = append(out, i)
		}
	}
	slices.SortFunc(out[from:], func(i, j int) int {
		if c := groups[i].set.shared(&a.free) - groups[j].set.shared(&a.free); c != 0 {
			return c
		}
		return i - j
	})
	return out
}

func (a *taker) numaNodes() []int {
	if a.t.numaFirst() {
		return a.order(nil, a.t.numa, &a.free)
	}
	return a.below(a.sockets(), a.t.sockets, a.t.numa)
}

func (a *taker) sockets() []int {
	if a.t.numaFirst() {
		return a.below(a.numaNodes(), a.t.numa, a.t.sockets)
	}
	return a.order(nil, a.t.sockets, &a.free)
}

func (a *taker) cores() []int {
	if a.t.numaFirst() {
		return a.below(a.sockets(), a.t.sockets, a.t.cores)
	}
	return a.below(a.numaNodes(), a.t.numa, a.t.cores)
}

// below orders the lower groups within each of the upper ones in turn. A lower
// one that lies in two of the upper ones comes twice, as in the kubelet.
func (a *taker) below(upper []int, uppers, lowers []cpuGroup) []int {
	var out []int
	for _, u := range upper {
		out = a.order(out, lowers, &uppers[u].set)
	}
	return out
}

// takeFull takes the groups of a list that are free and not more than needed.
// What is free is settled before the first is taken.
func (a *taker) takeFull(list []int, groups []cpuGroup, isFree func(size, free int) bool) {
	list = slices.DeleteFunc(list, func(i int) bool { return !isFree(groups[i].size, groups[i].set.shared(&a.free)) })
	for _, i := range list {
		if a.need >= groups[i].size {
			a.take(&groups[i])
		}
	}
}

func whole(size, free int) bool { return free == size }

func (a *taker) takeFullNUMANodes() { a.takeFull(a.numaNodes(), a.t.numa, whole) }

func (a *taker) takeFullSockets() {
	a.takeFull(a.sockets(), a.t.sockets, func(_, free int) bool { return free == a.t.perSocket })
}

func (a *taker) takeFullCores() {
	a.takeFull(a.cores(), a.t.cores, func(_, free int) bool { return free == a.t.perCore })
}

func (a *taker) orderedCaches() []int { return a.below(a.numaNodes(), a.t.numa, a.t.caches) }

// takeCaches is takeUncoreCache.
func (a *taker) takeCaches() {
	for _, cache := range a.orderedCaches() {
		if a.need >= a.t.perCache {
			a.takeFull(a.orderedCaches(), a.t.caches, whole)
		}
		if a.satisfied() {
			return
		}
		if a.takePartOf(cache); a.satisfied() {
			return
		}
	}
}

// takePartOf is takePartialUncore: the first cores of a cache, if they are just what is needed.
func (a *taker) takePartOf(cache int) {
	coresNeeded := (a.need + a.t.perCore - 1) / a.t.perCore
	var part cpuGroup
	here := a.free.and(&a.t.caches[cache].set)
	for i := range a.t.cores {
		if coresNeeded == 0 {
			break
		}
		if a.t.cores[i].set.intersects(&here) {
			part.set = part.set.or(&a.t.cores[i].set)
			coresNeeded--
		}
	}
	part.set = part.set.and(&a.free)
	part.size = part.set.size()
	if a.need%2 != 0 && a.t.perCore > 1 && part.size > a.need {
		part.dropLast()
	}
	if part.size == a.need {
		a.take(&part)
	}
}

func (g *cpuGroup) dropLast() {
	last := -1
	g.set.each(func(i int) bool { last = i; return true })
	g.set[last>>6] &^= 1 << (last & 63)
	g.size--
}

// takeThreads is takeRemainingCPUs.
func (a *taker) takeThreads() {
	list, groups := a.cores, a.t.cores
	if a.spread {
		list, groups = a.sockets, a.t.sockets
	}
	free := a.free
	for _, i := range list() {
		here := free.and(&groups[i].set)
		here.each(func(cpu int) bool {
			var one cpuGroup
			one.add(cpu)
			a.take(&one)
			return !a.satisfied()
		})
		if a.satisfied() {
			return
		}
	}
}
