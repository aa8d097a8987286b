package topology

import (
	"errors"
	"os"
	"strconv"
	"strings"
)

// netTypes are the names of net/*/type, the ARPHRD numbers of if_arp.h, as
// netlink's EncapType has them.
var netTypes = map[string]string{"1": "ether", "32": "infiniband"}

// netdevs reads a device's network interfaces, those of its own port first, and
// which of them is a PF's own: none, while only representors are there. The
// netdev of a virtio NIC sits one level down, in virtioN.
func netdevs(dir string, dev *Device) (devs []Netdev, own string, err error) {
	if dev.Driver == "virtio-pci" {
		ids, err := numbered(dir, "virtio")
		if err != nil {
			return nil, "", err
		}
		if len(ids) > 0 {
			dir = dir + "/virtio" + strconv.Itoa(ids[0])
		}
	}
	dir = dir + "/net"
	found, err := names(dir)
	if err != nil {
		return nil, "", err
	}
	if dev.VF == nil || len(found) > 1 { // a VF's one netdev is its own
		var mine, others []string
		for _, name := range found {
			if representor(dir, name) {
				others = append(others, name)
			} else {
				mine = append(mine, name)
			}
		}
		if len(mine) > 0 {
			own = mine[0]
		}
		found = append(mine, others...)
	}
	t := torn{}
	for _, name := range found {
		n := Netdev{Name: name}
		kind, err := text(dir + "/" + name + "/type")
		t.note(name+"/type", err)
		n.Type = netTypes[kind]
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
	return devs, own, errors.Join(t...)
}

// representor tells the netdev that stands for a VF or a subfunction in
// switchdev mode: it has the PF's PCI device as its parent, and a port name
// like pf0vf3, where the PF's own is p0 (networking/representors.rst).
func representor(dir, name string) bool {
	port, err := text(dir + "/" + name + "/phys_port_name")
	return err == nil && strings.Contains(port, "pf")
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
