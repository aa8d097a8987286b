package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/numalane/numalane/pkg/topology"
)

// Assignment says of every network device of a host where it is.
type Assignment struct {
	Pools      []AssignedPool // in the order of the configuration, empty ones too
	Rejections []Rejection    // by address: the devices in no pool
}

// AssignedPool is a pool and its devices.
type AssignedPool struct {
	Pool    *Pool
	Devices []AssignedDevice // by ID
}

// AssignedDevice is a device and the selector that took it.
type AssignedDevice struct {
	topology.Device
	By *Selector
}

// Rejection is why a device is in no pool.
type Rejection struct {
	Address topology.Address `json:"address"`
	Reason  string           `json:"reason"`
}

// Assign puts each network device of a host into the first pool that has a
// selector for it. PFs with VFs are in none: their VFs are. A device of which
// something could not be read stays in the pool that the rest of it selects,
// for its Problem to be told there.
func (c *Config) Assign(h *topology.Host) Assignment {
	a := Assignment{Pools: make([]AssignedPool, len(c.Pools))}
	for i := range c.Pools {
		a.Pools[i].Pool = &c.Pools[i]
	}
	for i := range h.Devices {
		d := &h.Devices[i]
		if vfs := vfCount(d); vfs > 0 {
			a.reject(d, pfReason(vfs))
		} else if p, by := c.taker(d); p >= 0 {
			a.Pools[p].Devices = append(a.Pools[p].Devices, AssignedDevice{*d, by})
		} else if d.Problem != "" {
			a.reject(d, "could not be read: "+d.Problem)
		} else {
			a.reject(d, c.why(d))
		}
	}
	for _, p := range a.Pools {
		slices.SortFunc(p.Devices, func(a, b AssignedDevice) int { return a.Address.Compare(b.Address) })
	}
	slices.SortFunc(a.Rejections, func(a, b Rejection) int { return a.Address.Compare(b.Address) })
	return a
}

func pfReason(vfs int) string {
	if vfs == 1 {
		return "is a PF with 1 VF: its VF is advertised instead"
	}
	return fmt.Sprintf("is a PF with %d VFs: its VFs are advertised instead", vfs)
}

func (a *Assignment) reject(d *topology.Device, reason string) {
	a.Rejections = append(a.Rejections, Rejection{Address: d.Address, Reason: reason})
}

// vfCount counts a PF's VFs. The links count as well: sriov_numvfs may be the
// file that could not be read.
func vfCount(d *topology.Device) int {
	if d.PF == nil {
		return 0
	}
	return max(d.PF.NumVFs, len(d.PF.VFs))
}

// taker is the first pool, and of its selectors the first, that takes a device;
// -1 without one.
func (c *Config) taker(d *topology.Device) (int, *Selector) {
	for i := range c.Pools {
		for j := range c.Pools[i].Selectors {
			if s := &c.Pools[i].Selectors[j]; s.takes(d) {
				return i, s
			}
		}
	}
	return -1, nil
}

// comparison is how a device and a selector differ.
type comparison struct {
	selector     *Selector
	name         string // of the selector, for people
	holds, fails []*criterion
}

func (s *Selector) compare(d *topology.Device) comparison {
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

// why names, of the selectors that all do not take a device, the nearest: the
// one of which most holds, and of these the one of which least does not.
func (c *Config) why(d *topology.Device) string {
	var nearest *comparison
	for i := range c.Pools {
		p := &c.Pools[i]
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
	if nearest == nil {
		return "no pool is configured"
	}
	return "no selector matches: " + nearest.describe(d)
}

// describe tells a comparison: "vendor 8086 matches pool intel.com/x, device
// 1572 is not in its devices [154c 10ed]".
func (c *comparison) describe(d *topology.Device) string {
	text := "the nearest is " + c.name
	if len(c.holds) > 0 {
		var right []string
		for _, h := range c.holds {
			right = append(right, h.have(d))
		}
		verb := "match"
		if len(right) == 1 {
			verb = "matches"
		}
		text = fmt.Sprintf("%s %s %s", enumerate(right), verb, c.name)
	}
	for _, f := range c.fails {
		text += fmt.Sprintf(", %s is not in its %s [%s]", f.have(d), f.key, shorten(f.want(c.selector)))
	}
	return text
}

// shorten keeps a line readable when a list is long.
func shorten(s []string) string {
	const most = 8
	if len(s) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(s[:most], " "), len(s)-most)
	}
	return strings.Join(s, " ")
}

func enumerate(s []string) string {
	last := len(s) - 1
	if last == 0 {
		return s[0]
	}
	return strings.Join(s[:last], ", ") + " and " + s[last]
}
