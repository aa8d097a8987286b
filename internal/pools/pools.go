// Package pools says what an assignment of devices to pools is to others.
//
// In flow the pools of internal/config, of one scan. Out flow the same as the
// kubelet shall see them, for internal/plugin, and as the cluster shall, for
// internal/kubelet and the annotations.
package pools

import (
	"github.com/numalane/numalane/internal/config"
	"github.com/numalane/numalane/internal/kubelet"
	"github.com/numalane/numalane/internal/plugin"
	"github.com/numalane/numalane/pkg/allocator"
	"github.com/numalane/numalane/pkg/topology"
)

// Advertised are the pools as the kubelet shall see them.
func Advertised(assigned []config.AssignedPool, host *topology.Host) []plugin.Pool {
	told := make(map[int]map[int]int, len(host.NUMANodes))
	for i := range host.NUMANodes {
		told[host.NUMANodes[i].ID] = host.NUMANodes[i].Distances
	}
	distances, bridges := allocator.NewDistances(told), bridgesOf(host)
	pools := make([]plugin.Pool, len(assigned))
	for i, a := range assigned {
		pools[i] = plugin.Pool{
			Resource: a.Pool.Resource, Policy: a.Pool.AllocationPolicy, Distances: distances, ExcludeTopology: a.Pool.ExcludeTopology,
		}
		for _, d := range a.Devices {
			healthy, problem := health(&d.Device)
			pools[i].Devices = append(pools[i].Devices, plugin.Device{
				ID: d.Address.String(), NUMANodes: numaNodes(&d.Device), PF: pfAddress(&d.Device), Upstream: bridges.above(&d.Device),
				Driver: d.Driver, IOMMUGroup: d.IOMMUGroup,
				Healthy: healthy, Problem: problem,
			})
		}
	}
	return pools
}

// Published are the same pools as the extender and people shall see them.
func Published(assigned []config.AssignedPool, host *topology.Host) []kubelet.Pool {
	links := map[topology.Address]topology.Netdev{}
	for i := range host.Devices {
		if d := &host.Devices[i]; len(d.Netdevs) > 0 {
			links[d.Address] = d.Netdevs[0]
		}
	}
	bridges := bridgesOf(host)
	pools := make([]kubelet.Pool, len(assigned))
	for i, a := range assigned {
		pools[i] = kubelet.Pool{Resource: a.Pool.Resource, AllocationPolicy: string(a.Pool.AllocationPolicy)}
		for _, d := range a.Devices {
			healthy, _ := health(&d.Device)
			out := kubelet.Device{ID: d.Address.String(), PF: pfAddress(&d.Device), Healthy: healthy}
			if !a.Pool.ExcludeTopology {
				out.NUMANodes = numaNodes(&d.Device)
			}
			if out.PF != "" {
				out.Upstream = bridges.above(&d.Device)
			}
			if d.VF != nil {
				out.PFName = d.VF.PFName
				if link, ok := links[d.VF.PF]; ok {
					out.Speed, out.Link = link.Speed, state(link.Up)
				}
			}
			pools[i].Devices = append(pools[i].Devices, out)
		}
	}
	return pools
}

// health is that the device could be read and has a driver. That its netdev is
// gone says nothing: an allocated VF's has moved into its pod.
func health(d *topology.Device) (healthy bool, problem string) {
	switch {
	case d.Problem != "":
		return false, d.Problem
	case d.Driver == "":
		return false, "no driver is bound to it"
	}
	return true, ""
}

func numaNodes(d *topology.Device) []int {
	if d.NUMANode == topology.NoNUMANode {
		return nil
	}
	return []int{d.NUMANode}
}

func pfAddress(d *topology.Device) string {
	if d.VF == nil {
		return ""
	}
	return d.VF.PF.String()
}

// bridges are those above each PF. Both sides go by them rather than by what
// each VF says, which may be read while the VF comes or goes: the kubelet is
// given what the cluster foretells.
type bridges map[topology.Address][]topology.Address

func bridgesOf(host *topology.Host) bridges {
	b := bridges{}
	for i := range host.Devices {
		if d := &host.Devices[i]; d.PF != nil {
			b[d.Address] = d.Upstream
		}
	}
	return b
}

func (b bridges) above(d *topology.Device) []string {
	upstream := d.Upstream
	if d.VF != nil {
		upstream = b[d.VF.PF]
	}
	var all []string
	for _, a := range upstream {
		all = append(all, a.String())
	}
	return all
}

func state(up bool) string {
	if up {
		return "up"
	}
	return "down"
}
