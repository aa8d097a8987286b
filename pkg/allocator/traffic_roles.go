package allocator

import (
	"slices"
	"strconv"
)

// role is what a move is to the node.
type role uint8

const (
	forgotten role = iota // it is gone, and nobody who is on the way may have met it
	stands                // it is there, and was before all who are on the way
	arrives               // it may not have been there when another came
	leaves                // it may go, or be gone already
)

// relevance sorts the moves. Who has ended counts as long as there is a pod
// whose place is not known and that was promised the node before that end: the
// kubelet may have met either first. So does one that has ended and whose place
// was never known, if it came before.
func relevance(moves []Move) []role {
	roles := make([]role, len(moves))
	var earliest uint64 // promise to a pod whose place may still depend on others
	open := false
	unknown := func(i int) {
		if !open || moves[i].Bound < earliest {
			open, earliest = true, moves[i].Bound
		}
	}
	for i := range moves {
		if moves[i].Held == nil && moves[i].Gone == 0 {
			roles[i] = arrives
			unknown(i)
		}
	}
	for again := true; again; {
		again = false
		for i := range moves {
			if m := &moves[i]; m.Held == nil && m.Gone != 0 && roles[i] == forgotten && open && earliest < m.Gone {
				roles[i], again = arrives, true
				unknown(i)
			}
		}
	}
	for i := range moves {
		m := &moves[i]
		switch {
		case m.Held == nil:
		case m.Gone != 0 && !(open && earliest < m.Gone):
			roles[i] = forgotten
		case open && earliest < m.Settled:
			roles[i] = arrives
		case m.Gone != 0 || m.Leaving:
			roles[i] = leaves
		default:
			roles[i] = stands
		}
	}
	return roles
}

// evident notes of a pod that what it held is another's by now that it has gone,
// whether the API says so or not: the kubelet is the first to know.
func evident(moves []Move) []Move {
	type thing struct{ resource, id string }
	owner := map[thing]int{}
	moves = slices.Clone(moves)
	claim := func(i int, what thing) {
		j, taken := owner[what]
		if !taken || j == i {
			owner[what] = i
			return
		}
		first, then := &moves[j], &moves[i]
		if first.Settled > then.Settled {
			first, then = then, first
		} else {
			owner[what] = i
		}
		if first.Gone == 0 || first.Gone > then.Settled {
			first.Gone = then.Settled
		}
	}
	for i := range moves {
		if moves[i].Held == nil {
			continue
		}
		for _, c := range moves[i].Held.Containers {
			for _, set := range c.CPUs {
				for _, cpu := range set.UnsortedList() {
					claim(i, thing{"cpu", strconv.Itoa(cpu)})
				}
			}
			for _, d := range c.Devices {
				for _, id := range d.IDs {
					claim(i, thing{d.Resource, id})
				}
			}
		}
	}
	return moves
}
