package topology

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ContractVersion is the major version of the annotations' format. Within it
// fields are only added, and a reader ignores those that it does not know.
const ContractVersion = 1

// ErrNewerVersion is wrapped by Decode for an annotation of a newer major
// version: the state is there, and this binary is too old to read it.
var ErrNewerVersion = errors.New("format is of a newer major version")

// Document is what travels as an annotation.
type Document interface {
	NodeTopology | NodePools | Allocation
}

// Encode writes a document as compact JSON. The same state gives the same
// bytes, whatever order its lists were in, so that equality of annotations is
// equality of states. The version is set to ContractVersion.
func Encode[T Document](doc T) (string, error) {
	var v any
	switch d := any(doc).(type) {
	case NodeTopology:
		v = d.canonical()
	case NodePools:
		v = d.canonical()
	case Allocation:
		v = d.canonical()
	}
	b, err := json.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("encode %T: %w", doc, err)
	}
	return string(b), nil
}

// Decode reads an annotation. It wraps ErrNewerVersion for a newer format, and
// refuses a document that contradicts itself, naming every contradiction.
func Decode[T Document](s string) (T, error) {
	var doc T
	var head struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal([]byte(s), &head); err != nil {
		return doc, fmt.Errorf("decode %T: %w", doc, err)
	}
	if head.Version > ContractVersion {
		return doc, fmt.Errorf("decode %T: version %d, this binary reads %d: %w", doc, head.Version, ContractVersion, ErrNewerVersion)
	}
	if head.Version < 1 {
		return doc, fmt.Errorf("decode %T: no version field", doc)
	}
	if err := json.Unmarshal([]byte(s), &doc); err != nil {
		return doc, fmt.Errorf("decode %T: %w", doc, err)
	}
	var err error
	switch d := any(&doc).(type) {
	case *NodeTopology:
		err = d.validate()
	case *NodePools:
		err = d.validate()
	case *Allocation:
		err = d.validate()
	}
	if err != nil {
		return doc, fmt.Errorf("decode %T: %w", doc, err)
	}
	return doc, nil
}

func (t NodeTopology) canonical() NodeTopology {
	t.Version = ContractVersion
	t.Kubelet.FeatureGates = slices.Sorted(slices.Values(t.Kubelet.FeatureGates))
	t.NUMANodes = slices.Clone(t.NUMANodes)
	slices.SortFunc(t.NUMANodes, func(a, b NodeNUMA) int { return a.ID - b.ID })
	for i := range t.NUMANodes {
		n := &t.NUMANodes[i]
		n.Memory = slices.Clone(n.Memory)
		slices.SortFunc(n.Memory, func(a, b Memory) int { return strings.Compare(a.Type, b.Type) })
	}
	return t
}

func (p NodePools) canonical() NodePools {
	p.Version = ContractVersion
	p.Pools = slices.Clone(p.Pools)
	slices.SortFunc(p.Pools, func(a, b Pool) int { return strings.Compare(a.Resource, b.Resource) })
	for i := range p.Pools {
		q := &p.Pools[i]
		q.Groups = slices.Clone(q.Groups)
		for j := range q.Groups {
			q.Groups[j].Unhealthy = slices.Sorted(slices.Values(q.Groups[j].Unhealthy))
		}
		slices.SortFunc(q.Groups, func(a, b Group) int {
			if c := slices.Compare(a.NUMANodes, b.NUMANodes); c != 0 {
				return c
			}
			return strings.Compare(a.PF, b.PF)
		})
	}
	p.Unowned = slices.Clone(p.Unowned)
	for i := range p.Unowned {
		p.Unowned[i] = p.Unowned[i].canonical()
	}
	slices.SortFunc(p.Unowned, func(a, b Allocation) int { return strings.Compare(a.UID, b.UID) })
	p.Memory = slices.Clone(p.Memory)
	slices.SortFunc(p.Memory, func(a, b MemoryAccount) int { return a.NUMANode - b.NUMANode })
	return p
}

func (a Allocation) canonical() Allocation {
	a.Version = ContractVersion
	a.Containers = slices.Clone(a.Containers)
	slices.SortFunc(a.Containers, func(x, y ContainerAllocation) int { return strings.Compare(x.Name, y.Name) })
	for i := range a.Containers {
		c := &a.Containers[i]
		c.Memory = slices.Clone(c.Memory)
		slices.SortFunc(c.Memory, func(x, y MemoryAllocation) int {
			if r := strings.Compare(x.Type, y.Type); r != 0 {
				return r
			}
			return slices.Compare(x.NUMANodes, y.NUMANodes)
		})
		c.Devices = slices.Clone(c.Devices)
		for j := range c.Devices {
			c.Devices[j].IDs = slices.Sorted(slices.Values(c.Devices[j].IDs))
		}
		slices.SortFunc(c.Devices, DeviceAllocation.Compare)
	}
	return a
}

func (t *NodeTopology) validate() error {
	var errs []error
	seenNode := map[int]bool{}
	owner := map[int]int{}
	for i := range t.NUMANodes {
		n := &t.NUMANodes[i]
		if n.ID < 0 || seenNode[n.ID] {
			errs = append(errs, fmt.Errorf("NUMA node %d is negative or listed twice", n.ID))
		}
		seenNode[n.ID] = true
		all := n.CPUs()
		if !n.Reserved.IsSubsetOf(all.CPUSet) {
			errs = append(errs, fmt.Errorf("NUMA node %d reserves CPUs %s that it does not have", n.ID, n.Reserved.Difference(all.CPUSet)))
		}
		for _, g := range n.Cores {
			for _, core := range g.CPUs {
				for _, cpu := range core.List() {
					if o, ok := owner[cpu]; ok {
						errs = append(errs, fmt.Errorf("CPU %d is listed twice, in NUMA nodes %d and %d", cpu, o, n.ID))
					}
					owner[cpu] = n.ID
				}
			}
		}
	}
	return errors.Join(errs...)
}

func (p *NodePools) validate() error {
	var errs []error
	seen := map[string]bool{}
	for i := range p.Pools {
		q := &p.Pools[i]
		if q.Resource == "" || seen[q.Resource] {
			errs = append(errs, fmt.Errorf("pool %q has no name or is listed twice", q.Resource))
		}
		seen[q.Resource] = true
		for _, g := range q.Groups {
			if g.Free < 0 || g.Free > g.Healthy || g.Healthy > g.Total {
				errs = append(errs, fmt.Errorf("pool %s, NUMA nodes %v: %d free, %d healthy, %d in all", q.Resource, g.NUMANodes, g.Free, g.Healthy, g.Total))
			}
			if len(g.Unhealthy) > g.Total-g.Healthy {
				errs = append(errs, fmt.Errorf("pool %s, NUMA nodes %v: %d unhealthy ids, %d of %d healthy", q.Resource, g.NUMANodes, len(g.Unhealthy), g.Healthy, g.Total))
			}
			for _, n := range g.NUMANodes {
				if n < 0 {
					errs = append(errs, fmt.Errorf("pool %s: NUMA node %d", q.Resource, n))
				}
			}
		}
	}
	for i := range p.Unowned {
		errs = append(errs, p.Unowned[i].validate())
	}
	return errors.Join(errs...)
}

func (a *Allocation) validate() error {
	var errs []error
	if a.UID == "" {
		errs = append(errs, errors.New("no pod UID"))
	}
	seen := map[string]bool{}
	for i := range a.Containers {
		c := &a.Containers[i]
		if c.Name == "" || seen[c.Name] {
			errs = append(errs, fmt.Errorf("container %q has no name or is listed twice", c.Name))
		}
		seen[c.Name] = true
	}
	return errors.Join(errs...)
}
