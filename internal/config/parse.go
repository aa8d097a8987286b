package config

import (
	"cmp"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/numalane/numalane/pkg/allocator"
)

// parser turns a tree of values into pools and collects mistakes.
type parser struct {
	defaultPrefix string
	mistakes      []Mistake
}

func (p *parser) mistake(path, format string, args ...any) {
	p.mistakes = append(p.mistakes, Mistake{Path: path, Text: fmt.Sprintf(format, args...)})
}

// field is a key of an object and what reads its value. A value of null is
// that of an absent key, as for encoding/json.
type field struct {
	key  string
	read func(path string, v any)
}

// object hands each member to its field. Keys match in any case, as in the
// format's own plugin: its users write IsRdma and NeedVhostNet. The hint says
// what is wanted in place of an unknown key. The answer tells the keys that
// are there and how they are spelt; it is nil when v is no object.
func (p *parser) object(path string, v any, fields []field, hint func(key string) string) map[string]string {
	o, ok := v.(object)
	if !ok {
		p.mistake(cmp.Or(path, "the configuration"), "is %s, want an object", kind(v))
		return nil
	}
	seen := map[string]string{}
	for _, m := range o {
		at := join(path, m.key)
		i := slices.IndexFunc(fields, func(f field) bool { return strings.EqualFold(f.key, m.key) })
		if i < 0 {
			p.mistake(at, "unknown key: %s", hint(m.key))
			continue
		}
		if first, twice := seen[fields[i].key]; twice {
			p.mistake(at, "the key is there twice, as %s before", first)
			continue
		}
		seen[fields[i].key] = m.key
		if m.value != nil {
			fields[i].read(at, m.value)
		}
	}
	return seen
}

func (p *parser) config(doc any) []Pool {
	if isConfigMap(doc) {
		p.mistake("kind", "this is a ConfigMap: the configuration is the value of its data.config.json")
		return nil
	}
	const top = "resourceList"
	var pools []Pool
	listed := map[string]string{}
	fields := []field{{top, func(path string, v any) {
		list, ok := v.([]any)
		if !ok {
			p.mistake(path, "is %s, want a list of resources", kind(v))
			return
		}
		for i, v := range list {
			at := fmt.Sprintf("%s[%d]", path, i)
			pool := p.pool(at, v)
			if first, twice := listed[pool.Resource]; twice && pool.Resource != "" {
				p.mistake(at, "resource %s is %s already", pool.Resource, first)
			} else {
				listed[pool.Resource] = at
			}
			pools = append(pools, pool)
		}
	}}}
	seen := p.object("", doc, fields, func(string) string { return "want " + top })
	if seen != nil && seen[top] == "" {
		p.mistake(top, "missing")
	}
	return pools
}

// pool reads an element of resourceList. Its resource is empty when that
// could not be read.
func (p *parser) pool(path string, v any) Pool {
	pool := Pool{AllocationPolicy: allocator.PolicyPacked, DeviceType: NetDevice}
	var name, namePath string
	prefix, prefixPath := p.defaultPrefix, "default resource prefix"
	named, selected := false, false
	fields := []field{
		{"resourceName", func(path string, v any) {
			namePath = path
			name, named = p.string(path, v)
		}},
		{"resourcePrefix", func(path string, v any) {
			// Empty is absent for the format's own plugin too.
			if s, ok := p.string(path, v); ok && s != "" {
				prefix, prefixPath = s, path
			}
		}},
		{"deviceType", p.deviceType},
		{"excludeTopology", func(path string, v any) { pool.ExcludeTopology = p.bool(path, v) }},
		{"selectors", func(path string, v any) {
			selected = true
			pool.Selectors = p.selectors(path, v)
		}},
		{"additionalInfo", p.unsupported},
		// Left over by serializers of the format's own types.
		{"SelectorObj", p.unsupported},
		{"SelectorObjs", p.unsupported},
	}
	hint := func(key string) string {
		if slices.ContainsFunc(selectorKeys, func(k string) bool { return strings.EqualFold(k, key) }) {
			return "it belongs under selectors"
		}
		return "want resourceName, resourcePrefix, deviceType, excludeTopology or selectors"
	}
	if p.object(path, v, fields, hint) == nil {
		return pool
	}
	if !selected {
		p.mistake(join(path, "selectors"), "missing: without a selector the pool would take every network device")
	}
	if namePath == "" {
		p.mistake(join(path, "resourceName"), "missing")
	}
	nameOK := named && p.valid(namePath, name, nameFaults(name))
	prefixOK := p.valid(prefixPath, prefix, prefixFaults(prefix))
	if nameOK && prefixOK {
		pool.Resource = prefix + "/" + name
	}
	return pool
}

// nameFaults and prefixFaults together are the API server's and the kubelet's
// IsExtendedResourceName: the name and its quota name "requests.<name>" have
// to be qualified names, outside of *kubernetes.io.
func nameFaults(name string) []string {
	if strings.Contains(name, "/") {
		return []string{"want the name alone: what stands before the slash is resourcePrefix"}
	}
	return validation.IsQualifiedName(name)
}

func prefixFaults(prefix string) []string {
	if prefix == "" {
		return []string{"want a domain such as example.com"}
	}
	if strings.HasSuffix(prefix, "kubernetes.io") {
		return []string{"domains that end in kubernetes.io are Kubernetes' own"}
	}
	const quota = "requests."
	if strings.HasPrefix(prefix, quota) {
		return []string{"resource names that begin with requests. belong to quotas"}
	}
	if limit := validation.DNS1123SubdomainMaxLength - len(quota); len(prefix) > limit {
		return []string{fmt.Sprintf("more than %d characters", limit)}
	}
	return validation.IsDNS1123Subdomain(prefix)
}

// valid notes the faults of a value, the same ones only once: the default
// prefix serves many pools.
func (p *parser) valid(path, value string, faults []string) bool {
	for _, f := range faults {
		m := Mistake{Path: path, Text: fmt.Sprintf("%q: %s", value, f)}
		if !slices.Contains(p.mistakes, m) {
			p.mistakes = append(p.mistakes, m)
		}
	}
	return len(faults) == 0
}

func (p *parser) deviceType(path string, v any) {
	s, ok := p.string(path, v)
	switch {
	case !ok || s == "" || s == "netDevice":
	case s == "accelerator" || s == "auxNetDevice":
		p.mistake(path, "%q is not supported yet, only netDevice is", s)
	default:
		p.mistake(path, "%q is not a device type, want netDevice", s)
	}
}

// unsupported reads a key of the format that has no effect here yet: it may be
// there as long as it asks for nothing.
func (p *parser) unsupported(path string, v any) {
	empty := false
	switch v := v.(type) {
	case bool:
		empty = !v
	case string:
		empty = v == ""
	case []any:
		empty = len(v) == 0
	case object:
		empty = len(v) == 0
	}
	if !empty {
		p.mistake(path, "not supported yet: remove it, or leave it empty or false")
	}
}

func (p *parser) string(path string, v any) (string, bool) {
	s, ok := v.(string)
	if !ok {
		p.mistake(path, "is %s, want a string", kind(v))
	}
	return s, ok
}

func (p *parser) bool(path string, v any) bool {
	b, ok := v.(bool)
	if !ok {
		p.mistake(path, "is %s, want true or false", kind(v))
	}
	return b
}

func kind(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case bool:
		return "true or false"
	case string:
		return "a string"
	case json.Number:
		return "a number"
	case []any:
		return "a list"
	default:
		return "an object"
	}
}

func isConfigMap(v any) bool {
	o, _ := v.(object)
	return slices.ContainsFunc(o, func(m member) bool { return m.key == "kind" && m.value == "ConfigMap" })
}

var plainKey = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]*$`)

// join appends a key to a path.
func join(path, key string) string {
	switch {
	case !plainKey.MatchString(key):
		return fmt.Sprintf("%s[%q]", path, key)
	case path == "":
		return key
	default:
		return path + "." + key
	}
}
