package oracle

import (
	"fmt"
	"slices"

	"github.com/numalane/numalane/internal/sysfstest"
	"github.com/numalane/numalane/pkg/allocator"
)

// pools deals the VFs of all PFs out to one to three pools.
func (d dice) pools(nics []sysfstest.NIC) []Pool {
	if len(nics) == 0 {
		return nil
	}
	all := make([]Pool, 1+d.weighted(45, 38, 17))
	for i := range all {
		all[i] = Pool{
			Resource:         fmt.Sprintf("numalane.io/vf%d", i),
			AllocationPolicy: pick(d, allocator.PolicyPacked, allocator.PolicySpread, allocator.PolicyPaired),
			ExcludeTopology:  d.chance(10),
		}
	}
	for _, n := range nics {
		for first := 0; first < n.VFs; {
			last := n.VFs - 1
			if d.chance(50) {
				last = d.between(first, n.VFs-1)
			}
			p := &all[d.IntN(len(all))]
			p.RootDevices = append(p.RootDevices, fmt.Sprintf("%s#%d-%d", n.Address, first, last))
			first = last + 1
		}
	}
	// A pool without devices is not registered. It is there at times, for pods
	// to ask for: the API knows what is advertised, not what is configured.
	return slices.DeleteFunc(all, func(p Pool) bool { return len(p.RootDevices) == 0 && !d.chance(5) })
}

// foreign makes pools of other vendors, whose devices may be anywhere.
func (d dice) foreign(m *sysfstest.Machine) []ForeignPool {
	var ids []int
	for _, n := range m.NUMANodes {
		ids = append(ids, n.ID)
	}
	var all []ForeignPool
	for i := range d.weighted(50, 36, 14) {
		p := ForeignPool{Resource: fmt.Sprintf("vendor.example/dev%d", i), Prefers: d.chance(35)}
		kind := d.weighted(22, 40, 15, 17, 6)
		for j := range d.between(1, 6) {
			dev := ForeignDevice{ID: fmt.Sprintf("dev%d-%d", i, j)}
			switch {
			case kind == 0 || kind == 2 && d.chance(40):
			case kind == 3 && d.chance(60):
				dev.NUMANodes = some(d, ids, d.between(1, min(3, len(ids))))
			case kind == 4 && d.chance(50):
				dev.NUMANodes = []int{slices.Max(ids) + d.between(1, 3)}
			default:
				dev.NUMANodes = []int{ids[d.IntN(len(ids))]}
			}
			p.Devices = append(p.Devices, dev)
		}
		all = append(all, p)
	}
	return all
}
