package config

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

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
func (p *parser) valid(n node, value string, faults []string) bool {
	for _, f := range faults {
		m := Mistake{Line: n.line, Column: n.column, Path: n.path, Text: fmt.Sprintf("%q: %s", value, f)}
		if !slices.Contains(p.mistakes, m) {
			p.mistakes = append(p.mistakes, m)
		}
	}
	return len(faults) == 0
}

// once notes a resource that an earlier pool has.
func (p *parser) once(listed map[string]string, n node, resource string) {
	if first, twice := listed[resource]; twice && resource != "" {
		p.mistake(n, "resource %s is %s already", resource, first)
		return
	}
	listed[resource] = n.path
}
