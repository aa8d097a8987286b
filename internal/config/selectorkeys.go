package config

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/numalane/numalane/pkg/topology"
)

// selectorKey is a key of a selector, as it is called in either format.
type selectorKey struct {
	peer, own string
	types     []DeviceType // that have it
	read      func(*parser, *Selector, node)
}

var (
	everyType  = []DeviceType{NetDevice, Accelerator, AuxNetDevice}
	pciTypes   = []DeviceType{NetDevice, Accelerator}
	netTypes   = []DeviceType{NetDevice, AuxNetDevice}
	netAlone   = []DeviceType{NetDevice}
	subfnAlone = []DeviceType{AuxNetDevice}
)

// selectorKeys have the device types of the peer's own code, and acpiIndexes
// for all of them: its README promises it for accelerators, and its types for
// subfunctions.
var selectorKeys = [...]selectorKey{
	{"vendors", "vendors", everyType, func(p *parser, s *Selector, n node) { s.Vendors = listOf(p, n, parseID) }},
	{"devices", "devices", everyType, func(p *parser, s *Selector, n node) { s.Devices = listOf(p, n, parseID) }},
	{"drivers", "drivers", everyType, func(p *parser, s *Selector, n node) { s.Drivers = listOf(p, n, parseName) }},
	{"pciAddresses", "pciAddresses", pciTypes, func(p *parser, s *Selector, n node) { s.PCIAddresses = listOf(p, n, parseAddress) }},
	{"acpiIndexes", "acpiIndexes", everyType, func(p *parser, s *Selector, n node) { s.ACPIIndexes = listOf(p, n, parseName) }},
	{"pfNames", "pfNames", netTypes, func(p *parser, s *Selector, n node) { s.PFNames = listOf(p, n, parsePFName) }},
	{"rootDevices", "rootDevices", netTypes, func(p *parser, s *Selector, n node) { s.RootDevices = listOf(p, n, parseRootDevice) }},
	{"linkTypes", "linkTypes", netTypes, func(p *parser, s *Selector, n node) { s.LinkTypes = listOf(p, n, oneOf("ether", "infiniband")) }},
	{"ddpProfiles", "ddpProfiles", netAlone, func(p *parser, s *Selector, n node) { s.DDPProfiles = listOf(p, n, parseText) }},
	{"pKeys", "pKeys", netAlone, func(p *parser, s *Selector, n node) { s.PKeys = listOf(p, n, parsePKey) }},
	{"auxTypes", "auxTypes", subfnAlone, func(p *parser, s *Selector, n node) { s.AuxTypes = listOf(p, n, oneOf("sf")) }},
	{"isRdma", "rdma", netTypes, func(p *parser, s *Selector, n node) { s.RDMA = p.bool(n) }},
	{"vdpaType", "vdpa", netAlone, func(p *parser, s *Selector, n node) { s.VDPA = p.vdpa(n) }},
	{"needVhostNet", "vhostNet", netTypes, func(p *parser, s *Selector, n node) { s.VhostNet = p.bool(n) }},
}

// name is the key in the format that is read.
func (k selectorKey) name(strict bool) string {
	if strict {
		return k.own
	}
	return k.peer
}

// selectors reads a list of them.
func (p *parser) selectors(n node, t DeviceType) []Selector {
	var out []Selector
	for _, n := range p.list(n, "selectors") {
		out = append(out, p.selector(n, t))
	}
	if list, ok := n.value.([]node); ok && len(list) == 0 {
		p.mistake(n, "an empty list selects nothing: want at least one selector")
	}
	return out
}

// selector reads one for devices of a type, or of any when that is not known.
func (p *parser) selector(n node, t DeviceType) Selector {
	var s Selector
	var fields []field
	for _, k := range selectorKeys {
		read := func(n node) { k.read(p, &s, n) }
		if t != "" && !slices.Contains(k.types, t) {
			read = func(n node) {
				if !empty(n) {
					p.idle(n, "has no effect for deviceType %s", t)
				}
			}
		}
		fields = append(fields, field{k.name(p.strict), read})
	}
	seen := p.object(n, fields, noHint)
	if seen == nil {
		return s
	}
	p.contradictions(n, seen, s, t)
	return s
}

// contradictions are selectors that can take nothing, or mean nothing.
func (p *parser) contradictions(n node, seen map[string]node, s Selector, t DeviceType) {
	key := func(peer string) string {
		i := slices.IndexFunc(selectorKeys[:], func(k selectorKey) bool { return k.peer == peer })
		return selectorKeys[i].name(p.strict)
	}
	if s.RDMA && s.VDPA != "" {
		p.mistake(seen[key("vdpaType")], "contradicts %s: a device is handed out for the one or for the other", key("isRdma"))
	}
	if t == AuxNetDevice && (seen["auxTypes"].value == nil || empty(seen["auxTypes"])) {
		p.mistake(n.member("auxTypes"), "missing: deviceType %s needs it, with sf", t)
	}
	if len(s.PKeys) > 0 && len(s.LinkTypes) > 0 && !slices.Contains(s.LinkTypes, infiniband) {
		p.idle(seen["pKeys"], "no device has a P_Key and one of these linkTypes: the selector takes nothing")
	}
}

// listOf reads a list of strings.
func listOf[T any](p *parser, n node, parse func(string) (T, error)) []T {
	var out []T
	for _, n := range p.list(n, "strings") {
		s, ok := n.value.(string)
		if !ok {
			p.mistake(n, "is %s, want a string in quotes", kind(n))
			continue
		}
		t, err := parse(s)
		if err != nil {
			p.mistake(n, "%q: %s", s, err)
			continue
		}
		out = append(out, t)
	}
	return out
}

func (p *parser) vdpa(n node) string {
	s, ok := p.string(n)
	switch {
	case !ok || s == "vhost" || s == "virtio":
		return s
	case s == "" && !p.strict:
		return s
	}
	p.mistake(n, "%q: want vhost or virtio", s)
	return ""
}

func oneOf(words ...string) func(string) (string, error) {
	return func(s string) (string, error) {
		if !slices.Contains(words, s) {
			return "", fmt.Errorf("want %s", either(words))
		}
		return s, nil
	}
}

func parseText(s string) (string, error) {
	if strings.TrimSpace(s) == "" {
		return "", errors.New("an empty name matches nothing")
	}
	return s, nil
}

// parsePKey reads a P_Key with and without the zeros that the kernel writes.
func parsePKey(s string) (string, error) {
	digits, ok := strings.CutPrefix(strings.ToLower(s), "0x")
	key, err := strconv.ParseUint(digits, 16, 16)
	if !ok || err != nil {
		return "", errors.New("want a P_Key of 16 bits, such as 0x8001")
	}
	return fmt.Sprintf("0x%04x", key), nil
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
