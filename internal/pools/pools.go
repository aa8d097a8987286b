// Package pools says what an assignment of devices to pools is to others.
//
// In flow the pools of internal/config, of one scan, and which of their devices
// are unhealthy for a reason that the scan alone does not tell. Out flow the
// same as the kubelet shall see them, for internal/plugin, and as the cluster
// shall, for internal/kubelet and the annotations.
package pools

import (
	"github.com/numalane/numalane/internal/config"
	"github.com/numalane/numalane/internal/handout"
	"github.com/numalane/numalane/internal/kubelet"
	"github.com/numalane/numalane/internal/plugin"
	"github.com/numalane/numalane/pkg/allocator"
	"github.com/numalane/numalane/pkg/topology"
)

// Advertised are the pools as the kubelet shall see them. Unhealthy is what
// others know to be wrong with devices, by device id.
func Advertised(assigned []config.AssignedPool, host *topology.Host, unhealthy map[string]string) []plugin.Pool {
	told := make(map[int]map[int]int, len(host.NUMANodes))
	for i := range host.NUMANodes {
		told[host.NUMANodes[i].ID] = host.NUMANodes[i].Distances
	}
	distances, bridges := allocator.NewDistances(told), bridgesOf(host)
	pools := make([]plugin.Pool, len(assigned))
	for i, a := range assigned {
		pools[i] = plugin.Pool{
			Resource: a.Pool.Resource, Policy: a.Pool.AllocationPolicy, Distances: distances, DeviceType: a.Pool.DeviceType,
			ExcludeTopology: a.Pool.ExcludeTopology,
		}
		for _, d := range a.Devices {
			out := plugin.Device{
				ID: d.ID(), NUMANodes: numaNodes(&d.Device), PF: pfAddress(&d.Device), Upstream: bridges.above(&d.Device),
				Handout: handout.Of(&d, a.Pool, host),
			}
			out.Problem = problem(&d.Device, &out.Handout, unhealthy)
			out.Healthy = out.Problem == ""
			pools[i].Devices = append(pools[i].Devices, out)
		}
	}
	return pools
}

// Published are the same pools as the extender and people shall see them.
func Published(assigned []config.AssignedPool, host *topology.Host, unhealthy map[string]string) []kubelet.Pool {
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
			h := handout.Of(&d, a.Pool, host)
			out := kubelet.Device{ID: d.ID(), PF: pfAddress(&d.Device), Healthy: problem(&d.Device, &h, unhealthy) == ""}
			if !a.Pool.ExcludeTopology {
				out.NUMANodes = numaNodes(&d.Device)
			}
			if pf, ok := pfOf(&d.Device); ok {
				out.Upstream = bridges.above(&d.Device)
				link, known := links[pf]
				out.PFName = link.Name
				if d.VF != nil {
					out.PFName = d.VF.PFName
				}
				if known {
					out.Speed, out.Link = link.Speed, state(link.Up)
				}
			}
			pools[i].Devices = append(pools[i].Devices, out)
		}
	}
	return pools
}

// problem is that the device could not be read, has no driver, can never be
// handed to a pod whole, or what others know to be wrong with it. That its
// netdev or RDMA device is gone says nothing: an allocated VF's have moved into
// its pod.
func problem(d *topology.Device, h *handout.Handout, unhealthy map[string]string) string {
	switch {
	case d.Problem != "":
		return d.Problem
	case d.Driver == "":
		return "no driver is bound to it"
	case h.Withheld != "" && !h.Away:
		return h.Withheld
	}
	return unhealthy[d.ID()]
}

func numaNodes(d *topology.Device) []int {
	if d.NUMANode == topology.NoNUMANode {
		return nil
	}
	return []int{d.NUMANode}
}

// pfOf is the PF that a device shares with others: of a subfunction its PCI
// parent, or the PF of that.
func pfOf(d *topology.Device) (topology.Address, bool) {
	switch {
	case d.VF != nil:
		return d.VF.PF, true
	case d.Aux != nil:
		return d.Address, true
	}
	return topology.Address{}, false
}

func pfAddress(d *topology.Device) string {
	if pf, ok := pfOf(d); ok {
		return pf.String()
	}
	return ""
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
	if pf, ok := pfOf(d); ok {
		upstream = b[pf]
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
