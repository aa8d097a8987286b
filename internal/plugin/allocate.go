package plugin

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

const (
	vfioDriver  = "vfio-pci"
	vfioControl = "/dev/vfio/vfio"
	vfioFolder  = "/dev/vfio/"
)

// allocation is the answer to one container. The kubelet keeps it in its
// checkpoint and uses it again for every restart of the container, so it holds
// nothing but what lives as long as the device's binding.
func (s *snapshot) allocation(ids []string) (*pluginapi.ContainerAllocateResponse, error) {
	ids = slices.Compact(slices.Sorted(slices.Values(ids)))
	info := make(map[string]map[string]map[string]string, len(ids))
	var specs deviceSpecs
	for _, id := range ids {
		d, known := s.devices[id]
		if !known {
			return nil, status.Errorf(codes.NotFound,
				"device %s is not in pool %s: create the pod again, and if that repeats look for the device in 'numalane-plugin inspect'", id, s.resource)
		}
		if !d.Healthy {
			return nil, status.Errorf(codes.FailedPrecondition,
				"device %s of pool %s is unhealthy (%s): create the pod again to get another one", id, s.resource, d.problem())
		}
		info[id] = map[string]map[string]string{"generic": {"deviceID": id}}
		if d.Driver != vfioDriver {
			continue
		}
		if d.IOMMUGroup == "" {
			return nil, status.Errorf(codes.FailedPrecondition,
				"device %s of pool %s is bound to %s and has no IOMMU group: switch the IOMMU on in firmware and kernel, then bind the device again", id, s.resource, vfioDriver)
		}
		group := vfioFolder + d.IOMMUGroup
		specs.add(vfioControl)
		specs.add(group)
		info[id]["vfio"] = map[string]string{"mount": vfioControl, "dev-mount": group}
	}
	infoJSON, err := json.Marshal(info)
	if err != nil {
		return nil, fmt.Errorf("encode device information of pool %s: %w", s.resource, err)
	}
	key := envKey(s.resource)
	return &pluginapi.ContainerAllocateResponse{
		Envs: map[string]string{
			key:           strings.Join(ids, ","),
			key + "_INFO": string(infoJSON),
		},
		Devices: specs,
	}, nil
}

func (d Device) problem() string {
	if d.Problem == "" {
		return "no reason given"
	}
	return d.Problem
}

// envKey is the variable that sriov-network-device-plugin made the custom:
// applications read PCIDEVICE_INTEL_COM_SRIOV. A hyphen stays one.
func envKey(resource string) string {
	return "PCIDEVICE_" + strings.ToUpper(strings.NewReplacer(".", "_", "/", "_").Replace(resource))
}

// deviceSpecs are device nodes, each once: devices of one IOMMU group share
// theirs, and a runtime refuses a node given twice.
type deviceSpecs []*pluginapi.DeviceSpec

func (s *deviceSpecs) add(path string) {
	if slices.ContainsFunc(*s, func(d *pluginapi.DeviceSpec) bool { return d.HostPath == path }) {
		return
	}
	*s = append(*s, &pluginapi.DeviceSpec{HostPath: path, ContainerPath: path, Permissions: "rw"})
}
