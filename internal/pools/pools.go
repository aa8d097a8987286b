// Package pools says what an assignment of devices to pools is to others.
//
// In flow the pools of internal/config, of one scan, and which of their devices
// are unhealthy for a reason that the scan alone does not tell. Out flow the same as the
// kubelet shall see them, for internal/plugin, and as the cluster shall, for
// internal/kubelet and the annotations.
package pools

import (
	"github.com/numalane/numalane/internal/config"
	"github.com/numalane/numalane/internal/kubelet"
	"github.com/numalane/numalane/internal/plugin"
	"github.com/numalane/numalane/pkg/topology"
)

// Advertised are the pools as the kubelet shall see them. unhealthy has reasons
// by device id.
func Advertised(assigned []config.AssignedPool, unhealthy map[string]string) []plugin.Pool {
	pools := make([]plugin.Pool, len(assigned))
	for i, a := range assigned {
		pools[i] = plugin.Pool{Resource: a.Pool.Resource, Policy: a.Pool.AllocationPolicy, ExcludeTopology: a.Pool.ExcludeTopology}
		for _, d := range a.Devices {
			healthy, problem := health(&d.Device, unhealthy)
			pools[i].Devices = append(pools[i].Devices, plugin.Device{
				ID: d.Address.String(), NUMANodes: numaNodes(&d.Device), PF: pfAddress(&d.Device), Driver: d.Driver, IOMMUGroup: d.IOMMUGroup,
				Healthy: healthy, Problem: problem,
			})
		}
	}
	return pools
}

// Published are the same pools as the extender and people shall see them.
func Published(assigned []config.AssignedPool, unhealthy map[string]string, host *topology.Host) []kubelet.Pool {
	links := map[topology.Address]topology.Netdev{}
	for i := range host.Devices {
		if d := &host.Devices[i]; len(d.Netdevs) > 0 {
			links[d.Address] = d.Netdevs[0]
		}
	}
	pools := make([]kubelet.Pool, len(assigned))
	for i, a := range assigned {
		pools[i] = kubelet.Pool{Resource: a.Pool.Resource, AllocationPolicy: string(a.Pool.AllocationPolicy)}
		for _, d := range a.Devices {
			healthy, _ := health(&d.Device, unhealthy)
			out := kubelet.Device{ID: d.Address.String(), PF: pfAddress(&d.Device), Healthy: healthy}
			if !a.Pool.ExcludeTopology {
				out.NUMANodes = numaNodes(&d.Device)
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

// health is that the device could be read, has a driver, and nothing else is
// said against it. That its netdev is gone says nothing: an allocated VF's has
// moved into its pod.
func health(d *topology.Device, unhealthy map[string]string) (healthy bool, problem string) {
	switch {
	case d.Problem != "":
		return false, d.Problem
	case d.Driver == "":
		return false, "no driver is bound to it"
	}
	problem = unhealthy[d.ID()]
	return problem == "", problem
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

func state(up bool) string {
	if up {
		return "up"
	}
	return "down"
}
