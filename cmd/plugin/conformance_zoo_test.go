package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/numalane/numalane/internal/sysfstest"
)

// The zoo has a device for each thing that a selector can ask. Its functions,
// by the PF or the port:
const (
	x710v0, x710v1, x710v2 = "0000:3b:02.0", "0000:3b:02.1", "0000:3b:02.2" // PF 0000:3b:00.0, eno1, NUMA node 0
	x710dpdk               = "0000:3b:02.3"                                 // bound to vfio-pci
	x710free               = "0000:3d:00.0"                                 // a PF without VFs, eno2
	ixgbe0, ixgbe1         = "0000:af:10.0", "0000:af:10.2"                 // PF 0000:af:00.0, without an interface, NUMA node 1
	e810v0                 = "0000:5e:01.0"                                 // PF 0000:5e:00.0, with a DDP package
	cx5v0, cx5v1, cx5v2    = "0000:86:00.2", "0000:86:00.3", "0000:86:00.4" // PF 0000:86:00.0, p0, in switchdev mode: vDPA vhost, vDPA virtio, none
	sf4, sf88              = "mlx5_core.sf.6", "mlx5_core.sf.90"            // its subfunctions
	ib0, ib1               = "0000:01:00.1", "0000:01:00.2"                 // PF 0000:01:00.0, InfiniBand; all of the second is in a pod
	enaOut, ena            = "0000:00:05.0", "0000:00:06.0"                 // the node's way out, and another, with ACPI index 101
	fec0, fec1, fecFree    = "0000:d8:02.0", "0000:d8:02.1", "0000:da:00.0" // accelerators: VFs, and a PF without VFs with ACPI index 9
)

// zooFacts is what only netlink tells, where a capture keeps it.
const zooFacts = `{"devices": {
  "` + enaOut + `": {"uplink": "IPv4 default route by eth0"},
  "` + e810v0 + `": {"ddpProfile": "ICE COMMS Package"},
  "` + ib1 + `": {"rdmaCapable": true}
}}`

// zooDevices are all that a pool of a type can have, in the order of its list.
var zooDevices = map[string][]string{
	"netDevice": {
		ena, ib0, ib1, x710v0, x710v1, x710v2, x710dpdk, x710free, e810v0, cx5v0, cx5v1, cx5v2, ixgbe0, ixgbe1,
	},
	"accelerator":  {fec0, fec1, fecFree},
	"auxNetDevice": {sf4, sf88},
}

func zooMachine() sysfstest.Machine {
	eno1, eno2 := sysfstest.X710("0000:3b:00.0", 0, 4), sysfstest.X710(x710free, 0, 0)
	eno1.Netdev, eno1.VFsOnVFIO, eno2.Netdev = "eno1", []int{3}, "eno2"
	p0 := sysfstest.ConnectX5("0000:86:00.0", 1, 3)
	p0.Netdev, p0.ACPIIndex, p0.Switchdev, p0.Subfunctions = "p0", "7", true, []int{4, 88}
	ib := sysfstest.ConnectX6("0000:01:00.0", 0, 2)
	ib.PKey = "0x8001"
	eth1, fec := sysfstest.ENA(ena, 0), sysfstest.ACC100(fecFree, 1, 0)
	eth1.ACPIIndex, fec.ACPIIndex = "101", "9"
	m := sysfstest.Uniform(2, 2, 1,
		eno1, eno2, sysfstest.Intel82599("0000:af:00.0", 1, 2), sysfstest.E810("0000:5e:00.0", 0, 1), p0, ib,
		sysfstest.ENA(enaOut, 0), eth1, sysfstest.ACC100("0000:d8:00.0", 1, 2), fec)
	m.Misc = []string{"vhost-net", "tun", "rdma_cm"}
	return m
}

// writeZoo makes the zoo in a folder of the test's.
func writeZoo(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	must(t, errors.Join(
		zooMachine().Write(dir),
		sysfstest.RemoveNetdev(dir, "enp175s0f0"),
		sysfstest.AddVDPA(dir, cx5v0, "vdpa0", "vhost_vdpa"),
		sysfstest.AddVDPA(dir, cx5v1, "vdpa1", "virtio_vdpa"),
		sysfstest.Bind(dir, ib1, "mlx5_core"), // which leaves it without interfaces
		os.Mkdir(filepath.Join(dir, "numalane"), 0o755),
		os.WriteFile(filepath.Join(dir, "numalane", "facts.json"), []byte(zooFacts), 0o644),
	))
	return dir
}

// zoo is one tree for all rows that do not change it.
type zoo struct{ at string }

// node is a node that is the zoo.
func (z *zoo) node(t *testing.T, config string) *node {
	t.Helper()
	return newNodeAt(t, z.at, config)
}

// takes runs the plugin on the zoo with a pool of the selectors, given as JSON,
// and a second pool of the type for all that the first leaves. Each has to list
// just its own.
func (z *zoo) takes(deviceType, selectors string, want ...string) func(*testing.T) {
	return func(t *testing.T) {
		t.Helper()
		n := z.node(t, `{"resourceList": [
			{"resourceName": "net", "deviceType": "`+deviceType+`", "selectors": `+selectors+`},
			{"resourceName": "rest", "deviceType": "`+deviceType+`", "selectors": `+anyOf(deviceType)+`}]}`)
		n.command()
		rest := slices.DeleteFunc(slices.Clone(zooDevices[deviceType]), func(id string) bool { return slices.Contains(want, id) })
		if len(rest) > 0 {
			n.expectIDs("intel.com/rest", rest...)
		}
		// Without devices it is not registered, and its list stays empty.
		n.expectIDs("intel.com/net", want...)
	}
}

// anyOf is a selector of every device of a type.
func anyOf(deviceType string) string {
	if deviceType == "auxNetDevice" {
		return `{"auxTypes": ["sf"]}`
	}
	return `{}`
}

// all runs tests one after the other.
func all(tests ...func(*testing.T)) func(*testing.T) {
	return func(t *testing.T) {
		t.Helper()
		for _, test := range tests {
			test(t)
		}
	}
}

// refuses starts the plugin with a resource, which has to end with an error that
// says each of these.
func refuses(resource string, says ...string) func(*testing.T) {
	return refusesFile(`{"resourceList": [`+resource+`]}`, says...)
}

func refusesFile(config string, says ...string) func(*testing.T) {
	return func(t *testing.T) {
		t.Helper()
		file := filepath.Join(t.TempDir(), "config.json")
		must(t, os.WriteFile(file, []byte(config), 0o644))
		// If it is taken, the plugin goes on until it is told to end.
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		err := newCommand([]string{"--config-file", file, "--sysfs-root", t.TempDir(), "--kubelet-dir", t.TempDir(), "--listen="}).ExecuteContext(ctx)
		for _, text := range says {
			if err == nil || !strings.Contains(err.Error(), text) {
				t.Errorf("started with %s, it ends with %v, want %q", config, err, text)
			}
		}
	}
}
