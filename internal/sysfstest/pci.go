package sysfstest

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/numalane/numalane/pkg/topology"
)

const (
	pciDir     = "sys/bus/pci/devices"
	driversDir = "sys/bus/pci/drivers"

	// noIOMMU is the name of VFIO's own groups.
	noIOMMU = "vfio-noiommu"
)

// function is one PCI function, or a subfunction, about to be written.
type function struct {
	addr           topology.Address
	vendor, device string
	subsystem      [2]string
	class          string // six digits
	numaNode       int
	driver         string
	acpiIndex      string // none when empty
	netdev         string // none when empty
	port           string // phys_port_name
	infiniband     bool   // the netdev's link type
	rdma           string // none when empty
	pKey           string
	speed          int
	up             bool
}

// bridges are those above a NIC, from the root port down: none on bus 0.
func (n NIC) bridges(pf topology.Address) ([]topology.Address, error) {
	if len(n.Bridges) == 0 && pf.Bus > 0 {
		return []topology.Address{{Domain: pf.Domain, Bus: pf.Bus - 1}}, nil
	}
	var all []topology.Address
	for _, s := range n.Bridges {
		a, err := topology.ParseAddress(s)
		if err != nil {
			return nil, err
		}
		all = append(all, a)
	}
	return all, nil
}

// parentDir is the folder of the bridge above a NIC, or of the root complex.
func (n NIC) parentDir(pf topology.Address) (string, error) {
	bridges, err := n.bridges(pf)
	root := topology.Address{Domain: pf.Domain}
	if len(bridges) > 0 {
		root = bridges[0]
	}
	dir := fmt.Sprintf("sys/devices/pci%04x:%02x", root.Domain, root.Bus)
	for _, b := range bridges {
		dir += "/" + b.String()
	}
	return dir, err
}

// writeBridges writes the bridges above a NIC that are not there yet.
func (m Machine) writeBridges(t *tree, n NIC, pf topology.Address) {
	bridges, err := n.bridges(pf)
	if err != nil {
		t.err = err
		return
	}
	above := n
	for i := range bridges {
		above.Bridges = nil
		for _, b := range bridges[:i+1] {
			above.Bridges = append(above.Bridges, b.String())
		}
		dir, _ := above.parentDir(pf)
		if t.made[dir+"/bridge"] {
			continue
		}
		t.made[dir+"/bridge"] = true
		m.writeFunction(t, dir, function{
			addr: bridges[i], vendor: "8086", device: "2030", subsystem: [2]string{"8086", "0000"},
			class: "060400", numaNode: n.NUMANode, driver: "pcieport",
		})
	}
}

func (m Machine) writeNIC(t *tree, n NIC) {
	addrs, err := n.addresses()
	if err != nil {
		t.err = err
		return
	}
	pf := addrs[0]
	m.writeBridges(t, n, pf)
	parent, _ := n.parentDir(pf)
	f := n.function(pf, n.Device, n.Driver, n.netdev(pf))
	f.acpiIndex = n.ACPIIndex
	if n.Switchdev {
		f.port = fmt.Sprintf("p%d", pf.Function)
	}
	dir := parent + "/" + pf.String()
	m.writeFunction(t, dir, f)
	m.writeSubfunctions(t, dir, n, pf)
	if n.TotalVFs == 0 {
		return
	}
	t.attrs(dir, "sriov_totalvfs", fmt.Sprint(n.TotalVFs), "sriov_vf_device", n.VFDevice,
		"sriov_offset", fmt.Sprint(n.VFOffset), "sriov_stride", fmt.Sprint(n.VFStride), "sriov_drivers_autoprobe", "1")
	m.writeVFs(t, n, 0)
}

// function is one of a NIC's: the PF or a VF.
func (n NIC) function(a topology.Address, device, driver, netdev string) function {
	return function{
		addr: a, vendor: n.Vendor, device: device, subsystem: n.Subsystem, class: n.class(), numaNode: n.NUMANode,
		driver: driver, netdev: netdev, infiniband: n.InfiniBand, rdma: n.rdma(netdev), pKey: cmp.Or(n.PKey, "0xffff"),
		speed: n.Speed, up: !n.Down,
	}
}

// writeVFs writes the VFs of a NIC from the given index on.
func (m Machine) writeVFs(t *tree, n NIC, from int) {
	addrs, err := n.addresses()
	if err != nil {
		t.err = err
		return
	}
	pf := addrs[0]
	parent, _ := n.parentDir(pf)
	netdev := n.netdev(pf)
	dir := parent + "/" + pf.String()
	t.file(dir+"/sriov_numvfs", "%d", n.VFs)
	for i := from; i < n.VFs; i++ {
		vf := addrs[1+i]
		driver, vfNetdev := n.VFDriver, ""
		if slices.Contains(n.VFsOnVFIO, i) {
			driver = "vfio-pci"
		} else if netdev != "" {
			vfNetdev = fmt.Sprintf("%sv%d", netdev, i)
		}
		f := n.function(vf, n.VFDevice, driver, vfNetdev)
		vfDir := parent + "/" + vf.String()
		m.writeFunction(t, vfDir, f)
		t.link(vfDir+"/physfn", dir)
		t.link(fmt.Sprintf("%s/virtfn%d", dir, i), vfDir)
		if n.Switchdev {
			t.writeNetdev(dir, function{
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
	if f.acpiIndex != "" {
		t.file(dir+"/acpi_index", "%s", f.acpiIndex)
	}
	if !m.NoIOMMU {
		t.iommuGroup(dir, f.addr)
	}
	if f.driver != "" {
		t.bind(dir, f.addr, f.driver)
	}
	if f.netdev != "" {
		t.writeNetdev(dir, f)
	}
	if f.rdma != "" {
		t.writeRDMA(dir, f, number(f.addr))
	}
}

// number numbers what belongs to a function alone, for a tree that was changed
// to number it as one that was built.
func number(a topology.Address) int { return int(a.Domain)<<16 | routingID(a) }

func (t *tree) iommuGroup(dir string, a topology.Address) string {
	group := fmt.Sprintf("sys/kernel/iommu_groups/%d", number(a))
	t.mkdir(group)
	t.link(dir+"/iommu_group", group)
	return group
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

// bind gives a device its driver, and what comes with that.
func (t *tree) bind(dir string, a topology.Address, driver string) {
	t.mkdir(driversDir + "/" + driver)
	t.link(driversDir+"/"+driver+"/"+a.String(), dir)
	t.link(dir+"/driver", driversDir+"/"+driver)
	switch driver {
	case "vfio-pci":
		if _, err := os.Lstat(filepath.Join(t.dir, dir, "iommu_group")); err != nil {
			t.file(t.iommuGroup(dir, a)+"/name", noIOMMU)
		}
	case "uio_pci_generic", "igb_uio":
		uio := fmt.Sprintf("uio%d", number(a))
		t.file(dir+"/uio/"+uio+"/name", "%s", driver)
		t.link("sys/class/uio/"+uio, dir+"/uio/"+uio)
	}
}

func (t *tree) writeNetdev(dir string, f function) {
	net := dir + "/net/" + f.netdev
	rid := routingID(f.addr)
	t.attrs(net, "address", fmt.Sprintf("02:00:%02x:%02x:%02x:%02x", f.addr.Domain&0xff, len(f.port), rid>>8, rid&0xff))
	kind := 1 // ARPHRD_ETHER
	if f.infiniband {
		kind = 32 // ARPHRD_INFINIBAND
	}
	t.file(net+"/type", "%d", kind)
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
