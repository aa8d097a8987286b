package topology

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
)

// Address is the place of a PCI function: domain, bus, device and function.
// The domain is wider than 16 bits on machines with Intel VMD or a
// paravirtual host bridge (Documentation/ABI/testing/sysfs-bus-pci, "10000:").
type Address struct {
	Domain   uint32
	Bus      uint8
	Device   uint8
	Function uint8
}

// ParseAddress reads the form that sysfs uses: "0000:3b:02.0", or with a
// longer domain "10000:01:00.0". Upper-case digits are accepted.
func ParseAddress(s string) (Address, error) {
	a, ok := parseAddress(s)
	if !ok {
		return Address{}, fmt.Errorf("PCI address %q: want the form 0000:3b:02.0", s)
	}
	return a, nil
}

func parseAddress(s string) (Address, bool) {
	domain, rest, ok := strings.Cut(s, ":")
	if !ok || len(domain) < 4 || len(domain) > 8 {
		return Address{}, false
	}
	if len(rest) != len("3b:02.0") || rest[2] != ':' || rest[5] != '.' {
		return Address{}, false
	}
	d, errDomain := strconv.ParseUint(domain, 16, 32)
	bus, errBus := strconv.ParseUint(rest[0:2], 16, 8)
	dev, errDevice := strconv.ParseUint(rest[3:5], 16, 8)
	fn, errFunction := strconv.ParseUint(rest[6:7], 8, 8)
	if errDomain != nil || errBus != nil || errDevice != nil || dev > 31 || errFunction != nil {
		return Address{}, false
	}
	return Address{Domain: uint32(d), Bus: uint8(bus), Device: uint8(dev), Function: uint8(fn)}, true
}

// String is the address as sysfs spells it.
func (a Address) String() string {
	return fmt.Sprintf("%04x:%02x:%02x.%d", a.Domain, a.Bus, a.Device, a.Function)
}

// IsZero tells the address that no device has been given.
func (a Address) IsZero() bool { return a == Address{} }

// Compare orders addresses by domain, bus, device and function.
func (a Address) Compare(b Address) int {
	return cmp.Or(
		cmp.Compare(a.Domain, b.Domain),
		cmp.Compare(a.Bus, b.Bus),
		cmp.Compare(a.Device, b.Device),
		cmp.Compare(a.Function, b.Function),
	)
}

// MarshalText is String, for JSON and YAML.
func (a Address) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText is ParseAddress.
func (a *Address) UnmarshalText(b []byte) error {
	p, err := ParseAddress(string(b))
	if err != nil {
		return err
	}
	*a = p
	return nil
}
