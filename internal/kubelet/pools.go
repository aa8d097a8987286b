package kubelet

import (
	"maps"
	"slices"
	"strings"

	"github.com/numalane/numalane/pkg/topology"
)

// Pool is one of the plugin's own pools, as it advertises it.
type Pool struct {
	Resource         string
	AllocationPolicy string
	Devices          []Device
}

// Device is one device of a pool.
type Device struct {
	ID        string
	NUMANodes []int  // as advertised, ascending; empty: the kubelet is told none
	PF        string // PCI address of its PF
	PFName    string
	Upstream  []string // PCI bridges above its PF, the nearest first
	Speed     int      // Mbit/s of the PF
	Link      string   // of the PF: up, down
	Healthy   bool
}

type deviceKey struct{ resource, id string }

// deviceIndex finds the plugin's own devices.
type deviceIndex map[deviceKey]*Device

func indexDevices(pools []Pool) deviceIndex {
	index := deviceIndex{}
	for i := range pools {
		for j := range pools[i].Devices {
			d := &pools[i].Devices[j]
			index[deviceKey{pools[i].Resource, d.ID}] = d
		}
	}
	return index
}

// place is where a held device sits: as its pool says, or for a device of
// another plugin, or one that left its pool, as the kubelet noted it.
func (index deviceIndex) place(h HeldDevice) (numaNodes []int, pf string) {
	if d, ok := index[deviceKey{h.Resource, h.ID}]; ok {
		return d.NUMANodes, d.PF
	}
	return h.NUMANodes, ""
}

// pools are the plugin's own pools and those that the kubelet tells of other
// plugins. held are all devices that pods hold. A pool that the kubelet has never
// been told of is left out: to its admission there is no such resource.
func pools(own []Pool, allocatable []HeldDevice, held map[deviceKey]HeldDevice, registered []string) []topology.Pool {
	devices := map[string][]Device{}
	policy := map[string]string{}
	foreign := map[string]bool{}
	for i := range own {
		if len(own[i].Devices) > 0 {
			devices[own[i].Resource] = slices.Clone(own[i].Devices)
		}
		policy[own[i].Resource] = own[i].AllocationPolicy
	}
	for _, d := range allocatable {
		if _, ours := policy[d.Resource]; !ours {
			foreign[d.Resource] = true
			devices[d.Resource] = append(devices[d.Resource], Device{ID: d.ID, NUMANodes: d.NUMANodes, Healthy: true})
		}
	}
	// A resource without a healthy device is still one to the kubelet once it was
	// registered, or while pods hold of it (devicemanager isDevicePluginResource).
	registered = slices.Clip(registered)
	for key := range held {
		registered = append(registered, key.resource)
	}
	for _, resource := range registered {
		if _, ok := devices[resource]; !ok {
			_, ours := policy[resource]
			foreign[resource], devices[resource] = !ours, nil
		}
	}
	for resource, list := range devices {
		devices[resource] = append(list, stranded(resource, list, held)...)
	}
	var out []topology.Pool
	for _, resource := range slices.Sorted(maps.Keys(devices)) {
		out = append(out, topology.Pool{
			Resource:         resource,
			AllocationPolicy: policy[resource],
			Foreign:          foreign[resource],
			Groups:           groupsOf(resource, devices[resource], held),
		})
	}
	return out
}

// notElsewhere makes the devices unhealthy that pods hold under another resource,
// as after a change of configuration: so the plugin tells the kubelet
// (internal/plugin, snapshotOf), until the kubelet has taken them back.
func notElsewhere(own []Pool, noted map[string][]string) []Pool {
	out := slices.Clone(own)
	for i := range out {
		p := &out[i]
		copied := false
		for j := range p.Devices {
			if !slices.ContainsFunc(noted[p.Devices[j].ID], func(r string) bool { return r != p.Resource }) {
				continue
			}
			if !copied {
				p.Devices, copied = slices.Clone(p.Devices), true
			}
			p.Devices[j].Healthy = false
		}
	}
	return out
}

// stranded are the devices of a resource that pods hold and that its list does
// not have: they left their pool, or are unhealthy ones of another plugin. The
// kubelet counts them as held, so they count as there.
func stranded(resource string, list []Device, held map[deviceKey]HeldDevice) []Device {
	listed := make(map[string]bool, len(list))
	for i := range list {
		listed[list[i].ID] = true
	}
	var out []Device
	for key, h := range held {
		if key.resource == resource && !listed[key.id] {
			out = append(out, Device{ID: h.ID, NUMANodes: h.NUMANodes})
		}
	}
	return out
}

func groupsOf(resource string, devices []Device, held map[deviceKey]HeldDevice) []topology.Group {
	slices.SortFunc(devices, func(a, b Device) int {
		if c := slices.Compare(a.NUMANodes, b.NUMANodes); c != 0 {
			return c
		}
		if c := strings.Compare(a.PF, b.PF); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	groups := []topology.Group{}
	for i := range devices {
		d := &devices[i]
		if n := len(groups); n == 0 || groups[n-1].PF != d.PF || !slices.Equal(groups[n-1].NUMANodes, d.NUMANodes) {
			groups = append(groups, topology.Group{NUMANodes: d.NUMANodes, PF: d.PF, PFName: d.PFName, Upstream: d.Upstream, Speed: d.Speed, Link: d.Link})
		}
		g := &groups[len(groups)-1]
		g.Total++
		if !d.Healthy {
			g.Unhealthy = append(g.Unhealthy, d.ID)
			continue
		}
		g.Healthy++
		if _, taken := held[deviceKey{resource, d.ID}]; !taken {
			g.Free++
		}
	}
	return groups
}
