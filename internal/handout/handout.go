// Package handout says what a container is handed with a device.
//
// In flow a device with the selector that took it, its pool, and the machine.
// Out flow what the pod reads of the device (the words of its _INFO variable),
// the device nodes that it needs, the DeviceInfo for Multus; or why the device
// cannot be handed over whole. It is worked out once for each snapshot of the
// machine, so that Allocate has only to look it up.
//
// The words and the nodes are the contract of the sriov-network-device-plugin,
// as its code has it, for pods read them. Where its code contradicts itself
// this is the rule:
//
//   - what a device node is called is known before the first Allocate;
//   - where a device has several nodes of a kind, as with two RDMA devices, the
//     value names all of them, by commas, in the order of the RDMA devices;
//   - what is asked for and is not there is a reason not to hand the device
//     over, not one to hand over less.
//
// The kubelet keeps what it was answered in its checkpoint and uses it again
// for each restart of the container, after a reboot too, without another
// Allocate (devicemanager devicesToAllocate). Most of what is here lives as
// long as the device's binding to its driver, which outlives any pod that has
// the device. A reboot it need not outlive: the number of an IOMMU group, and
// with it /dev/vfio/N, and those of uio, uverbs and vhost-vdpa are given out in
// the order in which drivers bind. A pod that is restarted after a reboot is
// handed the old numbers, as by any device plugin; with CDI it is only the
// variable that is old, as the nodes are then looked up by the device's name
// when the container is made.
package handout

import (
	"slices"
	"strings"

	"github.com/numalane/numalane/internal/config"
	"github.com/numalane/numalane/pkg/topology"
)

// Handout is what a container is handed with a device. It is not changed once
// made.
type Handout struct {
	// Info are words for the pod, by provider (generic, vfio, uio, rdma, vhost,
	// vdpa, extra) and key.
	Info map[string]map[string]string
	// Nodes are the device nodes, each once.
	Nodes []Node
	// DeviceInfo is a file of the Network Plumbing Working Group's DeviceInfo
	// specification; empty: the device has none.
	DeviceInfo []byte
	// Withheld is why the device cannot be handed over whole; empty: it can.
	// Then it has neither nodes nor DeviceInfo.
	Withheld string
	// Away is that it is withheld because a part of it sits in a pod's network
	// namespace. That is the ordinary state of a device that a pod holds.
	Away bool
}

// Node is a device node, for reading and writing.
type Node struct {
	Host, Container string // paths
}

// builder collects a handout.
type builder struct {
	Handout
	device *config.AssignedDevice
}

// Of works out the handout of a device of a pool.
func Of(d *config.AssignedDevice, pool *config.Pool, host *topology.Host) Handout {
	b := builder{device: d, Handout: Handout{Info: map[string]map[string]string{"generic": {"deviceID": d.ID()}}}}
	b.extra(pool.AdditionalInfo)
	switch d.Driver {
	case "vfio-pci":
		b.vfio()
	case "igb_uio", "uio_pci_generic", "uio":
		b.uio()
	}
	if d.By.VDPA != "" {
		b.vdpa()
	}
	if d.By.VhostNet {
		b.vhostNet(host)
	}
	// Last: what it lacks may be back, so any other reason goes first.
	if d.By.RDMA {
		b.rdma()
	}
	if b.Withheld != "" {
		b.Nodes = nil
		return b.Handout
	}
	if pool.DeviceType == config.NetDevice {
		b.DeviceInfo = deviceInfo(d)
	}
	return b.Handout
}

// withhold keeps the first reason.
func (b *builder) withhold(why string) {
	if b.Withheld == "" {
		b.Withheld = why
	}
}

// node adds a device node and returns its path in the container.
func (b *builder) node(host, container string) string {
	n := Node{host, container}
	if !slices.Contains(b.Nodes, n) {
		b.Nodes = append(b.Nodes, n)
	}
	return container
}

// extra are the user's words: those for all devices, then those for this one.
// The sriov-network-device-plugin looks a subfunction's up by its PCI parent.
func (b *builder) extra(words map[string]map[string]string) {
	if words == nil {
		return
	}
	all := map[string]string{}
	for _, id := range []string{"*", b.device.Address.String(), b.device.ID()} {
		for k, v := range words[id] {
			all[k] = v
		}
	}
	b.Info["extra"] = all
}

// vfio is drivers/vfio: one node for the API and one for the device's group,
// which has another name where no IOMMU is behind it, so that nobody opens it
// by mistake (vfio_group_create). The container gets it by the ordinary name.
func (b *builder) vfio() {
	const control, folder = "/dev/vfio/vfio", "/dev/vfio/"
	group := b.device.IOMMUGroup
	if group == "" {
		b.withhold("it is bound to vfio-pci and has no IOMMU group: switch the IOMMU on in firmware and kernel, then bind the device again")
		return
	}
	host := folder + group
	if b.device.NoIOMMU {
		host = folder + "noiommu-" + group
	}
	b.Info["vfio"] = map[string]string{"mount": b.node(control, control), "dev-mount": b.node(host, folder+group)}
}

func (b *builder) uio() {
	if b.device.UIO == "" {
		b.withhold("it is bound to " + b.device.Driver + " and has no uio device: bind it again, and look in the kernel's log")
		return
	}
	path := "/dev/" + b.device.UIO
	b.Info["uio"] = map[string]string{"mount": b.node(path, path)}
}

// rdma hands out every character device of every RDMA device. In the exclusive
// mode of the kernel's RDMA namespaces (rdma system set netns exclusive) an RDMA
// device moves into its pod, and is not to be seen until it is back.
func (b *builder) rdma() {
	d := b.device
	var names []string
	paths := map[string][]string{}
	for _, r := range d.RDMA {
		names = append(names, r.Name)
		if len(r.CharDevices) == 0 {
			b.withhold("its RDMA device " + r.Name + " has no character devices: load the kernel modules ib_uverbs, ib_umad and rdma_ucm")
			return
		}
		for _, c := range r.CharDevices {
			path := "/dev/infiniband/" + c
			kind := strings.TrimRight(c, "0123456789")
			if !slices.Contains(paths[kind], path) {
				paths[kind] = append(paths[kind], path)
			}
			b.node(path, path)
		}
	}
	if len(names) == 0 {
		if d.RDMACapable {
			b.Away = b.Withheld == ""
			b.withhold("its RDMA device is not on the host: it still is in the network namespace of a pod, or its kernel module is not loaded")
		} else {
			b.withhold("it has no RDMA device, and the pool is for those that have: load the kernel modules of the device's RDMA")
		}
		return
	}
	info := map[string]string{"rdma_dev": strings.Join(names, ",")}
	for _, kind := range []string{"uverbs", "umad", "issm", "rdma_cm"} {
		if p := paths[kind]; p != nil {
			info[kind] = strings.Join(p, ",")
		}
	}
	b.Info["rdma"] = info
}

func (b *builder) vhostNet(host *topology.Host) {
	const net, tun = "/dev/vhost-net", "/dev/net/tun"
	if !host.VhostNet {
		b.withhold("the pool is for " + net + " and " + tun + ", and the host does not have both: load the kernel modules vhost_net and tun")
		return
	}
	b.Info["vhost"] = map[string]string{"net-mount": b.node(net, net), "tun-mount": b.node(tun, tun)}
}

// vdpa hands out the node of a vhost device. A virtio one is a netdev, which a
// CNI plugin moves.
func (b *builder) vdpa() {
	v, driver := b.device.VDPA, b.device.By.VDPA+"_vdpa"
	switch {
	case v == nil:
		b.withhold("it has no vDPA device: add one with 'vdpa dev add', bound to " + driver)
	case v.Driver != driver:
		b.withhold("its vDPA device " + v.Name + " is not bound to " + driver)
	case b.device.By.VDPA == "vhost" && v.CharDevice == "":
		b.withhold("its vDPA device " + v.Name + " has no character device")
	case b.device.By.VDPA == "vhost":
		path := "/dev/" + v.CharDevice
		b.Info["vdpa"] = map[string]string{"mount": b.node(path, path)}
	default:
		b.Info["vdpa"] = map[string]string{}
	}
}
