package config

import (
	"fmt"
	"slices"
	"strings"
)

// criterion is one key of a selector.
type criterion struct {
	key  string                   // in both formats
	want func(*Selector) []string // its entries, for people
	have func(candidate) string   // what is compared, for people
	test func(*Selector, candidate) result
	word bool // want is one word, and no list
}

type result uint8

const (
	unasked result = iota // the key is not given
	holds
	fails
)

const infiniband = "infiniband"

// criteria are in the order in which people think of them.
var criteria = [...]criterion{
	{
		key: "vendors", want: func(s *Selector) []string { return s.Vendors },
		have: func(c candidate) string { return "vendor " + c.Vendor },
		test: func(s *Selector, c candidate) result { return oneIs(s.Vendors, c.Vendor) },
	}, {
		key: "devices", want: func(s *Selector) []string { return s.Devices },
		have: func(c candidate) string { return "device " + c.Product },
		test: func(s *Selector, c candidate) result { return oneIs(s.Devices, c.Product) },
	}, {
		key: "drivers", want: func(s *Selector) []string { return s.Drivers },
		have: func(c candidate) string { return orNo("driver", c.Driver) },
		test: func(s *Selector, c candidate) result { return oneIs(s.Drivers, c.Driver) },
	}, {
		key: "pciAddresses", want: func(s *Selector) []string { return texts(s.PCIAddresses) },
		have: func(c candidate) string { return "address " + c.Address.String() },
		test: func(s *Selector, c candidate) result { return oneIs(s.PCIAddresses, c.Address) },
	}, {
		key: "acpiIndexes", want: func(s *Selector) []string { return s.ACPIIndexes },
		have: func(c candidate) string { return orNo("ACPI index", c.ACPIIndex) },
		test: func(s *Selector, c candidate) result { return oneIs(s.ACPIIndexes, c.ACPIIndex) },
	}, {
		key: "pfNames", want: func(s *Selector) []string { return texts(s.PFNames) },
		have: func(c candidate) string {
			if names := c.pfNames(); len(names) > 0 {
				return c.function("PF " + strings.Join(names, " "))
			}
			return c.function("a PF without a name")
		},
		test: func(s *Selector, c candidate) result {
			return anyOf(s.PFNames, func(n PFName) bool {
				isName := func(name string) bool { return strings.EqualFold(n.Name, name) }
				return c.inRanges(n.VFs) && slices.ContainsFunc(c.pfNames(), isName)
			})
		},
	}, {
		key: "rootDevices", want: func(s *Selector) []string { return texts(s.RootDevices) },
		have: func(c candidate) string { return c.function("PF " + c.pfAddress().String()) },
		test: func(s *Selector, c candidate) result {
			return anyOf(s.RootDevices, func(r RootDevice) bool { return r.Address == c.pfAddress() && c.inRanges(r.VFs) })
		},
	}, {
		key: "linkTypes", want: func(s *Selector) []string { return s.LinkTypes },
		have: func(c candidate) string { return orNo("link type", strings.Join(c.linkTypes(), " ")) },
		test: func(s *Selector, c candidate) result {
			return anyOf(s.LinkTypes, func(t string) bool { return slices.Contains(c.linkTypes(), t) })
		},
	}, {
		key: "ddpProfiles", want: func(s *Selector) []string { return quoted(s.DDPProfiles) },
		have: func(c candidate) string {
			if c.DDPProfile == "" {
				return "no DDP profile"
			}
			return fmt.Sprintf("DDP profile %q", c.DDPProfile)
		},
		test: func(s *Selector, c candidate) result { return oneIs(s.DDPProfiles, c.DDPProfile) },
	}, {
		key: "pKeys", want: func(s *Selector) []string { return s.PKeys },
		have: func(c candidate) string { return orNo("P_Key", strings.Join(c.pKeys(), " ")) },
		test: func(s *Selector, c candidate) result {
			return anyOf(s.PKeys, func(k string) bool { return slices.Contains(c.pKeys(), k) })
		},
	}, {
		key: "auxTypes", want: func(s *Selector) []string { return s.AuxTypes },
		have: func(c candidate) string { return orNo("auxiliary type", c.auxType()) },
		test: func(s *Selector, c candidate) result { return oneIs(s.AuxTypes, c.auxType()) },
	}, {
		key: "rdma", want: func(*Selector) []string { return []string{"RDMA"} },
		have: func(c candidate) string {
			if !c.canRDMA() {
				return "no RDMA"
			}
			return "RDMA"
		},
		test: func(s *Selector, c candidate) result { return asked(s.RDMA, c.canRDMA()) },
		word: true,
	}, {
		key: "vdpa", want: func(s *Selector) []string { return []string{s.VDPA} },
		have: func(c candidate) string {
			if c.VDPA == nil {
				return "no vDPA device"
			}
			return orNo("vDPA driver", c.VDPA.Driver)
		},
		test: func(s *Selector, c candidate) result {
			return asked(s.VDPA != "", c.VDPA != nil && c.VDPA.Driver == s.VDPA+"_vdpa")
		},
		word: true,
	},
}

// fault says how a device fails a criterion of a selector.
func (k *criterion) fault(s *Selector, c candidate) string {
	if k.word {
		return k.have(c) + " where it asks for " + k.want(s)[0]
	}
	return fmt.Sprintf("%s is not in its %s [%s]", k.have(c), k.key, shorten(k.want(s)))
}

func anyOf[T any](list []T, match func(T) bool) result {
	return asked(len(list) > 0, slices.ContainsFunc(list, match))
}

func oneIs[T comparable](list []T, value T) result {
	return asked(len(list) > 0, slices.Contains(list, value))
}

func asked(asked, met bool) result {
	switch {
	case !asked:
		return unasked
	case met:
		return holds
	default:
		return fails
	}
}

// takes tells whether a device meets every criterion.
func (s *Selector) takes(c candidate) bool {
	for i := range criteria {
		if criteria[i].test(s, c) == fails {
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

func quoted(list []string) []string {
	var out []string
	for _, s := range list {
		out = append(out, fmt.Sprintf("%q", s))
	}
	return out
}

func orNo(what, value string) string {
	if value == "" {
		return "no " + what
	}
	return what + " " + value
}

// shorten keeps a line readable when a list is long.
func shorten(s []string) string {
	const most = 8
	if len(s) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(s[:most], " "), len(s)-most)
	}
	return strings.Join(s, " ")
}
