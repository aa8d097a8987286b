package topology

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
)

// What few devices have is looked for once a host, in its class or on its bus,
// and not below a thousand VFs. The links there tell the owner.

// links are the entries of a folder of links, and where each leads.
func (r *reader) links(dir string) map[string]string {
	found, err := names(dir)
	if err != nil {
		r.problem(dir, err)
	}
	places := make(map[string]string, len(found))
	for _, name := range found {
		place, err := os.Readlink(filepath.Join(dir, name))
		if err == nil {
			places[name] = place
		} else if !missing(err) {
			r.problem(filepath.Join(dir, name), err)
		}
	}
	return places
}

// uioDevices are the userspace I/O devices, by the name of the device that they
// hang below: .../0000:3b:02.0/uio/uio0.
func (r *reader) uioDevices() map[string]string {
	owners := map[string]string{}
	for name, place := range r.links(filepath.Join(r.sys, "class/uio")) {
		owner := filepath.Base(filepath.Dir(filepath.Dir(place)))
		if first, ok := owners[owner]; !ok || name < first {
			owners[owner] = name
		}
	}
	return owners
}

// vdpaDevice is a vDPA device and what of it could not be read.
type vdpaDevice struct {
	VDPADevice
	err error
}

// vdpaDevices are the vDPA devices, by the name of the function that they hang
// below: .../0000:3b:00.2/vdpa0.
func (r *reader) vdpaDevices() map[string]vdpaDevice {
	dir := filepath.Join(r.sys, "bus/vdpa/devices")
	owners := map[string]vdpaDevice{}
	for name, place := range r.links(dir) {
		owner := filepath.Base(filepath.Dir(place))
		if first, ok := owners[owner]; !ok || name < first.Name {
			owners[owner] = readVDPA(filepath.Join(dir, name), name)
		}
	}
	return owners
}

func readVDPA(dir, name string) vdpaDevice {
	t := torn{}
	dev := VDPADevice{Name: name, Driver: t.follow(dir, "driver")}
	if dev.Driver == "vhost_vdpa" {
		found, err := names(dir)
		t.note(name, err)
		for _, n := range found {
			if strings.HasPrefix(n, "vhost-vdpa-") {
				dev.CharDevice = n
			}
		}
	}
	return vdpaDevice{dev, errors.Join(t...)}
}

// misc tells whether the kernel has a misc device.
func (r *reader) misc(name string) bool {
	_, err := os.Lstat(filepath.Join(r.sys, "class/misc", name))
	return err == nil
}

// vhostNet looks in two places. A container's /dev has not what the host's has,
// and the sysfs is whole. But the sysfs tells a device once its module is
// loaded, and modules that load when their node is opened have the node from
// boot (kmod static-nodes).
func (r *reader) vhostNet() bool {
	node := func(name string) bool {
		_, err := os.Lstat(filepath.Join(r.dev, name))
		return r.dev != "" && err == nil
	}
	return (r.misc("vhost-net") || node("vhost-net")) && (r.misc("tun") || node("net/tun"))
}
