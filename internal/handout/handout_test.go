package handout_test

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/numalane/numalane/internal/config"
	"github.com/numalane/numalane/internal/handout"
	"github.com/numalane/numalane/pkg/topology"
)

// row is one kind of device, as a row of the sriov-network-device-plugin's
// tables of variables and device specs.
type row struct {
	name       string
	device     topology.Device
	by         config.Selector
	pool       config.Pool
	variables  string // JSON
	specs      []handout.Node
	deviceInfo string
}

func same(paths ...string) []handout.Node {
	var nodes []handout.Node
	for _, p := range paths {
		nodes = append(nodes, handout.Node{Host: p, Container: p})
	}
	return nodes
}

// rdma is an RDMA device as the host shows it.
func rdma(name string, chars ...string) topology.RDMADevice {
	return topology.RDMADevice{Name: name, CharDevices: chars}
}

var (
	vf        = topology.Address{Bus: 0x3b, Device: 2}
	extra     = map[string]map[string]string{"*": {"token": "all", "site": "a"}, "0000:3b:02.0": {"token": "mine"}, "0000:3b:02.1": {"token": "theirs"}}
	host      = &topology.Host{VhostNet: true}
	vhostVDPA = &topology.VDPADevice{Name: "vdpa1", Driver: "vhost_vdpa", CharDevice: "vhost-vdpa-3"}
)

const pciInfo = `{"type":"pci","version":"1.1.0","pci":{"pci-address":"0000:3b:02.0"}}`

var rows = []row{
	{
		name: "generic", device: topology.Device{Driver: "iavf", IOMMUGroup: "42"},
		variables: `{"generic":{"deviceID":"0000:3b:02.0"}}`, deviceInfo: pciInfo,
	},
	{
		name: "vfio", device: topology.Device{Driver: "vfio-pci", IOMMUGroup: "42"},
		variables: `{"generic":{"deviceID":"0000:3b:02.0"},"vfio":{"dev-mount":"/dev/vfio/42","mount":"/dev/vfio/vfio"}}`,
		specs:     same("/dev/vfio/vfio", "/dev/vfio/42"), deviceInfo: pciInfo,
	},
	{
		name: "vfio-noiommu", device: topology.Device{Driver: "vfio-pci", IOMMUGroup: "0", NoIOMMU: true},
		variables:  `{"generic":{"deviceID":"0000:3b:02.0"},"vfio":{"dev-mount":"/dev/vfio/0","mount":"/dev/vfio/vfio"}}`,
		specs:      append(same("/dev/vfio/vfio"), handout.Node{Host: "/dev/vfio/noiommu-0", Container: "/dev/vfio/0"}),
		deviceInfo: pciInfo,
	},
	{
		name: "uio", device: topology.Device{Driver: "uio", UIO: "uio7"},
		variables: `{"generic":{"deviceID":"0000:3b:02.0"},"uio":{"mount":"/dev/uio7"}}`,
		specs:     same("/dev/uio7"), deviceInfo: pciInfo,
	},
	{
		name: "igb_uio", device: topology.Device{Driver: "igb_uio", UIO: "uio0"},
		variables: `{"generic":{"deviceID":"0000:3b:02.0"},"uio":{"mount":"/dev/uio0"}}`,
		specs:     same("/dev/uio0"), deviceInfo: pciInfo,
	},
	{
		name: "uio_pci_generic", device: topology.Device{Driver: "uio_pci_generic", UIO: "uio0"},
		variables: `{"generic":{"deviceID":"0000:3b:02.0"},"uio":{"mount":"/dev/uio0"}}`,
		specs:     same("/dev/uio0"), deviceInfo: pciInfo,
	},
	{
		name:   "rdma",
		device: topology.Device{Driver: "mlx5_core", RDMA: []topology.RDMADevice{rdma("mlx5_2", "issm2", "rdma_cm", "umad2", "uverbs2")}},
		by:     config.Selector{RDMA: true},
		variables: `{"generic":{"deviceID":"0000:3b:02.0"},"rdma":{"issm":"/dev/infiniband/issm2","rdma_cm":"/dev/infiniband/rdma_cm",` +
			`"rdma_dev":"mlx5_2","umad":"/dev/infiniband/umad2","uverbs":"/dev/infiniband/uverbs2"}}`,
		specs:      same("/dev/infiniband/issm2", "/dev/infiniband/rdma_cm", "/dev/infiniband/umad2", "/dev/infiniband/uverbs2"),
		deviceInfo: `{"type":"pci","version":"1.1.0","pci":{"pci-address":"0000:3b:02.0","rdma-device":"mlx5_2"}}`,
	},
	{
		name:   "rdma, two RDMA devices",
		device: topology.Device{Driver: "mlx5_core", RDMA: []topology.RDMADevice{rdma("mlx5_10", "rdma_cm", "uverbs10"), rdma("mlx5_9", "rdma_cm", "umad9", "uverbs9")}},
		by:     config.Selector{RDMA: true},
		variables: `{"generic":{"deviceID":"0000:3b:02.0"},"rdma":{"rdma_cm":"/dev/infiniband/rdma_cm",` +
			`"rdma_dev":"mlx5_10,mlx5_9","umad":"/dev/infiniband/umad9","uverbs":"/dev/infiniband/uverbs10,/dev/infiniband/uverbs9"}}`,
		specs:      same("/dev/infiniband/rdma_cm", "/dev/infiniband/uverbs10", "/dev/infiniband/umad9", "/dev/infiniband/uverbs9"),
		deviceInfo: `{"type":"pci","version":"1.1.0","pci":{"pci-address":"0000:3b:02.0","rdma-device":"mlx5_10,mlx5_9"}}`,
	},
	{
		name:      "rdma, not asked for",
		device:    topology.Device{Driver: "mlx5_core", RDMA: []topology.RDMADevice{rdma("mlx5_2", "uverbs2")}},
		variables: `{"generic":{"deviceID":"0000:3b:02.0"}}`, deviceInfo: pciInfo,
	},
	{
		name: "vhost", device: topology.Device{Driver: "iavf"}, by: config.Selector{VhostNet: true},
		variables: `{"generic":{"deviceID":"0000:3b:02.0"},"vhost":{"net-mount":"/dev/vhost-net","tun-mount":"/dev/net/tun"}}`,
		specs:     same("/dev/vhost-net", "/dev/net/tun"), deviceInfo: pciInfo,
	},
	{
		name: "vdpa", device: topology.Device{Driver: "mlx5_core", VDPA: vhostVDPA}, by: config.Selector{VDPA: "vhost"},
		variables:  `{"generic":{"deviceID":"0000:3b:02.0"},"vdpa":{"mount":"/dev/vhost-vdpa-3"}}`,
		specs:      same("/dev/vhost-vdpa-3"),
		deviceInfo: `{"type":"vdpa","version":"1.1.0","vdpa":{"parent-device":"vdpa1","driver":"vhost","path":"/dev/vhost-vdpa-3","pci-address":"0000:3b:02.0"}}`,
	},
	{
		name:   "vdpa-virtio",
		device: topology.Device{Driver: "mlx5_core", VDPA: &topology.VDPADevice{Name: "vdpa2", Driver: "virtio_vdpa"}}, by: config.Selector{VDPA: "virtio"},
		variables:  `{"generic":{"deviceID":"0000:3b:02.0"},"vdpa":{}}`,
		deviceInfo: `{"type":"vdpa","version":"1.1.0","vdpa":{"parent-device":"vdpa2","driver":"virtio","pci-address":"0000:3b:02.0"}}`,
	},
	{
		name: "extra", device: topology.Device{Driver: "iavf"}, pool: config.Pool{AdditionalInfo: extra},
		variables: `{"extra":{"site":"a","token":"mine"},"generic":{"deviceID":"0000:3b:02.0"}}`, deviceInfo: pciInfo,
	},
	{
		name: "extra, for others alone", device: topology.Device{Driver: "iavf"},
		pool:      config.Pool{AdditionalInfo: map[string]map[string]string{"0000:3b:02.1": {"token": "theirs"}}},
		variables: `{"extra":{},"generic":{"deviceID":"0000:3b:02.0"}}`, deviceInfo: pciInfo,
	},
	{
		name: "all at once", device: topology.Device{Driver: "vfio-pci", IOMMUGroup: "42", RDMA: []topology.RDMADevice{rdma("mlx5_2", "uverbs2")}},
		by: config.Selector{RDMA: true, VhostNet: true}, pool: config.Pool{AdditionalInfo: extra},
		variables: `{"extra":{"site":"a","token":"mine"},"generic":{"deviceID":"0000:3b:02.0"},` +
			`"rdma":{"rdma_dev":"mlx5_2","uverbs":"/dev/infiniband/uverbs2"},` +
			`"vfio":{"dev-mount":"/dev/vfio/42","mount":"/dev/vfio/vfio"},"vhost":{"net-mount":"/dev/vhost-net","tun-mount":"/dev/net/tun"}}`,
		specs:      same("/dev/vfio/vfio", "/dev/vfio/42", "/dev/vhost-net", "/dev/net/tun", "/dev/infiniband/uverbs2"),
		deviceInfo: `{"type":"pci","version":"1.1.0","pci":{"pci-address":"0000:3b:02.0","rdma-device":"mlx5_2"}}`,
	},
	{
		name: "accelerator", device: topology.Device{Driver: "vfio-pci", IOMMUGroup: "42"}, pool: config.Pool{DeviceType: config.Accelerator},
		variables: `{"generic":{"deviceID":"0000:3b:02.0"},"vfio":{"dev-mount":"/dev/vfio/42","mount":"/dev/vfio/vfio"}}`,
		specs:     same("/dev/vfio/vfio", "/dev/vfio/42"),
	},
	{
		name: "subfunction",
		device: topology.Device{
			Driver: "mlx5_core", Aux: &topology.AuxiliaryDevice{Name: "mlx5_core.sf.4", Type: "sf", Driver: "mlx5_core.sf"},
			RDMA: []topology.RDMADevice{rdma("mlx5_4", "uverbs4")},
		},
		by: config.Selector{RDMA: true, VhostNet: true},
		pool: config.Pool{DeviceType: config.AuxNetDevice, AdditionalInfo: map[string]map[string]string{
			"0000:3b:02.0": {"by": "parent", "parent": "yes"}, "mlx5_core.sf.4": {"by": "name"},
		}},
		variables: `{"extra":{"by":"name","parent":"yes"},"generic":{"deviceID":"mlx5_core.sf.4"},` +
			`"rdma":{"rdma_dev":"mlx5_4","uverbs":"/dev/infiniband/uverbs4"},"vhost":{"net-mount":"/dev/vhost-net","tun-mount":"/dev/net/tun"}}`,
		specs: same("/dev/vhost-net", "/dev/net/tun", "/dev/infiniband/uverbs4"),
	},
}

func (r *row) handout(host *topology.Host) handout.Handout {
	d := config.AssignedDevice{Device: r.device, By: &r.by}
	d.Address = vf
	pool := r.pool
	if pool.DeviceType == "" {
		pool.DeviceType = config.NetDevice
	}
	return handout.Of(&d, &pool, host)
}

func TestVariables(t *testing.T) {
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			got := r.handout(host)
			text, err := json.Marshal(got.Info)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(r.variables, string(text)); diff != "" {
				t.Errorf("words (-want +got):\n%s", diff)
			}
			if got.Withheld != "" {
				t.Errorf("it is withheld: %s", got.Withheld)
			}
		})
	}
}

func TestDeviceSpecs(t *testing.T) {
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			if diff := cmp.Diff(r.specs, r.handout(host).Nodes); diff != "" {
				t.Errorf("nodes (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDeviceInfo(t *testing.T) {
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			if diff := cmp.Diff(r.deviceInfo, string(r.handout(host).DeviceInfo)); diff != "" {
				t.Errorf("DeviceInfo (-want +got):\n%s", diff)
			}
		})
	}
}

// What cannot be handed over whole is not handed over in part.
func TestWithheld(t *testing.T) {
	tests := []struct {
		name   string
		device topology.Device
		by     config.Selector
		host   topology.Host
		why    string
		away   bool
	}{
		{
			name: "vfio-pci without a group", device: topology.Device{Driver: "vfio-pci"},
			why: "it is bound to vfio-pci and has no IOMMU group: switch the IOMMU on in firmware and kernel, then bind the device again",
		},
		{
			name: "uio driver without a uio device", device: topology.Device{Driver: "igb_uio"},
			why: "it is bound to igb_uio and has no uio device: bind it again, and look in the kernel's log",
		},
		{
			name: "RDMA device in a pod", device: topology.Device{Driver: "mlx5_core", RDMACapable: true}, by: config.Selector{RDMA: true},
			why:  "its RDMA device is not on the host: it still is in the network namespace of a pod, or its kernel module is not loaded",
			away: true,
		},
		{
			name: "no RDMA device", device: topology.Device{Driver: "iavf"}, by: config.Selector{RDMA: true},
			why: "it has no RDMA device, and the pool is for those that have: load the kernel modules of the device's RDMA",
		},
		{
			name: "no character devices", device: topology.Device{Driver: "mlx5_core", RDMA: []topology.RDMADevice{rdma("mlx5_1", "uverbs1"), rdma("mlx5_2")}},
			by:  config.Selector{RDMA: true},
			why: "its RDMA device mlx5_2 has no character devices: load the kernel modules ib_uverbs, ib_umad and rdma_ucm",
		},
		{
			name: "no vhost-net on the host", device: topology.Device{Driver: "vfio-pci", IOMMUGroup: "42"}, by: config.Selector{VhostNet: true},
			why: "the pool is for /dev/vhost-net and /dev/net/tun, and the host does not have both: load the kernel modules vhost_net and tun",
		},
		{
			name: "no vDPA device", device: topology.Device{Driver: "mlx5_core"}, by: config.Selector{VDPA: "vhost"},
			why: "it has no vDPA device: add one with 'vdpa dev add', bound to vhost_vdpa",
		},
		{
			name: "vDPA device of the other driver", device: topology.Device{Driver: "mlx5_core", VDPA: vhostVDPA}, by: config.Selector{VDPA: "virtio"},
			why: "its vDPA device vdpa1 is not bound to virtio_vdpa",
		},
		{
			name:   "vDPA device without a node",
			device: topology.Device{Driver: "mlx5_core", VDPA: &topology.VDPADevice{Name: "vdpa1", Driver: "vhost_vdpa"}}, by: config.Selector{VDPA: "vhost"},
			why: "its vDPA device vdpa1 has no character device",
		},
		{
			name: "several reasons", device: topology.Device{Driver: "vfio-pci", RDMACapable: true}, by: config.Selector{RDMA: true, VhostNet: true},
			why: "it is bound to vfio-pci and has no IOMMU group: switch the IOMMU on in firmware and kernel, then bind the device again",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := row{device: test.device, by: test.by}
			got := r.handout(&test.host)
			if got.Withheld != test.why || got.Away != test.away {
				t.Errorf("withheld %q, away %t; want %q, %t", got.Withheld, got.Away, test.why, test.away)
			}
			if len(got.Nodes) > 0 || len(got.DeviceInfo) > 0 {
				t.Errorf("nodes %v and DeviceInfo %q, want none", got.Nodes, got.DeviceInfo)
			}
		})
	}
}
