package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/numalane/numalane/internal/config/v1alpha1"
	"github.com/numalane/numalane/pkg/allocator"
)

// PoolConfiguration is a configuration in our own format. Read again it is the
// same, whatever it was read from.
func (c *Config) PoolConfiguration() *v1alpha1.PoolConfiguration {
	out := &v1alpha1.PoolConfiguration{APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.Kind, Pools: []v1alpha1.Pool{}}
	for i := range c.Pools {
		out.Pools = append(out.Pools, c.Pools[i].v1alpha1())
	}
	return out
}

// v1alpha1 leaves out what is the default anyway.
func (p *Pool) v1alpha1() v1alpha1.Pool {
	out := v1alpha1.Pool{Resource: p.Resource, ExcludeTopology: p.ExcludeTopology, AdditionalInfo: p.AdditionalInfo}
	if p.DeviceType != NetDevice {
		out.DeviceType = string(p.DeviceType)
	}
	if p.AllocationPolicy != allocator.PolicyPacked {
		out.AllocationPolicy = string(p.AllocationPolicy)
	}
	switch {
	case p.DeviceType == Accelerator:
	case !p.LinkHealth:
		out.Health = &v1alpha1.Health{Link: new(false)}
	case p.LinkHoldDown != DefaultLinkHoldDown:
		out.Health = &v1alpha1.Health{HoldDown: p.LinkHoldDown.String()}
	}
	for i := range p.Selectors {
		s := &p.Selectors[i]
		out.Selectors = append(out.Selectors, v1alpha1.Selector{
			Vendors: s.Vendors, Devices: s.Devices, Drivers: s.Drivers, PCIAddresses: texts(s.PCIAddresses), ACPIIndexes: s.ACPIIndexes,
			PFNames: texts(s.PFNames), RootDevices: texts(s.RootDevices), LinkTypes: s.LinkTypes, DDPProfiles: s.DDPProfiles,
			PKeys: s.PKeys, AuxTypes: s.AuxTypes, RDMA: s.RDMA, VDPA: s.VDPA, VhostNet: s.VhostNet,
		})
	}
	return out
}

// YAML is a configuration in our own format as people write it.
func (c *Config) YAML() ([]byte, error) {
	// Over JSON, as its tags are the format.
	text, err := json.Marshal(c.PoolConfiguration())
	if err != nil {
		return nil, fmt.Errorf("encode pool configuration: %w", err)
	}
	p := &parser{}
	doc, ok := p.document(text)
	if !ok {
		return nil, fmt.Errorf("encode pool configuration: %w", &Error{Mistakes: p.mistakes})
	}
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	e.CompactSeqIndent()
	if err := e.Encode(yamlNode(doc)); err != nil {
		return nil, fmt.Errorf("encode pool configuration: %w", err)
	}
	return b.Bytes(), nil
}

// yamlNode keeps the order of keys, and a list of words on one line.
func yamlNode(n node) *yaml.Node {
	switch v := n.value.(type) {
	case object:
		out := &yaml.Node{Kind: yaml.MappingNode}
		for _, m := range v {
			out.Content = append(out.Content, yamlString(m.key), yamlNode(m.value))
		}
		return out
	case []node:
		out := &yaml.Node{Kind: yaml.SequenceNode}
		if !slices.ContainsFunc(v, func(n node) bool { _, ok := n.value.(object); return ok }) {
			out.Style = yaml.FlowStyle
		}
		for _, n := range v {
			out.Content = append(out.Content, yamlNode(n))
		}
		return out
	case string:
		return yamlString(v)
	default:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: fmt.Sprint(v)}
	}
}

// plainWord is a text that no YAML reader takes for anything else; yamlWord are
// those that some do.
var (
	plainWord = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9./_-]*$`)
	yamlWord  = regexp.MustCompile(`(?i)^(y|n|yes|no|on|off|true|false|null)$`)
)

func yamlString(s string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s}
	if !plainWord.MatchString(s) || yamlWord.MatchString(s) {
		n.Style = yaml.DoubleQuotedStyle
	}
	return n
}
