package allocator

import "slices"

// Score says how useful the room is that is left when the pod goes to this
// node, from 0 to most; higher is better, and 0 is for a node that refuses it.
//
// A pod is best put where it leaves least behind: into the NUMA node that it
// comes nearest to filling in every resource at once. Large holes then stay
// whole for large pods, a pod of many CPUs goes where few VFs are left, and one
// of many VFs where few CPUs are. What is left is measured in pods of the same
// shape, by the resource of which most remains; of several containers the one
// that leaves most counts.
func (n *Node) Score(r *Request, most int64) int64 {
	a := admission{node: n, free: slices.Clone(n.free), reuse: make(room, len(n.free))}
	lands := make([]int, len(r.containers))
	if _, refused := a.run(r, lands); refused {
		return 0
	}
	var left float64
	for i := range r.containers {
		left = max(left, a.leftover(&r.containers[i].demand, lands[i]))
	}
	return int64(float64(most) / (1 + left))
}

// leftover is how often the demand fits again, resource by resource, where it
// landed: in its lane, or on the whole node when it is bound to none.
func (a *admission) leftover(d *demand, lane int) float64 {
	n := a.node
	var left float64
	if n.cpus && d.cpus > 0 {
		free := sum(a.free[:len(n.numaIDs)])
		if lane != anywhere {
			free = a.free[lane]
		}
		left = float64(free) / float64(d.cpus)
	}
	for i := range d.devices {
		want := &d.devices[i]
		p := n.poolOf(want.name)
		if p == nil || want.count == 0 {
			continue
		}
		var free int64
		for j := range p.groups {
			if lane == anywhere || !p.aligned || p.groups[j].touches(1<<lane) {
				free += a.free[p.at+j]
			}
		}
		left = max(left, float64(free)/float64(want.count))
	}
	return left
}
