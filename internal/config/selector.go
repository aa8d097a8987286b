package config

import (
	"errors"
	"fmt"
	"regexp"
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
	PKeys        []string // 0x1
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

// Range is the VF indexes from First to Last.
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

// selectorKeys are all keys that the format has in a selector.
var selectorKeys = []string{
	"vendors", "devices", "drivers", "pciAddresses", "pfNames", "rootDevices",
	"acpiIndexes", "auxTypes", "linkTypes", "ddpProfiles", "pKeys", "isRdma", "needVhostNet", "vdpaType",
}

// selectors reads one selector, or a list of them.
func (p *parser) selectors(path string, v any) []Selector {
	list, ok := v.([]any)
	if !ok {
		return []Selector{p.selector(path, v)}
	}
	if len(list) == 0 {
		p.mistake(path, "an empty list selects nothing: want at least one selector")
	}
	var out []Selector
	for i, v := range list {
		out = append(out, p.selector(fmt.Sprintf("%s[%d]", path, i), v))
	}
	return out
}

func (p *parser) selector(path string, v any) Selector {
	var s Selector
	read := map[string]func(string, any){
		"vendors": func(path string, v any) { s.Vendors = listOf(p, path, v, parseID) },
		"devices": func(path string, v any) { s.Devices = listOf(p, path, v, parseID) },
		"drivers": func(path string, v any) { s.Drivers = listOf(p, path, v, parseName) },
		"pciAddresses": func(path string, v any) {
			s.PCIAddresses = listOf(p, path, v, parseAddress)
		},
		"pfNames":     func(path string, v any) { s.PFNames = listOf(p, path, v, parsePFName) },
		"rootDevices": func(path string, v any) { s.RootDevices = listOf(p, path, v, parseRootDevice) },
	}
	var fields []field
	for _, key := range selectorKeys {
		f := field{key, p.unsupported}
		if r, ok := read[key]; ok {
			f.read = r
		}
		fields = append(fields, f)
	}
	p.object(path, v, fields, func(string) string {
		return "want vendors, devices, drivers, pciAddresses, pfNames or rootDevices"
	})
	return s
}

// listOf reads a list of strings.
func listOf[T any](p *parser, path string, v any, parse func(string) (T, error)) []T {
	list, ok := v.([]any)
	if !ok {
		p.mistake(path, "is %s, want a list of strings", kind(v))
		return nil
	}
	var out []T
	for i, v := range list {
		at := fmt.Sprintf("%s[%d]", path, i)
		s, ok := v.(string)
		if !ok {
			p.mistake(at, "is %s, want a string in quotes", kind(v))
			continue
		}
		t, err := parse(s)
		if err != nil {
			p.mistake(at, "%q: %s", s, err)
			continue
		}
		out = append(out, t)
	}
	return out
}

var pciID = regexp.MustCompile(`^[0-9a-f]{4}$`)

func parseID(s string) (string, error) {
	id := strings.ToLower(s)
	if !pciID.MatchString(id) {
		return "", errors.New("want four hexadecimal digits, such as 8086, without 0x")
	}
	return id, nil
}

// parseName reads the name of a driver or of a network interface: an entry of
// a sysfs folder.
func parseName(s string) (string, error) {
	switch {
	case s == "":
		return "", errors.New("an empty name matches nothing")
	case strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == '/' || r == 0x7f }):
		return "", errors.New("a name has no spaces and no slashes")
	}
	return s, nil
}

func parseAddress(s string) (topology.Address, error) {
	if strings.Contains(s, "#") {
		return topology.Address{}, errors.New("VF ranges belong to rootDevices and pfNames")
	}
	a, err := topology.ParseAddress(s)
	if err != nil {
		return a, errors.New("want a PCI address of the form 0000:3b:02.0")
	}
	return a, nil
}

func parsePFName(s string) (PFName, error) {
	name, vfs, err := parseRanges(s)
	if err != nil {
		return PFName{}, err
	}
	name, err = parseName(name)
	return PFName{Name: name, VFs: vfs}, err
}

func parseRootDevice(s string) (RootDevice, error) {
	address, vfs, err := parseRanges(s)
	if err != nil {
		return RootDevice{}, err
	}
	a, err := parseAddress(address)
	return RootDevice{Address: a, VFs: vfs}, err
}

// maxVFIndex is the highest index there can be: NumVFs of the SR-IOV
// capability has 16 bits.
const maxVFIndex = 1<<16 - 2

// parseRanges takes the VF indexes off an entry: NAME or NAME#0-3,5.
func parseRanges(s string) (string, []Range, error) {
	name, list, ok := strings.Cut(s, "#")
	if !ok {
		return name, nil, nil
	}
	if strings.Contains(list, "#") {
		return "", nil, errors.New("more than one #: want NAME#0-3,5")
	}
	var out []Range
	for item := range strings.SplitSeq(list, ",") {
		first, last, isRange := strings.Cut(item, "-")
		if !isRange {
			last = first
		}
		lo, errLo := strconv.ParseUint(first, 10, 32)
		hi, errHi := strconv.ParseUint(last, 10, 32)
		switch {
		case errLo != nil || errHi != nil:
			return "", nil, fmt.Errorf("%q is not a VF index or a range of them: want NAME#0-3,5", item)
		case lo > hi:
			return "", nil, errors.New("range runs backwards")
		case hi > maxVFIndex:
			return "", nil, fmt.Errorf("no PF has a VF %d", hi)
		}
		out = append(out, Range{First: int(lo), Last: int(hi)})
	}
	return name, out, nil
}
