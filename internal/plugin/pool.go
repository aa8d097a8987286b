package plugin

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"

	"github.com/numalane/numalane/internal/cdi"
	"github.com/numalane/numalane/internal/config"
	"github.com/numalane/numalane/internal/handout"
	"github.com/numalane/numalane/pkg/allocator"
)

// Device is one device of a pool. It is not changed once handed over.
type Device struct {
	ID        string   // PCI address or name: what the kubelet and the pod see
	NUMANodes []int    // empty: the device does not say where it sits
	PF        string   // PCI address of its PF; empty: none
	Upstream  []string // PCI bridges above it, the nearest first
	Healthy   bool
	Problem   string          // why it is not healthy, for logs and errors
	Handout   handout.Handout // what a container gets with it
}

// Pool is a resource and its devices. It is not changed once handed over.
type Pool struct {
	Resource        string // prefix and name: intel.com/sriov
	Policy          allocator.Policy
	Distances       allocator.Distances // of the machine's NUMA nodes
	DeviceType      config.DeviceType
	ExcludeTopology bool // tell the kubelet no NUMA nodes
	Devices         []Device
}

// snapshot is a pool as the kubelet shall see it.
type snapshot struct {
	resource string
	policy   allocator.Policy
	between  allocator.Distances
	kind     string // of its devices, with CDI
	// advertise is whether the kubelet shall know the resource at all: from
	// its first device on, until the pool leaves the configuration and the
	// last of its devices is free. Empty in between is allocatable 0.
	advertise bool
	exclude   bool // NUMA nodes are not told
	devices   map[string]Device
	list      *pluginapi.ListAndWatchResponse // by ID
	healthy   int
}

// holders tells by device id which resources pods hold it under.
type holders map[string][]string

func holdersOf(held map[string][]string) holders {
	h := holders{}
	for _, resource := range slices.Sorted(maps.Keys(held)) {
		for _, id := range held[resource] {
			h[id] = append(h[id], resource)
		}
	}
	return h
}

// other is a resource other than the given one that the device is held under.
func (h holders) other(id, resource string) (string, bool) {
	for _, r := range h[id] {
		if r != resource {
			return r, true
		}
	}
	return "", false
}

// snapshotOf turns a pool into what the kubelet shall see of it.
//
// A device that left the pool while a pod holds it stays listed, as Unhealthy:
// the kubelet takes one that is missing for healthy (devicemanager
// UpdateAllocatedResourcesStatus) and shrinks the node's capacity. A device
// that a pod holds under another resource, as after a change of configuration,
// is Unhealthy here until it is free, or two pods would get it.
func snapshotOf(p Pool, configured bool, h holders, prev *snapshot) *snapshot {
	s := &snapshot{
		resource: p.Resource, policy: p.Policy, between: p.Distances, kind: cdi.Kind(p.Resource, p.DeviceType), exclude: p.ExcludeTopology,
		devices: make(map[string]Device, len(p.Devices)),
	}
	for _, d := range p.Devices {
		if r, held := h.other(d.ID, p.Resource); held {
			d.Healthy = false
			d.Problem = "a pod holds it as " + r
		}
		s.devices[d.ID] = d
	}
	for id, resources := range h {
		if _, listed := s.devices[id]; listed || !slices.Contains(resources, p.Resource) {
			continue
		}
		d, known := prev.devices[id]
		if !known {
			d = Device{ID: id}
		}
		d.Healthy = false
		d.Problem = "it has left the pool while a pod holds it"
		s.devices[id] = d
	}
	s.advertise = len(s.devices) > 0 || configured && prev.advertise

	s.list = &pluginapi.ListAndWatchResponse{}
	for _, id := range slices.Sorted(maps.Keys(s.devices)) {
		d := s.devices[id]
		health := pluginapi.Unhealthy
		if d.Healthy {
			health = pluginapi.Healthy
			s.healthy++
		}
		s.list.Devices = append(s.list.Devices, &pluginapi.Device{ID: id, Health: health, Topology: topologyOf(s.numaNodes(&d))})
	}
	return s
}

// numaNodes are those that the kubelet is told of a device.
func (s *snapshot) numaNodes(d *Device) []int {
	if s.exclude {
		return nil
	}
	return d.NUMANodes
}

// topologyOf is nil for a device that does not say where it sits: -1 is the
// kubelet's own marker (devicemanager nodeWithoutTopology) and never sent.
func topologyOf(numaNodes []int) *pluginapi.TopologyInfo {
	if len(numaNodes) == 0 {
		return nil
	}
	t := &pluginapi.TopologyInfo{}
	for _, n := range slices.Sorted(slices.Values(numaNodes)) {
		t.Nodes = append(t.Nodes, &pluginapi.NUMANode{ID: int64(n)})
	}
	return t
}

// problems counts the unhealthy devices by what is wrong with them.
func (s *snapshot) problems() map[string]int {
	n := map[string]int{}
	for _, d := range s.devices {
		if !d.Healthy {
			n[d.problem()]++
		}
	}
	return n
}

// unaligned are the ids of a pool's devices that the kubelet will never count
// when it aligns: those without topology, where others have it.
func unaligned(p Pool) []string {
	if p.ExcludeTopology {
		return nil
	}
	var without []string
	for _, d := range p.Devices {
		if len(d.NUMANodes) == 0 {
			without = append(without, d.ID)
		}
	}
	if len(without) == len(p.Devices) {
		return nil
	}
	slices.Sort(without)
	return without
}

// maxDeviceID is the limit that the API's comment on Device.ID gives.
const maxDeviceID = 63

// validate names every contradiction in a set of pools.
func validate(pools []Pool) error {
	var errs []error
	seen := map[string]bool{}
	poolOf := map[string]string{}
	for _, p := range pools {
		if prefix, name, ok := strings.Cut(p.Resource, "/"); !ok || prefix == "" || name == "" {
			errs = append(errs, fmt.Errorf("pool %q: want a resource of the form prefix/name", p.Resource))
		}
		if seen[p.Resource] {
			errs = append(errs, fmt.Errorf("pool %s is given twice", p.Resource))
		}
		seen[p.Resource] = true
		for _, d := range p.Devices {
			if d.ID == "" || len(d.ID) > maxDeviceID {
				errs = append(errs, fmt.Errorf("pool %s: device id %q: want 1 to %d characters", p.Resource, d.ID, maxDeviceID))
			}
			if other, taken := poolOf[d.ID]; taken {
				errs = append(errs, fmt.Errorf("device %s is given twice, in pools %s and %s", d.ID, other, p.Resource))
			}
			poolOf[d.ID] = p.Resource
			if slices.ContainsFunc(d.NUMANodes, func(n int) bool { return n < 0 }) {
				errs = append(errs, fmt.Errorf("pool %s: device %s: NUMA nodes %v, want none for an unknown one", p.Resource, d.ID, d.NUMANodes))
			}
		}
	}
	return errors.Join(errs...)
}
