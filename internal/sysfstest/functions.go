package sysfstest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/numalane/numalane/pkg/topology"
)

const (
	auxDir      = "sys/bus/auxiliary/devices"
	auxDrivers  = "sys/bus/auxiliary/drivers"
	vdpaDir     = "sys/bus/vdpa/devices"
	vdpaDrivers = "sys/bus/vdpa/drivers"
	// firstSF is where the numbers of subfunctions' devices begin, beyond those
	// of any PCI function in domain 0.
	firstSF = 1 << 16
)

// writeRDMA writes an infiniband device with its character devices.
func (t *tree) writeRDMA(dir string, f function, n int) {
	rdma := dir + "/infiniband/" + f.rdma
	t.file(rdma+"/node_type", "1: CA")
	t.file(rdma+"/ports/1/pkeys/0", "%s", f.pKey)
	t.link("sys/class/infiniband/"+f.rdma, rdma)
	for class, nodes := range map[string][]string{"infiniband_verbs": {"uverbs"}, "infiniband_mad": {"umad", "issm"}} {
		for _, node := range nodes {
			name := fmt.Sprintf("%s%d", node, n)
			t.file(dir+"/"+class+"/"+name+"/ibdev", "%s", f.rdma)
			t.link("sys/class/"+class+"/"+name, dir+"/"+class+"/"+name)
		}
	}
}

// SubfunctionName is the name that a NIC's subfunction has on the auxiliary
// bus. The kernel numbers them as they come; here they are numbered by sfnum.
func (n NIC) SubfunctionName(sfnum int) string { return fmt.Sprintf("%s.sf.%d", n.Driver, sfnum+2) }

// writeSubfunctions writes a NIC's subfunctions, and beside them the auxiliary
// devices that its driver splits them into.
func (m Machine) writeSubfunctions(t *tree, dir string, n NIC, pf topology.Address) {
	netdev := n.netdev(pf)
	for _, sfnum := range n.Subfunctions {
		name := n.SubfunctionName(sfnum)
		sf := dir + "/" + name
		t.file(sf+"/sfnum", "%d", sfnum)
		t.link(auxDir+"/"+name, sf)
		t.mkdir(auxDrivers + "/" + n.Driver + ".sf")
		t.link(sf+"/driver", auxDrivers+"/"+n.Driver+".sf")
		f := n.function(pf, n.Device, n.Driver, fmt.Sprintf("%ss%d", netdev, sfnum))
		t.writeNetdev(sf, f)
		if f.rdma != "" {
			t.writeRDMA(sf, f, firstSF+sfnum)
		}
		eth := fmt.Sprintf("%s.eth.%d", n.Driver, sfnum+2)
		t.mkdir(sf + "/" + eth)
		t.link(auxDir+"/"+eth, sf+"/"+eth)
		if n.Switchdev {
			t.writeNetdev(dir, function{
				addr: pf, netdev: fmt.Sprintf("%s_sf%d", netdev, sfnum), up: !n.Down, speed: n.Speed,
				port: fmt.Sprintf("pf%dsf%d", pf.Function, sfnum),
			})
		}
	}
}

// AddVDPA gives a function, by its PCI address or its name on the auxiliary
// bus, a vDPA device that is bound to a driver: vhost_vdpa, virtio_vdpa, or
// none when empty.
func AddVDPA(dir, function, name, driver string) error {
	parent, err := resolve(dir, pciDir+"/"+function)
	if err != nil {
		parent, err = resolve(dir, auxDir+"/"+function)
	}
	if err != nil {
		return fmt.Errorf("add vDPA device: %w", err)
	}
	dev := parent + "/" + name
	t := newTree(dir)
	t.mkdir(dev)
	t.link(vdpaDir+"/"+name, dev)
	if driver != "" {
		t.mkdir(vdpaDrivers + "/" + driver)
		t.link(vdpaDrivers+"/"+driver+"/"+name, dev)
		t.link(dev+"/driver", vdpaDrivers+"/"+driver)
	}
	if driver == "vhost_vdpa" {
		taken, _ := filepath.Glob(filepath.Join(dir, vdpaDir, "*", "vhost-vdpa-*"))
		t.mkdir(fmt.Sprintf("%s/vhost-vdpa-%d", dev, len(taken)))
	}
	if t.err != nil {
		return fmt.Errorf("add vDPA device: %w", t.err)
	}
	return nil
}

// removeVDPA takes away the vDPA devices of a function.
func removeVDPA(dir, dev string) error {
	found, err := os.ReadDir(filepath.Join(dir, vdpaDir))
	if err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("remove vDPA device: %w", err)
	}
	for _, e := range found {
		at, err := resolve(dir, vdpaDir+"/"+e.Name())
		if err != nil {
			return fmt.Errorf("remove vDPA device: %w", err)
		}
		if filepath.Dir(at) != dev {
			continue
		}
		gone := []string{vdpaDir + "/" + e.Name(), at}
		if driver, err := os.Readlink(filepath.Join(dir, at, "driver")); err == nil {
			gone = slices.Insert(gone, 0, vdpaDrivers+"/"+filepath.Base(driver)+"/"+e.Name())
		}
		if err := remove(dir, "vDPA device", gone...); err != nil {
			return err
		}
	}
	return nil
}
