package sysfstest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/numalane/numalane/pkg/topology"
)

const (
	pciDir     = "sys/bus/pci/devices"
	driversDir = "sys/bus/pci/drivers"
)

// function is one PCI network function about to be written.
type function struct {
	addr           topology.Address
	vendor, device string
	subsystem      [2]string
	class          string // six digits
	numaNode       int
	driver         string
	netdev         string // none when empty
	port           string // phys_port_name
	rdma           string // none when empty
	speed          int
	up             bool
}

// parentDir is the folder of the bridge above an address: a root port on the
// bus before, or for bus 0 the root complex.
func parentDir(a topology.Address) (dir string, port topology.Address, ok bool) {
	if a.Bus == 0 {
		return fmt.Sprintf("sys/devices/pci%04x:00", a.Domain), port, false
	}
	port = topology.Address{Domain: a.Domain, Bus: a.Bus - 1}
	return fmt.Sprintf("sys/devices/pci%04x:%02x/%s", a.Domain, port.Bus, port), port, true
}

func (m Machine) writeNIC(t *tree, n NIC) {
	addrs, err := n.addresses()
	if err != nil {
		t.err = err
		return
	}
	pf := addrs[0]
	parent, port, bridged := parentDir(pf)
	if bridged && !t.made[parent+"/bridge"] {
		t.made[parent+"/bridge"] = true
		m.writeFunction(t, parent, function{
			addr: port, vendor: "8086", device: "2030", subsystem: [2]string{"8086", "0000"},
			class: "060400", numaNode: n.NUMANode, driver: "pcieport",
		})
	}
	netdev := n.netdev(pf)
	f := function{
		addr: pf, vendor: n.Vendor, device: n.Device, subsystem: n.Subsystem, class: "020000",
		numaNode: n.NUMANode, driver: n.Driver, netdev: netdev, speed: n.Speed, up: !n.Down,
	}
	if n.RDMA {
		f.rdma = "roce" + netdev[2:]
	}
	if n.Switchdev {
		f.port = fmt.Sprintf("p%d", pf.Function)
	}
	dir := parent + "/" + pf.String()
	m.writeFunction(t, dir, f)
	if n.TotalVFs == 0 {
		return
	}
	t.attrs(dir, "sriov_totalvfs", fmt.Sprint(n.TotalVFs), "sriov_vf_device", n.VFDevice,
		"sriov_offset", fmt.Sprint(n.VFOffset), "sriov_stride", fmt.Sprint(n.VFStride), "sriov_drivers_autoprobe", "1")
	m.writeVFs(t, n, 0)
}

// writeVFs writes the VFs of a NIC from the given index on.
func (m Machine) writeVFs(t *tree, n NIC, from int) {
	addrs, err := n.addresses()
	if err != nil {
		t.err = err
		return
	}
	pf := addrs[0]
	parent, _, _ := parentDir(pf)
	netdev := n.netdev(pf)
	dir := parent + "/" + pf.String()
	t.file(dir+"/sriov_numvfs", "%d", n.VFs)
	for i := from; i < n.VFs; i++ {
		vf := addrs[1+i]
		f := function{
			addr: vf, vendor: n.Vendor, device: n.VFDevice, subsystem: n.Subsystem, class: "020000",
			numaNode: n.NUMANode, driver: n.VFDriver, netdev: fmt.Sprintf("%sv%d", netdev, i), up: !n.Down, speed: n.Speed,
		}
		if n.RDMA {
			f.rdma = "roce" + f.netdev[2:]
		}
		if slices.Contains(n.VFsOnVFIO, i) {
			f.driver, f.netdev, f.rdma = "vfio-pci", "", ""
		}
		vfDir := parent + "/" + vf.String()
		m.writeFunction(t, vfDir, f)
		t.link(vfDir+"/physfn", dir)
		t.link(fmt.Sprintf("%s/virtfn%d", dir, i), vfDir)
		if n.Switchdev {
			m.writeNetdev(t, dir, function{
				addr: vf, netdev: fmt.Sprintf("%s_%d", netdev, i), up: !n.Down, speed: n.Speed,
				port: fmt.Sprintf("pf%dvf%d", pf.Function, i),
			})
		}
	}
}

func (m Machine) writeFunction(t *tree, dir string, f function) {
	t.attrs(dir,
		"vendor", "0x"+f.vendor, "device", "0x"+f.device, "class", "0x"+f.class, "revision", "0x01",
		"subsystem_vendor", "0x"+f.subsystem[0], "subsystem_device", "0x"+f.subsystem[1],
		"modalias", fmt.Sprintf("pci:v0000%sd0000%ssv0000%ssd0000%sbc%ssc%si%s", strings.ToUpper(f.vendor), strings.ToUpper(f.device),
			strings.ToUpper(f.subsystem[0]), strings.ToUpper(f.subsystem[1]), f.class[0:2], f.class[2:4], f.class[4:6]))
	if !m.NoNUMA {
		t.file(dir+"/numa_node", "%d", f.numaNode)
	}
	t.file(dir+"/local_cpulist", "%s", m.localCPUs(t, f.numaNode))
	t.link(dir+"/subsystem", "sys/bus/pci")
	t.link(pciDir+"/"+f.addr.String(), dir)
	if f.driver != "" {
		t.bind(dir, f.addr.String(), f.driver)
	}
	group := fmt.Sprintf("sys/kernel/iommu_groups/%d", int(f.addr.Domain)<<16|routingID(f.addr))
	t.mkdir(group)
	t.link(dir+"/iommu_group", group)
	if f.netdev != "" {
		m.writeNetdev(t, dir, f)
	}
	if f.rdma != "" {
		rdma := dir + "/infiniband/" + f.rdma
		t.file(rdma+"/node_type", "1: CA")
		t.link("sys/class/infiniband/"+f.rdma, rdma)
	}
}

// localCPUs are those of a NUMA node; all when a device does not say its node.
func (m Machine) localCPUs(t *tree, node int) string {
	list, ok := t.local[node]
	if !ok {
		list = set(m.CPUs(), func(c CPU) bool { return c.Online && (node < 0 || c.NUMANode == node) }).String()
		t.local[node] = list
	}
	return list
}

func (t *tree) bind(dir, addr, driver string) {
	t.mkdir(driversDir + "/" + driver)
	t.link(driversDir+"/"+driver+"/"+addr, dir)
	t.link(dir+"/driver", driversDir+"/"+driver)
}

func (m Machine) writeNetdev(t *tree, dir string, f function) {
	net := dir + "/net/" + f.netdev
	rid := routingID(f.addr)
	t.attrs(net, "address", fmt.Sprintf("02:00:%02x:%02x:%02x:%02x", f.addr.Domain&0xff, len(f.port), rid>>8, rid&0xff))
	if f.speed > 0 {
		t.file(net+"/speed", "%d", f.speed)
	}
	if f.port != "" {
		t.file(net+"/phys_port_name", "%s", f.port)
	}
	t.carrier(net, f.up)
	t.link(net+"/device", dir)
	t.link("sys/class/net/"+f.netdev, net)
}

func (t *tree) carrier(net string, up bool) {
	if up {
		t.attrs(net, "carrier", "1", "operstate", "up")
	} else {
		t.attrs(net, "carrier", "0", "operstate", "down")
	}
}
