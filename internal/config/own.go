package config

import (
	"strings"
	"time"

	"github.com/numalane/numalane/internal/config/v1alpha1"
	"github.com/numalane/numalane/pkg/allocator"
)

// ours reads a v1alpha1.PoolConfiguration.
func (p *parser) ours(doc node) []Pool {
	var pools []Pool
	listed := map[string]string{}
	constant := func(want string) func(node) {
		return func(n node) {
			if s, ok := p.string(n); ok && s != want {
				p.mistake(n, "is %q, want %s", s, want)
			}
		}
	}
	seen := p.object(doc, []field{
		{"apiVersion", constant(v1alpha1.APIVersion)},
		{"kind", constant(v1alpha1.Kind)},
		{"pools", func(n node) {
			for _, n := range p.list(n, "pools") {
				pool := p.ourPool(n)
				p.once(listed, n, pool.Resource)
				pools = append(pools, pool)
			}
		}},
	}, noHint)
	for _, key := range []string{"apiVersion", "kind", "pools"} {
		p.required(doc, seen, key)
	}
	return pools
}

func (p *parser) required(n node, seen map[string]node, key string) {
	if seen[key].value == nil {
		p.mistake(n.member(key), "missing")
	}
}

func (p *parser) ourPool(n node) Pool {
	pool := Pool{AllocationPolicy: allocator.PolicyPacked, DeviceType: NetDevice}
	ignore := func(node) {} // they depend on the device type
	seen := p.object(n, []field{
		{"resource", func(n node) { pool.Resource = p.resource(n) }},
		{"deviceType", func(n node) { pool.DeviceType = p.deviceType(n) }},
		{"excludeTopology", func(n node) { pool.ExcludeTopology = p.bool(n) }},
		{"allocationPolicy", func(n node) { pool.AllocationPolicy = p.allocationPolicy(n) }},
		{"health", ignore},
		{"additionalInfo", func(n node) { pool.AdditionalInfo = p.additionalInfo(n) }},
		{"selectors", ignore},
	}, misplaced)
	if seen == nil {
		return pool
	}
	p.required(n, seen, "resource")
	if s := seen["selectors"]; s.value == nil {
		p.mistake(n.member("selectors"), "missing: a selector without keys, {}, takes every device of the type")
	} else {
		pool.Selectors = p.selectors(s, pool.DeviceType)
	}
	p.health(&pool, seen["health"])
	return pool
}

func (p *parser) resource(n node) string {
	s, ok := p.string(n)
	if !ok {
		return ""
	}
	prefix, name, ok := strings.Cut(s, "/")
	if !ok || strings.Contains(name, "/") {
		p.mistake(n, "%q: want prefix and name, such as example.com/sriov", s)
		return ""
	}
	prefixOK := p.valid(n, s, prefixFaults(prefix))
	if !p.valid(n, s, nameFaults(name)) || !prefixOK {
		return ""
	}
	return s
}

func (p *parser) allocationPolicy(n node) allocator.Policy {
	s, ok := p.string(n)
	switch policy := allocator.Policy(s); policy {
	case allocator.PolicyPacked, allocator.PolicySpread, allocator.PolicyPaired:
		return policy
	}
	if ok {
		p.mistake(n, "%q is not an allocation policy, want packed, spread or paired", s)
	}
	return allocator.PolicyPacked
}

// health reads what makes devices unhealthy. What has no link has it neither
// by default nor by wish.
func (p *parser) health(pool *Pool, n node) {
	link, hold := pool.DeviceType != Accelerator, DefaultLinkHoldDown
	if n.value != nil {
		seen := p.object(n, []field{
			{"link", func(n node) {
				asked := p.bool(n)
				if asked && !link {
					p.mistake(n, "accelerators have no link")
				}
				link = asked && link
			}},
			{"holdDown", func(n node) { hold = p.holdDown(n) }},
		}, noHint)
		if h := seen["holdDown"]; h.value != nil && !link {
			p.mistake(h, "has no effect without link")
		}
	}
	if link {
		pool.LinkHealth, pool.LinkHoldDown = true, hold
	}
}

func (p *parser) holdDown(n node) time.Duration {
	s, ok := p.string(n)
	if !ok {
		return 0
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		p.mistake(n, "%q: want a time such as 5s, or 0s for none", s)
	}
	return d
}
