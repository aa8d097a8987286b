package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/numalane/numalane/pkg/topology"
)

// criterion is one list of a selector.
type criterion struct {
	key  string                        // of the list
	want func(*Selector) []string      // its entries, for people
	have func(*topology.Device) string // what is compared, for people
	test func(*Selector, *topology.Device) result
}

type result uint8

const (
	unasked result = iota // the list is empty
	holds
	fails
)

// criteria are in the order in which people think of them.
var criteria = [...]criterion{
	{
		"vendors", func(s *Selector) []string { return s.Vendors },
		func(d *topology.Device) string { return "vendor " + d.Vendor },
		func(s *Selector, d *topology.Device) result {
			return anyOf(s.Vendors, func(v string) bool { return v == d.Vendor })
		},
	}, {
		"devices", func(s *Selector) []string { return s.Devices },
		func(d *topology.Device) string { return "device " + d.Product },
		func(s *Selector, d *topology.Device) result {
			return anyOf(s.Devices, func(p string) bool { return p == d.Product })
		},
	}, {
		"drivers", func(s *Selector) []string { return s.Drivers },
		func(d *topology.Device) string {
			if d.Driver == "" {
				return "no driver"
			}
			return "driver " + d.Driver
		},
		func(s *Selector, d *topology.Device) result {
			return anyOf(s.Drivers, func(name string) bool { return name == d.Driver })
		},
	}, {
		"pciAddresses", func(s *Selector) []string { return texts(s.PCIAddresses) },
		func(d *topology.Device) string { return "address " + d.Address.String() },
		func(s *Selector, d *topology.Device) result {
			return anyOf(s.PCIAddresses, func(a topology.Address) bool { return a == d.Address })
		},
	}, {
		"pfNames", func(s *Selector) []string { return texts(s.PFNames) },
		func(d *topology.Device) string {
			if names := pfNames(d); len(names) > 0 {
				return function(d, "PF "+strings.Join(names, " "))
			}
			return function(d, "a PF without a name")
		},
		func(s *Selector, d *topology.Device) result {
			return anyOf(s.PFNames, func(n PFName) bool {
				isName := func(name string) bool { return strings.EqualFold(n.Name, name) }
				return inRanges(n.VFs, d) && slices.ContainsFunc(pfNames(d), isName)
			})
		},
	}, {
		"rootDevices", func(s *Selector) []string { return texts(s.RootDevices) },
		func(d *topology.Device) string { return function(d, "PF "+pfAddress(d).String()) },
		func(s *Selector, d *topology.Device) result {
			return anyOf(s.RootDevices, func(r RootDevice) bool {
				return r.Address == pfAddress(d) && inRanges(r.VFs, d)
			})
		},
	},
}

func anyOf[T any](list []T, match func(T) bool) result {
	switch {
	case len(list) == 0:
		return unasked
	case slices.ContainsFunc(list, match):
		return holds
	default:
		return fails
	}
}

// takes tells whether a device meets every criterion.
func (s *Selector) takes(d *topology.Device) bool {
	for i := range criteria {
		if criteria[i].test(s, d) == fails {
			return false
		}
	}
	return true
}

func texts[T fmt.Stringer](list []T) []string {
	var out []string
	for _, t := range list {
		out = append(out, t.String())
	}
	return out
}

// function names a device by its PF.
func function(d *topology.Device, pf string) string {
	if d.VF == nil {
		return pf
	}
	return fmt.Sprintf("VF %d of %s", d.VF.Index, pf)
}

// pfNames are the interface names of a device's PF, or its own.
func pfNames(d *topology.Device) []string {
	if d.VF != nil {
		if d.VF.PFName == "" {
			return nil
		}
		return []string{d.VF.PFName}
	}
	var out []string
	for _, n := range d.Netdevs {
		out = append(out, n.Name)
	}
	return out
}

func pfAddress(d *topology.Device) topology.Address {
	if d.VF != nil {
		return d.VF.PF
	}
	return d.Address
}

// inRanges tells whether a device is among the VFs with these indexes. No
// ranges are all functions, the PF too.
func inRanges(rs []Range, d *topology.Device) bool {
	if len(rs) == 0 {
		return true
	}
	return d.VF != nil && slices.ContainsFunc(rs, func(r Range) bool {
		return r.First <= d.VF.Index && d.VF.Index <= r.Last
	})
}
