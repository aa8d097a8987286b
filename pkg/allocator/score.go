package allocator

import (
	"slices"

	"github.com/numalane/numalane/pkg/topology"
)

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
	var f fate
	o := n.outcome(r, &f)
	if !o.Verdict.OK() {
		return 0
	}
	q := n.ask(r)
	var left float64
	for i := range o.Containers {
		d := &q.pod
		if o.Containers[i].Container != topology.WholePod {
			d = &q.containers[i].demand
		}
		left = max(left, o.After.leftover(d, &o.Containers[i]))
	}
	return int64(float64(most) / (1 + left))
}

// leftover is how often the demand fits again, resource by resource, on the
// NUMA nodes where it landed, or on the whole node when it is bound to none.
func (n *Node) leftover(d *demand, l *Landing) float64 {
	lane := n.landed(l)
	var left float64
	if n.static && d.cpus > 0 {
		near := n.cpu.inMask(lane)
		left = float64(n.room.cpus.shared(&near)) / float64(d.cpus)
	}
	for i := range d.devices {
		want := &d.devices[i]
		p := n.poolOf(want.name)
		if p == nil || want.count == 0 {
			continue
		}
		var free int64
		for j := range p.groups {
			if !p.aligned || p.groups[j].touches(lane) {
				free += n.room.counts[p.at+j]
			}
		}
		left = max(left, float64(free)/float64(want.count))
	}
	return left
}

// landed is the mask of the NUMA nodes that a container got anything on; all
// of them when it got nothing that is bound to one.
func (n *Node) landed(l *Landing) uint64 {
	var mask uint64
	cpus := n.cpu.bits(l.CPUs)
	for k := range n.numaIDs {
		if n.cpu.numa[k].set.intersects(&cpus) {
			mask |= 1 << k
		}
	}
	on := func(ids []int) {
		for _, id := range ids {
			if k, ok := slices.BinarySearch(n.numaIDs, id); ok {
				mask |= 1 << k
			}
		}
	}
	for i := range l.Devices {
		on(l.Devices[i].NUMANodes)
	}
	for i := range l.Memory {
		on(l.Memory[i].NUMANodes)
	}
	if mask == 0 {
		return n.everyNUMANode()
	}
	return mask
}
