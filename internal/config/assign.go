package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/numalane/numalane/pkg/topology"
)

// Assignment says of every device of a host where it is.
type Assignment struct {
	Pools      []AssignedPool // in the order of the configuration, empty ones too
	Rejections []Rejection    // by address: the devices in no pool
}

// AssignedPool is a pool and its devices.
type AssignedPool struct {
	Pool    *Pool
	Devices []AssignedDevice // by address, and by name for subfunctions of one parent
}

// AssignedDevice is a device and the selector that took it.
type AssignedDevice struct {
	topology.Device
	By *Selector
}

// Rejection is why a device is in no pool.
type Rejection struct {
	Address topology.Address `json:"address"` // of a subfunction its parent's
	Device  string           `json:"device"`  // its ID
	Reason  string           `json:"reason"`
}

// Assign puts each device of a host into the first pool of its type that has a
// selector for it. PFs with VFs are in none: their VFs are. Nor is the node's
// way out, unless a selector asks for it by address. A device of which
// something could not be read stays in the pool that the rest of it selects,
// for its Problem to be told there.
func (c *Config) Assign(h *topology.Host) Assignment {
	a := Assignment{Pools: make([]AssignedPool, len(c.Pools))}
	for i := range c.Pools {
		a.Pools[i].Pool = &c.Pools[i]
	}
	for _, d := range candidates(h) {
		if p, by := c.taker(d); p >= 0 {
			a.Pools[p].Devices = append(a.Pools[p].Devices, AssignedDevice{*d.Device, by})
		} else {
			a.Rejections = append(a.Rejections, Rejection{Address: d.Address, Device: d.ID(), Reason: c.why(d)})
		}
	}
	for _, p := range a.Pools {
		slices.SortFunc(p.Devices, func(a, b AssignedDevice) int {
			return cmp.Or(a.Address.Compare(b.Address), strings.Compare(a.ID(), b.ID()))
		})
	}
	slices.SortFunc(a.Rejections, func(a, b Rejection) int {
		return cmp.Or(a.Address.Compare(b.Address), strings.Compare(a.Device, b.Device))
	})
	return a
}

// taker is the first pool, and of its selectors the first, that takes a device;
// -1 without one.
func (c *Config) taker(d candidate) (int, *Selector) {
	if d.vfCount() > 0 {
		return -1, nil
	}
	for i := range c.Pools {
		if c.Pools[i].DeviceType != d.deviceType() {
			continue
		}
		for j := range c.Pools[i].Selectors {
			if s := &c.Pools[i].Selectors[j]; s.takes(d) && (d.Uplink == "" || s.asksByAddress(d)) {
				return i, s
			}
		}
	}
	return -1, nil
}

// why is the one reason for which no pool has a device.
func (c *Config) why(d candidate) string {
	if vfs := d.vfCount(); vfs > 0 {
		return pfReason(vfs)
	}
	if d.Uplink != "" && c.wouldTake(d) {
		return uplinkReason(d)
	}
	if d.Problem != "" {
		return "could not be read: " + d.Problem
	}
	if len(c.Pools) == 0 {
		return "no pool is configured"
	}
	nearest := c.nearest(d)
	if nearest == nil {
		return fmt.Sprintf("is %s, and no pool is made of these", d.kind())
	}
	return "no selector matches: " + nearest.describe(d)
}

// wouldTake tells whether a device is in a pool but for being the way out.
func (c *Config) wouldTake(d candidate) bool {
	free := *d.Device
	free.Uplink = ""
	p, _ := c.taker(candidate{&free, d.pf})
	return p >= 0
}

func pfReason(vfs int) string {
	if vfs == 1 {
		return "is a PF with 1 VF: its VF is advertised instead"
	}
	return fmt.Sprintf("is a PF with %d VFs: its VFs are advertised instead", vfs)
}

// uplinkReason says how it can be had: a subfunction has no address of its own.
func uplinkReason(d candidate) string {
	ask := "list its address in pciAddresses"
	if d.Aux != nil {
		ask = fmt.Sprintf("list %s#%d in rootDevices", d.pfAddress(), d.Aux.SFNum)
	}
	return fmt.Sprintf("is the node's way out (%s): %s to advertise it all the same", d.Uplink, ask)
}

// comparison is how a device and a selector differ.
type comparison struct {
	selector     *Selector
	name         string // of the selector, for people
	holds, fails []*criterion
}

func (s *Selector) compare(d candidate) comparison {
	c := comparison{selector: s}
	for i := range criteria {
		switch criteria[i].test(s, d) {
		case holds:
			c.holds = append(c.holds, &criteria[i])
		case fails:
			c.fails = append(c.fails, &criteria[i])
		}
	}
	return c
}

// nearest is, of the selectors that all do not take a device, the one of which
// most holds, and of these the one of which least does not; nil when no pool is
// of the device's type.
func (c *Config) nearest(d candidate) *comparison {
	var nearest *comparison
	for i := range c.Pools {
		p := &c.Pools[i]
		if p.DeviceType != d.deviceType() {
			continue
		}
		for j := range p.Selectors {
			n := p.Selectors[j].compare(d)
			n.name = "pool " + p.Resource
			if len(p.Selectors) > 1 {
				n.name = fmt.Sprintf("selectors[%d] of pool %s", j, p.Resource)
			}
			if nearest == nil || cmp.Or(len(nearest.holds)-len(n.holds), len(n.fails)-len(nearest.fails)) < 0 {
				nearest = &n
			}
		}
	}
	return nearest
}

// describe tells a comparison: "vendor 8086 matches pool intel.com/x, device
// 1572 is not in its devices [154c 10ed]".
func (c *comparison) describe(d candidate) string {
	text := "the nearest is " + c.name
	if right := c.right(d); len(right) > 0 {
		verb := "match"
		if len(right) == 1 {
			verb = "matches"
		}
		text = fmt.Sprintf("%s %s %s", enumerate(right), verb, c.name)
	}
	return strings.Join(append([]string{text}, c.wrong(d)...), ", ")
}

// right is what a selector asks for and the device has.
func (c *comparison) right(d candidate) []string {
	var out []string
	for _, h := range c.holds {
		out = append(out, h.have(d))
	}
	return out
}

// wrong is what a selector asks for and the device has not.
func (c *comparison) wrong(d candidate) []string {
	var out []string
	for _, f := range c.fails {
		out = append(out, f.fault(c.selector, d))
	}
	return out
}

func enumerate(s []string) string {
	last := len(s) - 1
	if last == 0 {
		return s[0]
	}
	return strings.Join(s[:last], ", ") + " and " + s[last]
}
