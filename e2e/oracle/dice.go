package oracle

import "math/rand/v2"

// dice are a scenario's choices.
type dice struct{ *rand.Rand }

func newDice(seed, stream uint64) dice { return dice{rand.New(rand.NewPCG(seed, stream))} }

// chance is true so many times of a hundred.
func (d dice) chance(percent int) bool { return d.IntN(100) < percent }

// between is a number from lo to hi, which counts.
func (d dice) between(lo, hi int) int {
	if hi <= lo {
		return lo
	}
	return lo + d.IntN(hi-lo+1)
}

// weighted is an index, each as likely as its weight.
func (d dice) weighted(weights ...int) int {
	sum := 0
	for _, w := range weights {
		sum += w
	}
	at := d.IntN(sum)
	for i, w := range weights {
		if at -= w; at < 0 {
			return i
		}
	}
	return len(weights) - 1
}

func pick[T any](d dice, list ...T) T { return list[d.IntN(len(list))] }

// some are a few of a list, in its order.
func some[T any](d dice, list []T, count int) []T {
	chosen := make(map[int]bool, count)
	for _, i := range d.Perm(len(list))[:min(count, len(list))] {
		chosen[i] = true
	}
	var out []T
	for i, v := range list {
		if chosen[i] {
			out = append(out, v)
		}
	}
	return out
}
