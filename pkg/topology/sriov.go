package topology

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// readPF reads the SR-IOV capability of a device that is no VF, if it has one.
// Its virtfn links are read here once for all of its VFs.
func (d *devices) readPF(dir string, dev *Device) error {
	total, err := number(dir + "/sriov_totalvfs")
	if missing(err) {
		return nil
	}
	if err != nil {
		return fileError("sriov_totalvfs", err)
	}
	pf := &PhysicalFunction{TotalVFs: total}
	dev.PF = pf
	// Not from sriov_numvfs: whoever reads that waits, for seconds and with all
	// other devices, until a write to it has made or removed all VFs
	// (drivers/pci/iov.c, sriov_numvfs_show takes the device's lock). The links
	// come and go with each VF.
	indexes, err := numbered(dir, "virtfn")
	if err != nil {
		return fileError("virtfn", err)
	}
	pf.NumVFs = len(indexes)
	var errs []error
	for _, n := range indexes {
		link := "virtfn" + strconv.Itoa(n)
		target, err := os.Readlink(dir + "/" + link)
		if err != nil {
			errs = append(errs, fileError(link, err))
			continue
		}
		vf, err := ParseAddress(filepath.Base(target))
		if err != nil {
			errs = append(errs, fileError(link, err))
			continue
		}
		pf.VFs = append(pf.VFs, vf)
		d.virtfn[vf] = virtfn{pf: dev.Address, index: n}
	}
	return errors.Join(errs...)
}

// linkFunctions joins VFs and PFs from both sides: a VF's index is the N of
// its PF's virtfnN, and a link to a device that is not there is a problem of
// the device that holds it.
func (d *devices) linkFunctions() {
	byAddr := make(map[Address]*Device, len(d.host.Devices))
	for i := range d.host.Devices {
		byAddr[d.host.Devices[i].Address] = &d.host.Devices[i]
	}
	for i := range d.host.Devices {
		dev := &d.host.Devices[i]
		switch {
		case dev.PF != nil:
			for _, vf := range dev.PF.VFs {
				if byAddr[vf] == nil {
					dev.addProblem(fmt.Errorf("virtfn%d: %s is not there", d.virtfn[vf].index, vf))
				}
			}
		case dev.VF != nil && !dev.VF.PF.IsZero():
			pf := byAddr[dev.VF.PF]
			if pf == nil {
				dev.addProblem(fmt.Errorf("physfn: %s is not there", dev.VF.PF))
				continue
			}
			dev.VF.PFName = d.uplink[pf.Address]
			if link, ok := d.virtfn[dev.Address]; ok && link.pf == pf.Address {
				dev.VF.Index = link.index
			} else {
				dev.addProblem(fmt.Errorf("physfn: %s has no virtfn link to it", pf.Address))
			}
		}
	}
}
