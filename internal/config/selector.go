package config

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/numalane/numalane/pkg/topology"
)

// Selector is a rule for devices: all of its lists have to hold, and a list
// holds when any of its entries does, or when it is empty.
type Selector struct {
	Vendors      []string // four hex digits, lower case
	Devices      []string // product ids, of a VF its own: four hex digits, lower case
	Drivers      []string
	PCIAddresses []topology.Address
	PFNames      []PFName
	RootDevices  []RootDevice
	ACPIIndexes  []string
	AuxTypes     []string // sf
	LinkTypes    []string // ether, infiniband
	DDPProfiles  []string
	PKeys        []string // as the kernel writes them: 0x8001
	// RDMA selects what is capable of it, and hands its character devices out.
	RDMA bool
	// VhostNet selects nothing: it hands out /dev/vhost-net and /dev/net/tun.
	VhostNet bool
	VDPA     string // vhost, virtio
}

// PFName are functions of the PF with this network interface. The name is
// compared in any case. A device that is no VF counts as its own PF.
type PFName struct {
	Name string
	VFs  []Range // empty: all of them
}

// RootDevice are functions of the PF at this address. A device that is no VF
// counts as its own PF.
type RootDevice struct {
	Address topology.Address
	VFs     []Range // empty: all of them
}

// Range is the indexes of VFs, or the sfnums of subfunctions, from First to
// Last.
type Range struct{ First, Last int }

func (n PFName) String() string     { return n.Name + ranges(n.VFs) }
func (r RootDevice) String() string { return r.Address.String() + ranges(r.VFs) }

func ranges(rs []Range) string {
	var b strings.Builder
	for i, r := range rs {
		b.WriteByte("#,"[min(i, 1)])
		b.WriteString(strconv.Itoa(r.First))
		if r.Last != r.First {
			fmt.Fprintf(&b, "-%d", r.Last)
		}
	}
	return b.String()
}
