package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/numalane/numalane/pkg/topology"
)

// candidate is a device with the PF that it belongs to: itself when it is
// neither VF nor subfunction, and nil when that is not there.
type candidate struct {
	*topology.Device
	pf *topology.Device
}

// candidates are all devices of a host that a pool may hold.
func candidates(h *topology.Host) []candidate {
	byAddress := make(map[topology.Address]*topology.Device, len(h.Devices))
	for i := range h.Devices {
		byAddress[h.Devices[i].Address] = &h.Devices[i]
	}
	out := make([]candidate, 0, len(h.Devices)+len(h.Subfunctions))
	add := func(ds []topology.Device) {
		for i := range ds {
			c := candidate{Device: &ds[i]}
			c.pf = byAddress[c.pfAddress()]
			out = append(out, c)
		}
	}
	add(h.Devices)
	add(h.Subfunctions)
	return out
}

// deviceType is empty for what no pool is made of.
func (c candidate) deviceType() DeviceType {
	network := strings.HasPrefix(c.Class, "02")
	switch {
	case c.Aux != nil && network:
		return AuxNetDevice
	case c.Aux == nil && network:
		return NetDevice
	case c.Aux == nil && strings.HasPrefix(c.Class, "12"):
		return Accelerator
	}
	return ""
}

// kind is a device type in words.
func (c candidate) kind() string {
	switch c.deviceType() {
	case NetDevice:
		return "a network device"
	case AuxNetDevice:
		return "a subfunction"
	case Accelerator:
		return "an accelerator"
	}
	return "of class " + c.Class
}

// vfCount counts a PF's VFs. The links count as well: sriov_numvfs may be the
// file that could not be read.
func (c candidate) vfCount() int {
	if c.PF == nil || c.Aux != nil {
		return 0
	}
	return max(c.PF.NumVFs, len(c.PF.VFs))
}

// index is that of a VF, or the sfnum of a subfunction: what a range counts.
func (c candidate) index() (int, bool) {
	switch {
	case c.Aux != nil:
		return c.Aux.SFNum, c.Aux.SFNum >= 0
	case c.VF != nil:
		return c.VF.Index, true
	}
	return 0, false
}

// function names a device by its PF.
func (c candidate) function(pf string) string {
	switch {
	case c.Aux != nil && c.Aux.SFNum < 0:
		return "a subfunction of " + pf
	case c.Aux != nil:
		return fmt.Sprintf("subfunction %d of %s", c.Aux.SFNum, pf)
	case c.VF != nil:
		return fmt.Sprintf("VF %d of %s", c.VF.Index, pf)
	}
	return pf
}

// pfNames are the interface names of a device's PF, or its own.
func (c candidate) pfNames() []string {
	switch {
	case c.VF != nil && c.VF.PFName != "":
		return []string{c.VF.PFName}
	case c.VF != nil || c.pf == nil:
		return nil
	}
	var out []string
	for _, n := range c.pf.Netdevs {
		out = append(out, n.Name)
	}
	return out
}

// pfAddress is that of a subfunction's parent too: its Address.
func (c candidate) pfAddress() topology.Address {
	if c.VF != nil {
		return c.VF.PF
	}
	return c.Address
}

// inRanges tells whether a device is among the functions with these indexes.
// No ranges are all functions, the PF too.
func (c candidate) inRanges(rs []Range) bool {
	if len(rs) == 0 {
		return true
	}
	i, ok := c.index()
	return ok && slices.ContainsFunc(rs, func(r Range) bool { return r.First <= i && i <= r.Last })
}

// linkTypes are those of a device's own netdevs, or of its PF's: a userspace
// driver, or a pod, has the netdev of a VF.
func (c candidate) linkTypes() []string {
	netdevs := c.Netdevs
	if len(netdevs) == 0 && c.pf != nil {
		netdevs = c.pf.Netdevs
	}
	var out []string
	for _, n := range netdevs {
		if n.Type != "" && !slices.Contains(out, n.Type) {
			out = append(out, n.Type)
		}
	}
	return out
}

// pKeys are those of InfiniBand: with RoCE the entry is there and means nothing.
func (c candidate) pKeys() []string {
	if !slices.Contains(c.linkTypes(), infiniband) {
		return nil
	}
	var out []string
	for _, r := range c.RDMA {
		if r.PKey != "" {
			out = append(out, strings.ToLower(r.PKey))
		}
	}
	return out
}

func (c candidate) auxType() string {
	if c.Aux == nil {
		return ""
	}
	return c.Aux.Type
}

func (c candidate) canRDMA() bool { return len(c.RDMA) > 0 || c.RDMACapable }

// asksByAddress tells whether a selector asks for this one device, and not for
// one of many that are like it: by pciAddresses, or by an entry of rootDevices
// that can mean no other function, the PF itself or a single index.
func (s *Selector) asksByAddress(c candidate) bool {
	if c.Aux == nil && slices.Contains(s.PCIAddresses, c.Address) {
		return true
	}
	own := c.Aux == nil && c.VF == nil
	return slices.ContainsFunc(s.RootDevices, func(r RootDevice) bool {
		single := len(r.VFs) == 1 && r.VFs[0].First == r.VFs[0].Last
		return r.Address == c.pfAddress() && c.inRanges(r.VFs) && (single || own && len(r.VFs) == 0)
	})
}
