package journal

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/numalane/numalane/pkg/topology"
)

// Asks is what a pod asks for, container by container.
func Asks(p *corev1.Pod) string {
	var parts []string
	add := func(kind string, c *corev1.Container) {
		var rr []string
		for _, name := range slices.Sorted(maps.Keys(c.Resources.Requests)) {
			q, limit := c.Resources.Requests[name], c.Resources.Limits[name]
			text := fmt.Sprintf("%s %s", name, q.String())
			if q.Cmp(limit) != 0 {
				text += "+" // burstable
			}
			rr = append(rr, text)
		}
		parts = append(parts, fmt.Sprintf("%s%s{%s}", kind, c.Name, strings.Join(rr, ", ")))
	}
	for i := range p.Spec.InitContainers {
		c := &p.Spec.InitContainers[i]
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			add("sidecar ", c)
		} else {
			add("init ", c)
		}
	}
	for i := range p.Spec.Containers {
		add("", &p.Spec.Containers[i])
	}
	return strings.Join(parts, " ")
}

// Holds is what a node says that a pod holds.
func Holds(a *topology.Allocation) string {
	var parts []string
	for i := range a.Containers {
		c := &a.Containers[i]
		var held []string
		for _, id := range slices.Sorted(maps.Keys(c.CPUs)) {
			held = append(held, fmt.Sprintf("CPUs %s of NUMA node %d", c.CPUs[id], id))
		}
		for _, d := range c.Devices {
			held = append(held, fmt.Sprintf("%s %s of NUMA nodes %v", d.Resource, strings.Join(d.IDs, ","), d.NUMANodes))
		}
		for _, m := range c.Memory {
			held = append(held, fmt.Sprintf("%s %d of NUMA nodes %v", m.Type, m.Size, m.NUMANodes))
		}
		parts = append(parts, c.Name+"{"+strings.Join(held, "; ")+"}")
	}
	return strings.Join(parts, " ")
}
