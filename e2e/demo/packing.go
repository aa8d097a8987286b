package demo

import "slices"

// Lane is one NUMA node of one machine: what a pod must find together.
type Lane struct {
	Node string
	NUMA int
	CPUs int // exclusive ones that the kubelet may give away
	VFs  int
}

// Shape is a kind of pod.
type Shape struct {
	Name string
	CPUs int
	VFs  int
}

// Most finds, by exhaustive search, how many pods of the shapes in turn (the
// first, the second, the first, …) any placement at all could align: of every
// lane all mixes that fit, combined with all mixes of all other lanes. It
// returns that number and how many mixes it looked at.
func Most(lanes []Lane, shapes []Shape) (pods, looked int) {
	reached := map[string][]int{"": make([]int, len(shapes))}
	for _, lane := range lanes {
		next := map[string][]int{}
		for _, have := range reached {
			mixes(lane.CPUs, lane.VFs, shapes, nil, func(mix []int) {
				looked++
				sum := slices.Clone(have)
				for i, n := range mix {
					sum[i] += n
				}
				next[key(sum)] = sum
			})
		}
		reached = next
	}
	for _, have := range reached {
		pods = max(pods, inTurn(have))
	}
	return pods, looked
}

// mixes calls yield with every count of each shape that fits together.
func mixes(cpus, vfs int, shapes []Shape, chosen []int, yield func([]int)) {
	if len(shapes) == 0 {
		yield(chosen)
		return
	}
	s := shapes[0]
	for n := 0; n*s.CPUs <= cpus && n*s.VFs <= vfs; n++ {
		mixes(cpus-n*s.CPUs, vfs-n*s.VFs, shapes[1:], append(slices.Clip(chosen), n), yield)
	}
}

// inTurn is the longest run of shapes in turn out of so many of each.
func inTurn(have []int) int {
	n := 0
	for n < 1<<20 && have[n%len(have)] > n/len(have) {
		n++
	}
	return n
}

func key(counts []int) string {
	b := make([]byte, 0, 2*len(counts))
	for _, c := range counts {
		b = append(b, byte(c), byte(c>>8))
	}
	return string(b)
}
