package allocator

// Score says how useful the room is that the pod leaves on the node, from 0 to
// most; higher is better. Of two nodes that both admit a pod, the better one is
// that on which it breaks up less room for pods to come.
//
// Useful is what CPUs and devices of one NUMA node can serve together: CPUs
// beside no free VF are of no use to a pod that needs both, nor the other way
// round. So a pod of many CPUs is best put where VFs have run out, and one
// of many VFs where CPUs have. Where that is equal the fuller node is better:
// the large holes stay for the large pods.
func (n *Node) Score(r *Request, most int64) int64 {
	a := admission{node: n, free: append(room(nil), n.free...), reuse: make(room, len(n.free))}
	if _, refused := a.run(r, nil); refused {
		return 0
	}
	before, after := n.useful(n.free), n.useful(a.free)
	all := n.useful(n.empty)
	if all <= 0 {
		return most / 2
	}
	lost := (before - after) / all // of the node's useful room, what this pod uses up
	left := after / all
	const tie = 1.0 / 16 // fullness decides only among about equal losses
	s := 1 - (lost+tie*left)/(1+tie)
	return max(0, min(most, int64(s*float64(most))))
}

// useful adds up, over NUMA nodes and pools with topology, the CPUs that have
// devices beside them, a device being worth as many CPUs as the whole node has
// for each. Without such a pool it is the CPUs.
func (n *Node) useful(r room) float64 {
	numa := len(n.numaIDs)
	cpus := float64(sum(n.empty[:numa]))
	var total float64
	pools := 0
	for i := range n.pools {
		p := &n.pools[i]
		devices := float64(sum(n.empty[p.at : p.at+len(p.groups)]))
		if !p.aligned || devices == 0 || cpus == 0 {
			continue
		}
		pools++
		for k := range numa {
			var here int64
			for j := range p.groups {
				if p.groups[j].touches(1 << k) {
					here += r[p.at+j]
				}
			}
			total += min(float64(r[k]), float64(here)*cpus/devices)
		}
	}
	if pools == 0 {
		return float64(sum(r[:numa]))
	}
	return total
}
