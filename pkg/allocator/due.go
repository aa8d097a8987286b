package allocator

import (
	"slices"

	"github.com/numalane/numalane/pkg/topology"
)

// Due is what a container is due on one node.
type Due struct {
	Container string // or topology.WholePod
	// Ends marks a regular init container: what it held passes to those after
	// it, so that the kubelet may list it with less memory, or none.
	Ends    bool
	CPUs    int64            // exclusive ones
	Devices map[string]int64 // by resource
	Memory  map[string]int64 // bytes, by type
}

// Due are the containers of an admitted pod that hold something on the node. A
// container that is due nothing there is not among them: its node will say
// nothing about it, so there is nothing to wait for.
func (r *Request) Due(t *topology.NodeTopology, p *topology.NodePools) []Due {
	k := &t.Kubelet
	claims := k.Minor >= minorDRAClaims && slices.Contains(k.FeatureGates, gateDRAExtendedResource)
	due := func(name string, d *demand, ends, devices bool) Due {
		out := Due{Container: name, Ends: ends, Devices: map[string]int64{}, Memory: map[string]int64{}}
		if k.CPUPolicy == topology.CPUManagerStatic {
			out.CPUs = d.cpus
		}
		if k.MemoryPolicy == topology.MemoryManagerStatic {
			for _, m := range d.memory {
				out.Memory[m.name] = m.count
			}
		}
		for _, want := range d.devices {
			served := claims && want.claimed
			if devices && want.count > 0 && !served && slices.ContainsFunc(p.Pools, func(p topology.Pool) bool { return p.Resource == want.name }) {
				out.Devices[want.name] = want.count
			}
		}
		return out
	}
	q := &r.plain
	if slices.Contains(k.FeatureGates, gatePodLevelManagers) {
		q = &r.managed
	}
	var all []Due
	if q.asWhole && k.TopologyScope == topology.ScopePod && k.TopologyPolicy != topology.PolicyNone {
		// One allocation for the whole pod, and no devices (devicemanager AllocatePod).
		all = append(all, due(topology.WholePod, &q.pod, false, false))
	} else {
		for i := range q.containers {
			c := &q.containers[i]
			all = append(all, due(c.name, &c.demand, c.kind == initial, true))
		}
	}
	return slices.DeleteFunc(all, func(d Due) bool { return d.CPUs == 0 && len(d.Devices) == 0 && len(d.Memory) == 0 })
}
