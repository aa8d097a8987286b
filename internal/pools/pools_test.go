package pools

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/numalane/numalane/internal/config"
	"github.com/numalane/numalane/internal/handout"
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
	host := &topology.Host{
		NUMANodes: []topology.NUMANode{{ID: 0, Distances: map[int]int{0: 10, 2: 21}}, {ID: 2, Distances: map[int]int{0: 21, 2: 10}}},
		Devices: []topology.Device{{
			Address: pf, Netdevs: []topology.Netdev{{Name: "ens1f0", Up: true, Speed: 10000}}, PF: &topology.PhysicalFunction{},
			Upstream: []topology.Address{address("0000:3a:08.0"), address("0000:00:01.0")},
		}},
	}
	distances, upstream := allocator.NewDistances(map[int]map[int]int{0: {0: 10, 2: 21}, 2: {0: 21, 2: 10}}), []string{"0000:3a:08.0", "0000:00:01.0"}
	assigned := []config.AssignedPool{
		{Pool: &config.Pool{Resource: "numalane.io/a", AllocationPolicy: allocator.PolicyPacked}, Devices: []config.AssignedDevice{
			vf("0000:3b:02.0", 1, nil),
			vf("0000:3b:02.1", topology.NoNUMANode, func(d *topology.Device) { d.Driver, d.IOMMUGroup = "vfio-pci", "7" }),
			vf("0000:3b:02.2", 1, func(d *topology.Device) { d.Driver = "" }),
			vf("0000:3b:02.3", 1, func(d *topology.Device) { d.Problem = "numa_node: permission denied" }),
		}},
		{Pool: &config.Pool{Resource: "numalane.io/b", AllocationPolicy: allocator.PolicySpread, ExcludeTopology: true}, Devices: []config.AssignedDevice{
			vf("0000:00:05.0", 0, func(d *topology.Device) { d.VF, d.Upstream = nil, []topology.Address{address("0000:00:04.0")} }),
		}},
		{Pool: &config.Pool{Resource: "numalane.io/sf", DeviceType: config.AuxNetDevice}, Devices: []config.AssignedDevice{
			vf("0000:3b:00.0", 1, func(d *topology.Device) { d.VF, d.Aux = nil, &topology.AuxiliaryDevice{Name: "mlx5_core.sf.4"} }),
			vf("0000:3b:02.4", 1, func(d *topology.Device) { d.Aux = &topology.AuxiliaryDevice{Name: "mlx5_core.sf.5"} }),
		}},
	}
	pfs := pf.String()
	words := func(id string) handout.Handout {
		return handout.Handout{Info: map[string]map[string]string{"generic": {"deviceID": id}}}
	}
	vfio := words("0000:3b:02.1")
	vfio.Info["vfio"] = map[string]string{"mount": "/dev/vfio/vfio", "dev-mount": "/dev/vfio/7"}
	vfio.Nodes = []handout.Node{{Host: "/dev/vfio/vfio", Container: "/dev/vfio/vfio"}, {Host: "/dev/vfio/7", Container: "/dev/vfio/7"}}
	wantAdvertised := []plugin.Pool{
		{Resource: "numalane.io/a", Policy: allocator.PolicyPacked, Distances: distances, Devices: []plugin.Device{
			{ID: "0000:3b:02.0", NUMANodes: []int{1}, PF: pfs, Upstream: upstream, Healthy: true, Handout: words("0000:3b:02.0")},
			{ID: "0000:3b:02.1", PF: pfs, Upstream: upstream, Healthy: true, Handout: vfio},
			{ID: "0000:3b:02.2", NUMANodes: []int{1}, PF: pfs, Upstream: upstream, Problem: "no driver is bound to it", Handout: words("0000:3b:02.2")},
			{ID: "0000:3b:02.3", NUMANodes: []int{1}, PF: pfs, Upstream: upstream, Problem: "numa_node: permission denied", Handout: words("0000:3b:02.3")},
		}},
		{Resource: "numalane.io/b", Policy: allocator.PolicySpread, Distances: distances, ExcludeTopology: true, Devices: []plugin.Device{
			{ID: "0000:00:05.0", NUMANodes: []int{0}, Upstream: []string{"0000:00:04.0"}, Healthy: true, Handout: words("0000:00:05.0")},
		}},
		{Resource: "numalane.io/sf", Distances: distances, DeviceType: config.AuxNetDevice, Devices: []plugin.Device{
			{ID: "mlx5_core.sf.4", NUMANodes: []int{1}, PF: pfs, Upstream: upstream, Healthy: true, Handout: words("mlx5_core.sf.4")},
			{ID: "mlx5_core.sf.5", NUMANodes: []int{1}, PF: pfs, Upstream: upstream, Healthy: true, Handout: words("mlx5_core.sf.5")},
		}},
	}
	if diff := cmp.Diff(wantAdvertised, Advertised(assigned, host, nil), cmp.AllowUnexported(allocator.Distances{})); diff != "" {
		t.Errorf("advertised (-want +got):\n%s", diff)
	}
	link := kubelet.Device{PF: pfs, PFName: "ens1f0", Upstream: upstream, Speed: 10000, Link: "up"}
	device := func(id string, healthy bool, numa ...int) kubelet.Device {
		d := link
		d.ID, d.NUMANodes, d.Healthy = id, numa, healthy
		return d
	}
	wantPublished := []kubelet.Pool{
		{Resource: "numalane.io/a", AllocationPolicy: "packed", Devices: []kubelet.Device{
			device("0000:3b:02.0", true, 1), device("0000:3b:02.1", true), device("0000:3b:02.2", false, 1), device("0000:3b:02.3", false, 1),
		}},
		{Resource: "numalane.io/b", AllocationPolicy: "spread", Devices: []kubelet.Device{{ID: "0000:00:05.0", Healthy: true}}},
		{Resource: "numalane.io/sf", Devices: []kubelet.Device{device("mlx5_core.sf.4", true, 1), device("mlx5_core.sf.5", true, 1)}},
	}
	if diff := cmp.Diff(wantPublished, Published(assigned, host, nil)); diff != "" {
		t.Errorf("published (-want +got):\n%s", diff)
	}
}

// TestHealth: a device that no pod could be given is unhealthy in both eyes; one
// of which a part is in its pod is not.
func TestHealth(t *testing.T) {
	tests := []struct {
		name      string
		device    topology.Device
		by        config.Selector
		unhealthy map[string]string
		problem   string // begins with
	}{
		{name: "well", device: topology.Device{Driver: "iavf"}},
		{name: "vfio-pci without a group", device: topology.Device{Driver: "vfio-pci"}, problem: "it is bound to vfio-pci and has no IOMMU group"},
		{name: "its RDMA device is in a pod", device: topology.Device{Driver: "mlx5_core", RDMACapable: true}, by: config.Selector{RDMA: true}},
		{name: "no vhost-net", device: topology.Device{Driver: "mlx5_core", RDMACapable: true}, by: config.Selector{RDMA: true, VhostNet: true}, problem: "the pool is for /dev/vhost-net"},
		{name: "unhealthy to others", device: topology.Device{Driver: "iavf"}, unhealthy: map[string]string{"0000:00:00.0": "link is down"}, problem: "link is down"},
		{name: "its own problem first", device: topology.Device{}, unhealthy: map[string]string{"0000:00:00.0": "link is down"}, problem: "no driver is bound to it"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			assigned := []config.AssignedPool{{Pool: &config.Pool{DeviceType: config.NetDevice}, Devices: []config.AssignedDevice{{Device: test.device, By: &test.by}}}}
			got := Advertised(assigned, &topology.Host{}, test.unhealthy)[0].Devices[0]
			if got.Healthy != (test.problem == "") || !strings.HasPrefix(got.Problem, test.problem) {
				t.Errorf("healthy %t, problem %q; want %q", got.Healthy, got.Problem, test.problem)
			}
			if p := Published(assigned, &topology.Host{}, test.unhealthy)[0].Devices[0]; p.Healthy != got.Healthy {
				t.Errorf("published as healthy %t, advertised %t", p.Healthy, got.Healthy)
			}
		})
	}
}
