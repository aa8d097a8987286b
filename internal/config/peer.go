package config

import (
	"slices"
	"strings"

	"github.com/numalane/numalane/pkg/allocator"
)

// peers reads the format of the sriov-network-device-plugin. Its own reader is
// encoding/json: keys are of any case, since its users write IsRdma and
// NeedVhostNet, and unknown ones do nothing.
func (p *parser) peers(doc node) []Pool {
	const top = "resourceList"
	var pools []Pool
	listed := map[string]string{}
	seen := p.object(doc, []field{{top, func(n node) {
		for _, n := range p.list(n, "resources") {
			pool := p.peersPool(n)
			p.once(listed, n, pool.Resource)
			pools = append(pools, pool)
		}
	}}}, noHint)
	if _, ok := seen[top]; seen != nil && !ok {
		p.mistake(doc.member(top), "missing")
	}
	return pools
}

// peersPool reads an element of resourceList. Its resource is empty when that
// could not be read.
func (p *parser) peersPool(n node) Pool {
	pool := Pool{AllocationPolicy: allocator.PolicyPacked, DeviceType: NetDevice}
	name, named := "", false
	prefix, prefixed := p.defaultPrefix, node{path: "default resource prefix"}
	ignore := func(node) {}
	seen := p.object(n, []field{
		{"resourceName", func(n node) { name, named = p.string(n) }},
		{"resourcePrefix", func(n node) {
			// Empty is absent for the format's own plugin too.
			if s, ok := p.string(n); ok && s != "" {
				prefix, prefixed = s, n
			}
		}},
		{"deviceType", func(n node) { pool.DeviceType = p.deviceType(n) }},
		{"excludeTopology", func(n node) { pool.ExcludeTopology = p.bool(n) }},
		{"selectors", ignore}, // below: they depend on the device type
		{"additionalInfo", func(n node) { pool.AdditionalInfo = p.additionalInfo(n) }},
		// Left over by serializers of the format's own types.
		{"SelectorObj", ignore},
		{"SelectorObjs", ignore},
	}, misplaced)
	if seen == nil {
		return pool
	}
	// The format's own plugin says that selectors are not required, and panics
	// without them. Every device of the node is nobody's wish by omission.
	if s := seen["selectors"]; s.value == nil {
		p.mistake(n.member("selectors"), "missing: without a selector the pool would take every device")
	} else if _, ok := s.value.([]node); ok {
		pool.Selectors = p.selectors(s, pool.DeviceType)
	} else {
		pool.Selectors = []Selector{p.selector(s, pool.DeviceType)}
	}
	if seen["resourceName"].value == nil {
		p.mistake(n.member("resourceName"), "missing")
	}
	nameOK := named && p.valid(seen["resourceName"], name, nameFaults(name))
	if p.valid(prefixed, prefix, prefixFaults(prefix)) && nameOK {
		pool.Resource = prefix + "/" + name
	}
	return pool
}

// misplaced tells a key of a selector that stands beside the selectors.
func misplaced(key string) string {
	isKey := func(k selectorKey) bool { return strings.EqualFold(k.peer, key) || k.own == key }
	if slices.ContainsFunc(selectorKeys[:], isKey) {
		return "it belongs under selectors"
	}
	return ""
}
