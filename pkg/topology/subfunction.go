package topology

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// subfunctionType is the one type of auxiliary device that is a function of its
// own. The others (eth, rdma, vnet) are what drivers split a function into.
const subfunctionType = "sf"

// parseAuxiliary takes apart the name of an auxiliary device, driver.type.id
// (drivers/base/auxiliary.c), when it is a subfunction.
func parseAuxiliary(name string) (*AuxiliaryDevice, bool) {
	parts := strings.Split(name, ".")
	if len(parts) != 3 || parts[1] != subfunctionType {
		return nil, false
	}
	return &AuxiliaryDevice{Name: name, Type: parts[1], SFNum: -1}, true
}

// readSubfunctions reads the network devices of the auxiliary bus. PFs and VFs
// are linked before, for the parents to tell theirs.
func (d *devices) readSubfunctions() {
	dir := filepath.Join(d.sys, "bus/auxiliary/devices")
	found, err := names(dir)
	if err != nil {
		d.problem(dir, err)
	}
	for _, name := range found {
		aux, ok := parseAuxiliary(name)
		if !ok {
			continue
		}
		parent, err := d.parent(filepath.Join(dir, name))
		switch {
		case err != nil:
			d.problem(filepath.Join(dir, name), err)
		case parent != nil:
			d.host.Subfunctions = append(d.host.Subfunctions, d.subfunction(filepath.Join(dir, name), aux, parent))
		}
	}
}

// parent is the PCI device that an auxiliary device hangs below; nil when it is
// no network device.
func (d *devices) parent(auxDir string) (*Device, error) {
	place, err := os.Readlink(auxDir)
	if missing(err) {
		return nil, errors.New("went away during the scan")
	}
	if err != nil {
		return nil, err
	}
	above := d.bridges(place)
	if len(above) == 0 {
		return nil, nil
	}
	if dev, ok := d.host.Device(above[0]); ok {
		if dev.Accelerator() {
			return nil, nil
		}
		return dev, nil
	}
	if _, err := os.Stat(filepath.Join(d.dir, above[0].String())); missing(err) {
		return nil, fmt.Errorf("its PCI device %s is not there", above[0])
	}
	return nil, nil
}

func (d *devices) subfunction(dir string, aux *AuxiliaryDevice, parent *Device) Device {
	sf := Device{
		Address: parent.Address, Class: parent.Class, Vendor: parent.Vendor, Product: parent.Product,
		VendorName: parent.VendorName, ProductName: parent.ProductName, Driver: parent.Driver, ACPIIndex: parent.ACPIIndex,
		NUMANode: parent.NUMANode, Upstream: slices.Clone(parent.Upstream), Aux: aux,
		VF: &VirtualFunction{PF: parent.Address, PFName: d.uplink[parent.Address], Index: -1},
	}
	if parent.VF != nil {
		*sf.VF = *parent.VF
	}
	t := torn{}
	aux.Driver = t.follow(dir, "driver")
	n, err := text(dir + "/sfnum")
	t.note("sfnum", err)
	if err == nil {
		if aux.SFNum, err = strconv.Atoi(n); err != nil {
			aux.SFNum = -1
			t.note("sfnum", fmt.Errorf("%q is not a number", n))
		}
	}
	t = append(t, d.readInterfaces(dir, aux.Name, &sf))
	if parent.Problem != "" {
		t = append(t, fmt.Errorf("%s: %s", parent.Address, parent.Problem))
	}
	if err := errors.Join(t...); err != nil {
		sf.addProblem(err)
	}
	return sf
}
