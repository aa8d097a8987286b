package health_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/numalane/numalane/internal/config"
	"github.com/numalane/numalane/internal/health"
	"github.com/numalane/numalane/pkg/topology"
)

func TestOutdated(t *testing.T) {
	device := func(function uint8, driver, group string, noIOMMU bool) config.AssignedDevice {
		return config.AssignedDevice{By: &config.Selector{}, Device: topology.Device{
			Address: topology.Address{Bus: 0x3b, Device: 2, Function: function}, Driver: driver, IOMMUGroup: group, NoIOMMU: noIOMMU,
		}}
	}
	pools := []config.AssignedPool{{Pool: &config.Pool{DeviceType: config.NetDevice}, Devices: []config.AssignedDevice{
		device(0, "vfio-pci", "12", false), device(1, "vfio-pci", "13", false), device(2, "vfio-pci", "0", true), device(3, "iavf", "15", false),
	}}}
	const moved = "a container was given it as /dev/vfio/12, and it is /dev/vfio/13 now: delete the pod"
	tests := []struct {
		name  string
		given map[string][]string
		want  map[string]string
	}{
		{name: "nothing is held"},
		{name: "the same group", given: map[string][]string{"0000:3b:02.0": {"/dev/vfio/12", "/dev/vfio/vfio"}}},
		{
			name:  "another one's group",
			given: map[string][]string{"0000:3b:02.1": {"/dev/vfio/12", "/dev/vfio/vfio"}},
			want:  map[string]string{"0000:3b:02.1": moved},
		},
		{name: "two devices of one answer", given: map[string][]string{
			"0000:3b:02.0": {"/dev/vfio/12", "/dev/vfio/13", "/dev/vfio/vfio"}, "0000:3b:02.1": {"/dev/vfio/12", "/dev/vfio/13", "/dev/vfio/vfio"},
		}},
		{
			name: "two devices of one answer, one of which has moved",
			given: map[string][]string{
				"0000:3b:02.0": {"/dev/vfio/12", "/dev/vfio/14", "/dev/vfio/vfio"}, "0000:3b:02.1": {"/dev/vfio/12", "/dev/vfio/14", "/dev/vfio/vfio"},
			},
			want: map[string]string{"0000:3b:02.1": "a container was given it as /dev/vfio/12 and /dev/vfio/14, and it is /dev/vfio/13 now: delete the pod"},
		},
		{name: "without an IOMMU, the same", given: map[string][]string{"0000:3b:02.2": {"/dev/vfio/noiommu-0", "/dev/vfio/vfio"}}},
		{
			name:  "without an IOMMU, another",
			given: map[string][]string{"0000:3b:02.2": {"/dev/vfio/noiommu-1", "/dev/vfio/vfio"}},
			want:  map[string]string{"0000:3b:02.2": "a container was given it as /dev/vfio/noiommu-1, and it is /dev/vfio/noiommu-0 now: delete the pod"},
		},
		{name: "by CDI", given: map[string][]string{"0000:3b:02.1": nil}},
		{name: "a netdev now", given: map[string][]string{"0000:3b:02.3": {"/dev/vfio/12", "/dev/vfio/vfio"}}},
		{name: "other nodes", given: map[string][]string{"0000:3b:02.1": {"/dev/infiniband/uverbs0", "/dev/vfio/vfio"}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			want := test.want
			if want == nil {
				want = map[string]string{}
			}
			if d := cmp.Diff(want, health.Outdated(pools, &topology.Host{}, test.given)); d != "" {
				t.Errorf("outdated (-want +got):\n%s", d)
			}
		})
	}
}
