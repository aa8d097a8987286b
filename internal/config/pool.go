package config

import (
	"strings"

	"github.com/numalane/numalane/pkg/topology"
)

// deviceType is empty when it could not be read: then no key is out of place.
func (p *parser) deviceType(n node) DeviceType {
	s, ok := p.string(n)
	switch t := DeviceType(s); t {
	case NetDevice, Accelerator, AuxNetDevice:
		return t
	case "":
		// Empty is absent for the peer's plugin, whose serializers write it.
		if ok && !p.strict {
			return NetDevice
		}
	}
	if ok {
		p.mistake(n, "%q is not a device type, want netDevice, accelerator or auxNetDevice", s)
	}
	return ""
}

// anyDevice is the key of additionalInfo for what all devices get.
const anyDevice = "*"

func (p *parser) additionalInfo(n node) map[string]map[string]string {
	if _, ok := n.value.(object); !ok {
		p.mistake(n, "is %s, want an object of devices", kind(n))
		return nil
	}
	var out map[string]map[string]string
	seen := map[string]bool{}
	for _, m := range members(n) {
		at := node{place: m.place, path: join(n.path, m.key)}
		id, ok := deviceID(m.key)
		if !ok {
			p.idle(at, `%q names no device: want "*", a PCI address such as 0000:3b:02.0 or a subfunction such as mlx5_core.sf.4`, m.key)
			continue
		}
		if seen[id] {
			p.mistake(at, "device %s is there twice", id)
			continue
		}
		seen[id] = true
		m.value.path = at.path
		if words := p.words(m.value); len(words) > 0 {
			if out == nil {
				out = map[string]map[string]string{}
			}
			out[id] = words
		}
	}
	return out
}

// deviceID is what the kubelet calls a device, or "*".
func deviceID(s string) (string, bool) {
	if a, err := topology.ParseAddress(s); err == nil {
		return a.String(), true
	}
	parts := strings.Split(s, ".")
	aux := len(parts) == 3 && parts[0] != "" && parts[1] != "" && parts[2] != ""
	return s, s == anyDevice || aux && !strings.ContainsAny(s, " \t\r\n/:")
}

// words are the user's own: their keys are theirs too.
func (p *parser) words(n node) map[string]string {
	if _, ok := n.value.(object); !ok {
		if n.value != nil {
			p.mistake(n, "is %s, want an object of strings", kind(n))
		}
		return nil
	}
	out := map[string]string{}
	for _, m := range members(n) {
		v := m.value
		v.path = join(n.path, m.key)
		if _, twice := out[m.key]; twice {
			p.mistake(node{place: m.place, path: v.path}, "the key is there twice")
			continue
		}
		if s, ok := p.string(v); ok {
			out[m.key] = s
		}
	}
	return out
}
