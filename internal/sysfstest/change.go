package sysfstest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/numalane/numalane/pkg/topology"
)

// SetVFs makes a PF of a written tree have so many VFs, as a write to its
// sriov_numvfs does, and returns the machine as it then is.
func (m Machine) SetVFs(dir, pf string, vfs int) (Machine, error) {
	i := slices.IndexFunc(m.NICs, func(n NIC) bool { return n.Address == pf })
	if i < 0 {
		return m, fmt.Errorf("set VFs: no NIC %s", pf)
	}
	before := m.NICs[i]
	m.NICs = slices.Clone(m.NICs)
	m.NICs[i].VFs = vfs
	if err := m.validate(); err != nil {
		return m, fmt.Errorf("set VFs: %w", err)
	}
	for n := vfs; n < before.VFs; n++ {
		a, err := before.VFAddress(n)
		if err != nil {
			return m, fmt.Errorf("set VFs: %w", err)
		}
		if err := os.Remove(filepath.Join(dir, pciDir, pf, fmt.Sprintf("virtfn%d", n))); err != nil {
			return m, fmt.Errorf("set VFs: %w", err)
		}
		if before.Switchdev {
			if err := RemoveNetdev(dir, fmt.Sprintf("%s_%d", netdevOf(before), n)); err != nil {
				return m, err
			}
		}
		if err := RemoveDevice(dir, a.String()); err != nil {
			return m, err
		}
	}
	t := newTree(dir)
	m.writeVFs(t, m.NICs[i], before.VFs)
	if t.err != nil {
		return m, fmt.Errorf("set VFs: %w", t.err)
	}
	return m, nil
}

func netdevOf(n NIC) string {
	addrs, err := n.addresses()
	if err != nil {
		return n.Netdev
	}
	return n.netdev(addrs[0])
}

// SetCarrier plugs or unplugs the cable of a network interface.
func SetCarrier(dir, netdev string, up bool) error {
	net, err := resolve(dir, "sys/class/net/"+netdev)
	if err != nil {
		return fmt.Errorf("set carrier: %w", err)
	}
	t := newTree(dir)
	if t.carrier(net, up); t.err != nil {
		return fmt.Errorf("set carrier: %w", t.err)
	}
	return nil
}

// RemoveNetdev takes a network interface away from its device, as its move to
// another network namespace does.
func RemoveNetdev(dir, netdev string) error {
	link := "sys/class/net/" + netdev
	net, err := resolve(dir, link)
	if err != nil {
		return fmt.Errorf("remove netdev: %w", err)
	}
	return remove(dir, "netdev", link, net)
}

// Bind gives a device another driver. What the old one made goes with it: the
// interfaces of every kind, and a group of VFIO's own.
func Bind(dir, addr, driver string) error {
	a, err := topology.ParseAddress(addr)
	if err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	dev, err := resolve(dir, pciDir+"/"+addr)
	if err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	if old, err := os.Readlink(filepath.Join(dir, dev, "driver")); err == nil {
		if err := remove(dir, "driver", driversDir+"/"+filepath.Base(old)+"/"+addr, dev+"/driver"); err != nil {
			return err
		}
	}
	if err := removeInterfaces(dir, dev); err != nil {
		return err
	}
	if group, err := resolve(dir, dev+"/iommu_group"); err == nil {
		if _, err := os.Lstat(filepath.Join(dir, group, "name")); err == nil {
			if err := remove(dir, "group", dev+"/iommu_group", group); err != nil {
				return err
			}
		}
	}
	t := newTree(dir)
	if t.bind(dev, a, driver); t.err != nil {
		return fmt.Errorf("bind: %w", t.err)
	}
	return nil
}

// RemoveDevice takes a PCI device out of the tree, with all links to it but
// the virtfn link of its PF.
func RemoveDevice(dir, addr string) error {
	link := pciDir + "/" + addr
	dev, err := resolve(dir, link)
	if err != nil {
		return fmt.Errorf("remove device: %w", err)
	}
	if err := removeInterfaces(dir, dev); err != nil {
		return err
	}
	gone := []string{link}
	if driver, err := os.Readlink(filepath.Join(dir, dev, "driver")); err == nil {
		gone = append(gone, driversDir+"/"+filepath.Base(driver)+"/"+addr)
	}
	if group, err := resolve(dir, dev+"/iommu_group"); err == nil {
		gone = append(gone, group)
	}
	return remove(dir, "device", append(gone, dev)...)
}

// RemoveFile removes a file, link or folder of a PCI device.
func RemoveFile(dir, addr, file string) error {
	if _, err := os.Lstat(filepath.Join(dir, pciDir, addr, file)); err != nil {
		return fmt.Errorf("remove file: %w", err)
	}
	return remove(dir, "file", pciDir+"/"+addr+"/"+file)
}

// MakeUnreadable makes reads of a device's file fail, also for root.
func MakeUnreadable(dir, addr, file string) error {
	if err := RemoveFile(dir, addr, file); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(dir, pciDir, addr, file), 0o755); err != nil {
		return fmt.Errorf("make unreadable: %w", err)
	}
	return nil
}

// Relink points a link of a PCI device elsewhere.
func Relink(dir, addr, link, target string) error {
	if err := RemoveFile(dir, addr, link); err != nil {
		return err
	}
	if err := os.Symlink(target, filepath.Join(dir, pciDir, addr, link)); err != nil {
		return fmt.Errorf("relink: %w", err)
	}
	return nil
}

func removeInterfaces(dir, dev string) error {
	for _, class := range []string{"net", "infiniband", "infiniband_verbs", "infiniband_mad", "uio"} {
		entries, _ := os.ReadDir(filepath.Join(dir, dev, class))
		for _, e := range entries {
			if err := remove(dir, class, "sys/class/"+class+"/"+e.Name()); err != nil {
				return err
			}
		}
		if err := remove(dir, class, dev+"/"+class); err != nil {
			return err
		}
	}
	return removeVDPA(dir, dev)
}

func remove(dir, what string, rels ...string) error {
	for _, rel := range rels {
		if err := os.RemoveAll(filepath.Join(dir, rel)); err != nil {
			return fmt.Errorf("remove %s: %w", what, err)
		}
	}
	return nil
}

// resolve is where a link of the tree leads, below dir.
func resolve(dir, rel string) (string, error) {
	top, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return "", err
	}
	path, err := filepath.EvalSymlinks(filepath.Join(dir, rel))
	if err != nil {
		return "", err
	}
	return strings.TrimPrefix(path, top+"/"), nil
}
