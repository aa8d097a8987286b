package kubelet

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// HeldDevice is one device that a container holds.
type HeldDevice struct {
	PodUID, Container, Resource, ID string
	// NUMANodes are those that the device had when it was allocated, ascending.
	NUMANodes []int
}

// DeviceState is a kubelet's kubelet_internal_checkpoint.
type DeviceState struct {
	Held []HeldDevice // by pod UID, container, resource, id
	// Registered are the resources that the kubelet knows, those without a
	// healthy device too.
	Registered []string
	// Healthy are their healthy devices by resource, ascending.
	Healthy map[string][]string
	// Unknown names fields that this version does not understand.
	Unknown []string
}

// checkpointFile: devicemanager/checkpoint, Data. It has been of this format
// since Kubernetes 1.20.
type checkpointFile struct {
	Data *struct {
		PodDeviceEntries []struct {
			PodUID        string
			ContainerName string
			ResourceName  string
			DeviceIDs     map[int64][]string // by NUMA id, a device once for each of its nodes
			AllocResp     []byte             // a ContainerAllocateResponse of the device plugin API
		}
		RegisteredDevices map[string][]string // the healthy ones
	}
	Checksum uint64
}

// ParseDeviceState reads kubelet_internal_checkpoint.
func ParseDeviceState(b []byte) (DeviceState, error) {
	var f checkpointFile
	unknown, err := decode(b, &f)
	if err != nil {
		return DeviceState{}, fmt.Errorf("decode kubelet_internal_checkpoint: %w", err)
	}
	if f.Data == nil {
		return DeviceState{}, errors.New("decode kubelet_internal_checkpoint: no Data: the format is unknown")
	}
	for _, ids := range f.Data.RegisteredDevices {
		slices.Sort(ids) // the kubelet writes them in any order
	}
	s := DeviceState{Unknown: unknown, Registered: slices.Sorted(maps.Keys(f.Data.RegisteredDevices)), Healthy: f.Data.RegisteredDevices}
	for _, e := range f.Data.PodDeviceEntries {
		for _, node := range slices.Sorted(maps.Keys(e.DeviceIDs)) {
			for _, id := range e.DeviceIDs[node] {
				d := HeldDevice{PodUID: e.PodUID, Container: e.ContainerName, Resource: e.ResourceName, ID: id}
				if node >= 0 { // -1 is devicemanager nodeWithoutTopology
					d.NUMANodes = []int{int(node)}
				}
				s.Held = append(s.Held, d)
			}
		}
	}
	s.Held = mergeDevices(s.Held)
	return s, nil
}

// ParseGivenNodes reads of kubelet_internal_checkpoint which device nodes of the
// host a container was given with each device that it holds, by device id: those
// of one answer are of all its devices. The kubelet gives them again whenever it
// starts the container anew (devicemanager deviceRunContainerOptions).
func ParseGivenNodes(b []byte) (map[string][]string, error) {
	var f checkpointFile
	if _, err := decode(b, &f); err != nil {
		return nil, fmt.Errorf("decode kubelet_internal_checkpoint: %w", err)
	}
	given := map[string][]string{}
	if f.Data == nil {
		return given, nil
	}
	for _, e := range f.Data.PodDeviceEntries {
		var answer pluginapi.ContainerAllocateResponse
		if err := proto.Unmarshal(e.AllocResp, &answer); err != nil {
			return nil, fmt.Errorf("decode what container %s of pod %s was given with %s: %w", e.ContainerName, e.PodUID, e.ResourceName, err)
		}
		for _, ids := range e.DeviceIDs {
			for _, id := range ids {
				for _, n := range answer.Devices {
					given[id] = append(given[id], n.HostPath)
				}
			}
		}
	}
	for id, nodes := range given {
		slices.Sort(nodes)
		given[id] = slices.Compact(nodes)
	}
	return given, nil
}

// mergeDevices sorts devices and makes one of those that are listed once for
// each of their NUMA nodes.
func mergeDevices(ds []HeldDevice) []HeldDevice {
	slices.SortStableFunc(ds, HeldDevice.compare)
	merged := ds[:0]
	for _, d := range ds {
		if n := len(merged); n > 0 && merged[n-1].compare(d) == 0 {
			nodes := append(merged[n-1].NUMANodes, d.NUMANodes...)
			slices.Sort(nodes)
			merged[n-1].NUMANodes = slices.Compact(nodes)
			continue
		}
		merged = append(merged, d)
	}
	return merged
}

func (d HeldDevice) compare(o HeldDevice) int {
	return cmp.Or(strings.Compare(d.PodUID, o.PodUID), strings.Compare(d.Container, o.Container),
		strings.Compare(d.Resource, o.Resource), strings.Compare(d.ID, o.ID))
}
