package topology

import (
	"os"
	"slices"
	"strconv"
	"strings"
)

// netdevs reads a device's network interfaces, those of its own port first.
// The netdev of a virtio NIC sits one level down, in virtioN.
func netdevs(dir string, dev *Device) ([]Netdev, error) {
	if dev.Driver == "virtio-pci" {
		ids, err := numbered(dir, "virtio")
		if err != nil {
			return nil, err
		}
		if len(ids) > 0 {
			dir = dir + "/virtio" + strconv.Itoa(ids[0])
		}
	}
	dir = dir + "/net"
	found, err := names(dir)
	if err != nil {
		return nil, err
	}
	if len(found) > 1 {
		slices.SortStableFunc(found, func(a, b string) int {
			return representor(dir, a) - representor(dir, b)
		})
	}
	var devs []Netdev
	for _, name := range found {
		n := Netdev{Name: name}
		// Unreadable while the interface is administratively down: not up.
		carrier, err := text(dir + "/" + name + "/carrier")
		n.Up = err == nil && carrier == "1"
		// A VF's speed is that of its PF, and to ask for it costs a firmware
		// command under the RTNL lock on some drivers.
		if n.Up && dev.VF == nil {
			if speed, err := number(dir + "/" + name + "/speed"); err == nil {
				n.Speed = max(speed, 0)
			}
		}
		devs = append(devs, n)
	}
	return devs, nil
}

// representor is 1 for the netdev that stands for a VF or a subfunction in
// switchdev mode: it has the PF's PCI device as its parent, and a port name
// like pf0vf3, where the PF's own is p0 (networking/representors.rst).
func representor(dir, name string) int {
	port, err := text(dir + "/" + name + "/phys_port_name")
	if err == nil && strings.Contains(port, "pf") {
		return 1
	}
	return 0
}

// names lists a folder, which may be missing.
func names(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if missing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all, nil
}
