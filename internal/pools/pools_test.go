package pools

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/numalane/numalane/internal/config"
	"github.com/numalane/numalane/internal/kubelet"
	"github.com/numalane/numalane/internal/plugin"
	"github.com/numalane/numalane/pkg/allocator"
	"github.com/numalane/numalane/pkg/topology"
)

// TestPools: the kubelet and the extender are told the same of each device,
// save what only one of them needs.
func TestPools(t *testing.T) {
	address := func(s string) topology.Address {
		a, err := topology.ParseAddress(s)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	pf := address("0000:3b:00.0")
	vf := func(at string, numa int, change func(*topology.Device)) config.AssignedDevice {
		d := topology.Device{Address: address(at), NUMANode: numa, Driver: "iavf", VF: &topology.VirtualFunction{PF: pf, PFName: "ens1f0"}}
		if change != nil {
			change(&d)
		}
		return config.AssignedDevice{Device: d, By: &config.Selector{}}
	}
	host := &topology.Host{Devices: []topology.Device{{Address: pf, Netdevs: []topology.Netdev{{Name: "ens1f0", Up: true, Speed: 10000}}}}}
	assigned := []config.AssignedPool{
		{Pool: &config.Pool{Resource: "numalane.io/a", AllocationPolicy: allocator.PolicyPacked}, Devices: []config.AssignedDevice{
			vf("0000:3b:02.0", 1, nil),
			vf("0000:3b:02.1", topology.NoNUMANode, func(d *topology.Device) { d.Driver, d.IOMMUGroup = "vfio-pci", "7" }),
			vf("0000:3b:02.2", 1, func(d *topology.Device) { d.Driver = "" }),
			vf("0000:3b:02.3", 1, func(d *topology.Device) { d.Problem = "numa_node: permission denied" }),
			vf("0000:3b:02.4", 1, nil),
		}},
		{Pool: &config.Pool{Resource: "numalane.io/b", AllocationPolicy: allocator.PolicySpread, ExcludeTopology: true}, Devices: []config.AssignedDevice{
			vf("0000:00:05.0", 0, func(d *topology.Device) { d.VF = nil }),
		}},
	}
	unhealthy := map[string]string{"0000:3b:02.2": "what the scan found comes first", "0000:3b:02.4": "PF ens1f0 has no carrier"}
	pfs := pf.String()
	wantAdvertised := []plugin.Pool{
		{Resource: "numalane.io/a", Policy: allocator.PolicyPacked, Devices: []plugin.Device{
			{ID: "0000:3b:02.0", NUMANodes: []int{1}, PF: pfs, Driver: "iavf", Healthy: true},
			{ID: "0000:3b:02.1", PF: pfs, Driver: "vfio-pci", IOMMUGroup: "7", Healthy: true},
			{ID: "0000:3b:02.2", NUMANodes: []int{1}, PF: pfs, Problem: "no driver is bound to it"},
			{ID: "0000:3b:02.3", NUMANodes: []int{1}, PF: pfs, Driver: "iavf", Problem: "numa_node: permission denied"},
			{ID: "0000:3b:02.4", NUMANodes: []int{1}, PF: pfs, Driver: "iavf", Problem: "PF ens1f0 has no carrier"},
		}},
		{Resource: "numalane.io/b", Policy: allocator.PolicySpread, ExcludeTopology: true, Devices: []plugin.Device{
			{ID: "0000:00:05.0", NUMANodes: []int{0}, Driver: "iavf", Healthy: true},
		}},
	}
	if diff := cmp.Diff(wantAdvertised, Advertised(assigned, unhealthy)); diff != "" {
		t.Errorf("advertised (-want +got):\n%s", diff)
	}
	link := kubelet.Device{PF: pfs, PFName: "ens1f0", Speed: 10000, Link: "up"}
	device := func(id string, healthy bool, numa ...int) kubelet.Device {
		d := link
		d.ID, d.NUMANodes, d.Healthy = id, numa, healthy
		return d
	}
	wantPublished := []kubelet.Pool{
		{Resource: "numalane.io/a", AllocationPolicy: "packed", Devices: []kubelet.Device{
			device("0000:3b:02.0", true, 1), device("0000:3b:02.1", true), device("0000:3b:02.2", false, 1), device("0000:3b:02.3", false, 1),
			device("0000:3b:02.4", false, 1),
		}},
		{Resource: "numalane.io/b", AllocationPolicy: "spread", Devices: []kubelet.Device{{ID: "0000:00:05.0", Healthy: true}}},
	}
	if diff := cmp.Diff(wantPublished, Published(assigned, unhealthy, host)); diff != "" {
		t.Errorf("published (-want +got):\n%s", diff)
	}
}
