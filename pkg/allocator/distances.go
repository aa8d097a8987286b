package allocator

import (
	"maps"
	"slices"
)

// Distances are how far a machine's NUMA nodes are from each other, as its SLIT
// tells. They are not changed once made. The zero value knows of none.
type Distances struct {
	ids  []int // ascending
	rows []int // there and back: NUMA node by NUMA node
}

// unknownDistance is farther than all that a SLIT can tell, which has a byte
// for each way.
const unknownDistance = 1 << 10

// NewDistances reads each NUMA node's distances to all by their ids. A machine
// that tells them in part is taken like one that tells none: what is not known
// is neither near nor far.
func NewDistances(told map[int]map[int]int) Distances {
	d := Distances{ids: slices.Sorted(maps.Keys(told))}
	for _, a := range d.ids {
		for _, b := range d.ids {
			there, ok := told[a][b]
			back, also := told[b][a]
			if !ok || !also {
				return Distances{}
			}
			d.rows = append(d.rows, there+back)
		}
	}
	return d
}

// between is the way from one NUMA node to another and back. A NUMA node that
// the machine does not have is far from all others.
func (d *Distances) between(a, b int) int64 {
	if len(d.ids) == 0 {
		return 0
	}
	i, ok := slices.BinarySearch(d.ids, a)
	j, also := slices.BinarySearch(d.ids, b)
	if !ok || !also {
		return unknownDistance
	}
	return int64(d.rows[i*len(d.ids)+j])
}
