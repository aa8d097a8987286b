package main

import (
	"strings"
	"testing"

	"github.com/numalane/numalane/internal/sysfstest"
)

func selectorRows(z *zoo) []row {
	const everywhere = "all types; of a subfunction its PCI parent's"
	x710 := []string{x710v0, x710v1, x710v2, x710dpdk}
	return []row{
		{
			name: "`vendors`", peer: everywhere + ". Lower case, without 0x; anything else matches nothing", ours: "the same devices; digits in either case, and what no device can have is a mistake",
			test: all(
				z.takes("netDevice", `{"vendors": ["1d0f", "15B3"]}`, ena, ib0, ib1, cx5v0, cx5v1, cx5v2),
				z.takes("accelerator", `{"vendors": ["8086"]}`, fec0, fec1, fecFree),
				z.takes("auxNetDevice", `{"auxTypes": ["sf"], "vendors": ["15b3"]}`, sf4, sf88),
				refuses(`{"resourceName": "net", "selectors": {"vendors": ["0x8086"]}}`, `resourceList[0].selectors.vendors[0]: "0x8086"`)),
		},
		{
			name: "`devices`", peer: everywhere + ". Of a VF its own id, not its PF's",
			test: all(
				z.takes("netDevice", `{"devices": ["154c", "10ed"]}`, append(x710, ixgbe0, ixgbe1)...),
				z.takes("netDevice", `{"devices": ["1572"]}`, x710free),
				z.takes("accelerator", `{"devices": ["0d5d"]}`, fec0, fec1),
				z.takes("auxNetDevice", `{"auxTypes": ["sf"], "devices": ["1017"]}`, sf4, sf88)),
		},
		{
			name: "`drivers`", peer: everywhere,
			test: all(
				z.takes("netDevice", `{"drivers": ["vfio-pci", "ixgbevf"]}`, x710dpdk, ixgbe0, ixgbe1),
				z.takes("accelerator", `{"drivers": ["vfio-pci"]}`, fec0, fec1),
				z.takes("auxNetDevice", `{"auxTypes": ["sf"], "drivers": ["mlx5_core"]}`, sf4, sf88)),
		},
		{
			name: "`pciAddresses`", peer: "netDevice, accelerator. Text as the kernel writes it, without ranges", ours: "the same; digits in either case, and what is no address is a mistake",
			test: all(
				z.takes("netDevice", `{"pciAddresses": ["`+x710v1+`", "0000:AF:10.2"]}`, x710v1, ixgbe1),
				z.takes("accelerator", `{"pciAddresses": ["`+fec1+`"]}`, fec1),
				refuses(`{"resourceName": "net", "selectors": {"pciAddresses": ["0000:3b:02.0#0-3"]}}`, "VF ranges belong to rootDevices and pfNames")),
		},
		{
			name: "`acpiIndexes`", peer: "netDevice", test: z.takes("netDevice", `{"acpiIndexes": ["101", "102"]}`, ena),
		},
		{
			name: "`acpiIndexes` of the other types", peer: "promised by its README for accelerators; ignored, for subfunctions too", ours: "holds; of a subfunction its PCI parent's",
			test: all(
				z.takes("accelerator", `{"acpiIndexes": ["9"]}`, fecFree),
				z.takes("auxNetDevice", `{"auxTypes": ["sf"], "acpiIndexes": ["7"]}`, sf4, sf88),
				z.takes("auxNetDevice", `{"auxTypes": ["sf"], "acpiIndexes": ["8"]}`)),
		},
		{
			name: "`auxTypes`", peer: "auxNetDevice: the word in the middle of `mlx5_core.sf.4`",
			test: z.takes("auxNetDevice", `{"auxTypes": ["sf"]}`, sf4, sf88),
		},
		{
			name: "`pfNames`", peer: "netDevice, auxNetDevice: the PF's interface, in any case",
			test: all(
				z.takes("netDevice", `{"pfNames": ["ENO1"]}`, x710...),
				z.takes("auxNetDevice", `{"auxTypes": ["sf"], "pfNames": ["p0"]}`, sf4, sf88)),
		},
		{
			name: "`pfNames`, in switchdev mode", peer: "the PF's uplink representor",
			test: z.takes("netDevice", `{"pfNames": ["p0"]}`, cx5v0, cx5v1, cx5v2),
		},
		{
			name: "`pfNames`, PF without an interface", peer: "its devices never match", ours: "the same; `rootDevices` has them",
			test: all(
				z.takes("netDevice", `{"pfNames": ["enp175s0f0"]}`),
				z.takes("netDevice", `{"rootDevices": ["0000:af:00.0"]}`, ixgbe0, ixgbe1)),
		},
		{
			name: "`rootDevices`", peer: "netDevice, auxNetDevice: the PF's PCI address",
			test: all(
				z.takes("netDevice", `{"rootDevices": ["0000:3b:00.0"]}`, x710...),
				z.takes("auxNetDevice", `{"auxTypes": ["sf"], "rootDevices": ["0000:86:00.0"]}`, sf4, sf88)),
		},
		{
			name: "`linkTypes`", peer: "netDevice, auxNetDevice: `ether`, `infiniband`; of the VF's interface, or of the PF's where it has none. Both together: a warning", ours: "the same, without the warning; another word is a mistake",
			test: all(
				z.takes("netDevice", `{"linkTypes": ["infiniband"]}`, ib0, ib1),
				z.takes("netDevice", `{"linkTypes": ["ether"], "pfNames": ["eno1"]}`, x710...),
				z.takes("netDevice", `{"linkTypes": ["ether", "infiniband"], "pfNames": ["ibp1s0f0", "eno1#0"]}`, ib0, ib1, x710v0),
				z.takes("auxNetDevice", `{"auxTypes": ["sf"], "linkTypes": ["infiniband"]}`),
				refuses(`{"resourceName": "net", "selectors": {"linkTypes": ["IB"]}}`, "want ether or infiniband")),
		},
		{
			name: "`ddpProfiles`", peer: "netDevice: the name of the DDP package",
			test: z.takes("netDevice", `{"ddpProfiles": ["ICE COMMS Package"]}`, e810v0),
		},
		{
			name: "`ddpProfiles`, where it is read", peer: "devlink's `fw.app.name`, which looks unreachable in its code (arguments swapped), else the program `ddptool`",
			ours: "devlink's `fw.app.name`, of a VF its PF's; no other program", elsewhere: "internal/inventory TestDevlinkFacts",
		},
		{
			name: "`pKeys`", peer: "netDevice, InfiniBand alone: entry 0 of the table, as text", ours: "the same entry, as a number: `0x8001` and `0X8001`, `0x1` and `0x0001`",
			test: all(
				z.takes("netDevice", `{"pKeys": ["0x8001"]}`, ib0),
				z.takes("netDevice", `{"pKeys": ["0X8001"], "linkTypes": ["infiniband"]}`, ib0),
				z.takes("netDevice", `{"pKeys": ["0xffff"]}`)), // which RoCE has
		},
		{
			name: "`isRdma`", peer: "netDevice, auxNetDevice: with an RDMA device, or with devlink's `enable_rdma`, so that a VF whose RDMA device is in a pod stays",
			test: all(
				z.takes("netDevice", `{"isRdma": true}`, ib0, ib1, cx5v0, cx5v1, cx5v2),
				z.takes("auxNetDevice", `{"auxTypes": ["sf"], "isRdma": true}`, sf4, sf88)),
		},
		{
			name: "`needVhostNet`", peer: "netDevice, auxNetDevice: selects nothing",
			test: all(
				z.takes("netDevice", `{"needVhostNet": true, "pfNames": ["eno1"]}`, x710...),
				z.takes("auxNetDevice", `{"auxTypes": ["sf"], "needVhostNet": true}`, sf4, sf88)),
		},
		{
			name: "`vdpaType`", peer: "netDevice: `vhost`, `virtio`: the driver of its vDPA device", ours: "the same; another word is a mistake",
			test: all(
				z.takes("netDevice", `{"vdpaType": "vhost"}`, cx5v0),
				z.takes("netDevice", `{"vdpaType": "virtio"}`, cx5v1),
				refuses(`{"resourceName": "net", "selectors": {"vdpaType": "net"}}`, "want vhost or virtio")),
		},
		{
			name: "a key of another type", peer: "ignored in silence", ours: "ignored, with a warning",
			test: func(t *testing.T) {
				n := z.node(t, `{"resourceList": [{"resourceName": "net", "deviceType": "accelerator", "selectors": {"pfNames": ["eno1"]}}]}`)
				n.command()
				n.expectIDs("intel.com/net", fec0, fec1, fecFree)
				n.said("resourceList[0].selectors.pfNames: has no effect for deviceType accelerator")
			},
		},
		{
			name: "keys together", peer: "all have to hold, each with any of its entries; an empty list asks nothing",
			test: all(
				z.takes("netDevice", `{"vendors": ["8086"], "drivers": ["iavf", "vfio-pci"], "devices": ["154c"], "linkTypes": []}`, x710...),
				z.takes("netDevice", `{"vendors": ["8086"], "drivers": ["ena"]}`)),
		},
		{
			name: "the first resource that matches", peer: "has the device, and no other does",
			test: func(t *testing.T) {
				n := z.node(t, `{"resourceList": [{"resourceName": "one", "selectors": {"pfNames": ["eno1#1"]}},
					{"resourceName": "two", "selectors": {"pfNames": ["eno1#1-2"]}}, {"resourceName": "net", "selectors": {"pfNames": ["eno1"]}}]}`)
				n.command()
				n.expectIDs("intel.com/one", x710v1)
				n.expectIDs("intel.com/two", x710v2)
				n.expectIDs("intel.com/net", x710v0, x710dpdk)
			},
		},
		{
			name: "the first selector that matches", peer: "says what the device is handed out with: `isRdma`, `needVhostNet`",
			test: func(t *testing.T) {
				n := z.node(t, `{"resourceList": [{"resourceName": "net", "selectors": [{"pfNames": ["eno1#0"], "needVhostNet": true}, {"pfNames": ["eno1#0-1"]}]}]}`)
				n.command()
				n.expectIDs("intel.com/net", x710v0, x710v1)
				n.expectDevices("intel.com/net", x710v0, "/dev/vhost-net", "/dev/net/tun")
				n.expectDevices("intel.com/net", x710v1)
			},
		},
	}
}

func rangeRows(z *zoo) []row {
	pf := func(entries ...string) string { return `{"pfNames": ["` + strings.Join(entries, `", "`) + `"]}` }
	mistake := func(entry, says string) func(*testing.T) {
		return refuses(`{"resourceName": "net", "selectors": `+pf(entry)+`}`, "resourceList[0].selectors.pfNames[0]", says)
	}
	return []row{
		{name: "`eno1`", peer: "all VFs of the PF", test: z.takes("netDevice", pf("eno1"), x710v0, x710v1, x710v2, x710dpdk)},
		{name: "`eno1#1`", peer: "one VF, counted from 0", test: z.takes("netDevice", pf("eno1#1"), x710v1)},
		{name: "`eno1#0-2`", peer: "both ends count", test: z.takes("netDevice", pf("eno1#0-2"), x710v0, x710v1, x710v2)},
		{name: "`eno1#0-1,3`", peer: "any of them", test: z.takes("netDevice", pf("eno1#0-1,3"), x710v0, x710v1, x710dpdk)},
		{
			name: "`0000:86:00.0#0,2`", peer: "in `rootDevices` alike", test: z.takes("netDevice", `{"rootDevices": ["0000:86:00.0#0,2"]}`, cx5v0, cx5v2),
		},
		{
			name: "index of a subfunction", peer: "its sfnum", test: all(
				z.takes("auxNetDevice", `{"auxTypes": ["sf"], "pfNames": ["p0#80-90"]}`, sf88),
				z.takes("auxNetDevice", `{"auxTypes": ["sf"], "rootDevices": ["0000:86:00.0#4"]}`, sf4)),
		},
		{name: "a device that is no VF", peer: "has the index -1, which is in no range", test: z.takes("netDevice", pf("eno2#0-63"))},
		{
			name: "several entries for a PF", peer: "the first alone counts: `[\"eno1#0-1\", \"eno1#3\"]` does not take VF 3", ours: "every one counts",
			test: z.takes("netDevice", pf("eno1#0-1", "eno1#3"), x710v0, x710v1, x710dpdk),
		},
		{
			name: "backwards", peer: "`eno1#3-1` matches nothing, in silence", ours: "a mistake", test: mistake("eno1#3-1", "range runs backwards"),
		},
		{
			name: "what is no number", peer: "a line on standard output; `eno1#0,x` takes VF 0 alone", ours: "a mistake",
			test: mistake("eno1#0,x", `"x" is not a VF index or a range of them`),
		},
		{name: "spaces", peer: "are no number either", ours: "a mistake", test: mistake("eno1#0, 1", `" 1" is not a VF index`)},
		{name: "two `#`", peer: "a line on standard output, matches nothing", ours: "a mistake", test: mistake("eno1#0#1", "more than one #")},
		{
			name: "which VF is which", peer: "its address is looked for as a part of what `virtfn0` to `virtfn<n-1>` of the PF point to, n being how many there are", ours: "by the number in the name of the link that points to it",
			elsewhere: "pkg/topology TestVFIndexes",
		},
	}
}

func discoveryRows(z *zoo) []row {
	return []row{
		{
			name: "when", peer: "once, at start: VFs made or removed later are not seen", ours: "at each kernel event, and every `--rescan-interval`", elsewhere: "cmd/plugin TestVFsComeAndGo",
		},
		{
			name: "a driver bound later", peer: "not seen", ours: "the device goes to the pool that it now belongs to", elsewhere: "cmd/plugin TestDriversAreRebound",
		},
		{
			name: "a PF with VFs", peer: "is in no pool", ours: "the same; accelerators too",
			test: all(
				z.takes("netDevice", `{"pciAddresses": ["0000:3b:00.0"]}`),
				z.takes("accelerator", `{"pciAddresses": ["0000:d8:00.0"]}`)),
		},
		{
			name: "a PF without VFs, a plain NIC", peer: "are devices as others",
			test: z.takes("netDevice", `{"pciAddresses": ["`+x710free+`", "`+ena+`"]}`, ena, x710free),
		},
		{
			name: "the way out of the node", peer: "given to pods: its guard against the default route has been dead since v3.8.0", ours: "in no pool; the log says why",
			test: func(t *testing.T) {
				n := z.node(t, `{"resourceList": [{"resourceName": "net", "selectors": {}}]}`)
				n.command()
				n.expectIDs("intel.com/net", zooDevices["netDevice"]...)
				n.said("is the node's way out (IPv4 default route by eth0): list its address in pciAddresses to advertise it all the same")
			},
		},
		{
			name: "the ENA selector of the article", peer: "takes the interface that the node is reached by", ours: "takes the others",
			test: z.takes("netDevice", `{"vendors": ["1d0f"], "devices": ["ec20"], "drivers": ["ena"]}`, ena),
		},
		{
			name: "the way out, asked for by address", peer: "no difference", ours: "given",
			test: z.takes("netDevice", `{"pciAddresses": ["`+enaOut+`"]}`, enaOut),
		},
		{
			name: "the way out over a bond, a VLAN, a bridge", peer: "never considered", ours: "what carries it is in no pool", elsewhere: "internal/inventory TestUplinks/a VLAN on a bond under a bridge",
		},
		{
			name: "the way out by IPv6", peer: "never considered", ours: "as by IPv4", elsewhere: "internal/inventory TestUplinkOfTheKernel",
		},
		{
			name: "a device without a driver", peer: "dropped, with a log line", ours: "listed as unhealthy, and the log says why",
			test: func(t *testing.T) {
				n := newNode(t, onePool)
				must(t, sysfstest.RemoveFile(n.sysfs, v1, "driver"))
				n.command()
				n.expect("intel.com/net", v0+healthy, v1+unhealthy, v2+healthy, v3+healthy)
				n.said("no driver is bound to it")
			},
		},
		{
			name: "a file that cannot be read", peer: "the device is dropped, with a log line; with `numa_node` it has no topology", ours: "listed as unhealthy, and the log says why",
			test: func(t *testing.T) {
				n := newNode(t, onePool)
				must(t, sysfstest.MakeUnreadable(n.sysfs, v1, "numa_node"))
				n.command()
				n.expect("intel.com/net", v0+healthy, v1+unhealthy, v2+healthy, v3+healthy)
				n.said("numa_node")
			},
		},
		{
			name: "why a device is in no pool", peer: "\"no devices in device pool\" is all it says", ours: "the log says so of each device, and `inspect` which selector and which value",
			test: func(t *testing.T) {
				n := z.node(t, `{"resourceList": [{"resourceName": "net", "selectors": {"devices": ["154c"], "drivers": ["iavf"]}}]}`)
				n.command()
				n.expectIDs("intel.com/net", x710v0, x710v1, x710v2)
				n.said("device 154c matches pool intel.com/net, driver vfio-pci is not in its drivers [iavf]")
				n.said("is a PF with 4 VFs: its VFs are advertised instead")
			},
		},
	}
}
