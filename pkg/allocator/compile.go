package allocator

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"k8s.io/utils/cpuset"

	"github.com/numalane/numalane/pkg/topology"
)

// maxNUMANodes is what a mask of 64 bits holds.
const maxNUMANodes = 64

// Compile reads a NodeState. The error tells how it contradicts itself, or what
// in it this version does not know; nothing can be foretold for such a node.
func Compile(s *topology.NodeState) (*Node, error) {
	c := compiler{state: s, held: held(s), n: &Node{totals: compileTotals(s.Totals)}, index: map[int]int{}}
	for _, step := range []func() error{c.kubelet, c.numaNodes, c.options, c.cpus, c.devices, c.memory} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return c.n, nil
}

type compiler struct {
	state *topology.NodeState
	held  []topology.Allocation
	n     *Node
	index map[int]int // NUMA node id to index
}

func (c *compiler) kubelet() error {
	k, n := &c.state.Topology.Kubelet, c.n
	if k.Minor < oldestMinor || k.Minor > newestMinor {
		return fmt.Errorf("kubelet 1.%d is not known, only 1.%d to 1.%d", k.Minor, oldestMinor, newestMinor)
	}
	switch k.TopologyPolicy {
	case topology.PolicyNone:
	case topology.PolicyBestEffort:
		n.policy = policyBestEffort
	case topology.PolicyRestricted:
		n.policy = policyRestricted
	case topology.PolicySingleNUMANode:
		n.policy = policySingle
	default:
		return fmt.Errorf("unknown topology manager policy %q", k.TopologyPolicy)
	}
	switch k.TopologyScope {
	case topology.ScopeContainer, "":
	case topology.ScopePod:
		n.podScope = true
	default:
		return fmt.Errorf("unknown topology manager scope %q", k.TopologyScope)
	}
	switch k.CPUPolicy {
	case topology.CPUManagerNone, "":
	case topology.CPUManagerStatic:
		n.static = true
	default:
		return fmt.Errorf("unknown CPU manager policy %q", k.CPUPolicy)
	}
	switch k.MemoryPolicy {
	case topology.MemoryManagerNone, "":
	case topology.MemoryManagerStatic:
		n.memory = true
	default:
		return fmt.Errorf("unknown memory manager policy %q", k.MemoryPolicy)
	}
	n.podLevel = slices.Contains(k.FeatureGates, gatePodLevelManagers)
	dra := slices.Contains(k.FeatureGates, gateDRAExtendedResource)
	n.claims = dra && k.Minor >= minorDRAClaims
	n.claimsUncounted = dra && k.Minor >= minorCountedDRA
	n.absentIsDRA, n.zeroIsDRA = dra && k.Minor < minorCountedDRA, dra && k.Minor == minorCountedDRA-1
	n.emptyMemory = k.Minor < minorNoEmptyMemory
	n.cpuOpts.newDistribution = k.Minor >= minorDistribution
	return nil
}

func (c *compiler) numaNodes() error {
	nodes, n := c.state.Topology.NUMANodes, c.n
	if len(nodes) == 0 || len(nodes) > maxNUMANodes {
		return fmt.Errorf("node publishes %d NUMA nodes, want 1 to %d", len(nodes), maxNUMANodes)
	}
	if (n.policy == policyBestEffort || n.policy == policyRestricted) && len(nodes) > maxMergedNUMANodes {
		return fmt.Errorf("policy %s on %d NUMA nodes, which is foretold for %d at most",
			c.state.Topology.Kubelet.TopologyPolicy, len(nodes), maxMergedNUMANodes)
	}
	told := make(map[int]map[int]int, len(nodes))
	for i := range nodes {
		id := nodes[i].ID
		told[id] = nodes[i].Distances
		if i > 0 && id <= nodes[i-1].ID {
			return fmt.Errorf("NUMA node %d is listed after NUMA node %d", id, nodes[i-1].ID)
		}
		c.index[id] = i
		n.numaIDs = append(n.numaIDs, id)
	}
	n.between = NewDistances(told)
	return nil
}

// options reads those of the topology manager and of the CPU manager.
func (c *compiler) options() error {
	k, n := &c.state.Topology.Kubelet, c.n
	var closest, ignored bool
	err := readOptions("topology manager", k.TopologyOpts, map[string]*bool{
		"prefer-closest-numa-nodes": &closest,
		"max-allowable-numa-nodes":  nil, // decides whether the kubelet starts
	})
	if err != nil {
		return err
	}
	if closest && n.policy != policySingle {
		if err := c.distances(); err != nil {
			return err
		}
	}
	if !n.static {
		return nil
	}
	o := &n.cpuOpts
	return readOptions("CPU manager", k.CPUOpts, map[string]*bool{
		"full-pcpus-only":                  &o.wholeCores,
		"distribute-cpus-across-numa":      &o.acrossNUMA,
		"align-by-socket":                  &o.bySocket,
		"distribute-cpus-across-cores":     &o.spreadCores,
		"prefer-align-cpus-by-uncorecache": &o.byCache,
		// It keeps the shared pool off the reserved CPUs, which no pod gets exclusively anyway.
		"strict-cpu-reservation": &ignored,
	})
}

func readOptions(of string, set map[string]string, known map[string]*bool) error {
	for name, value := range set {
		to, ok := known[name]
		if !ok {
			return fmt.Errorf("unknown %s policy option %q", of, name)
		}
		if to == nil {
			continue
		}
		on, err := strconv.ParseBool(value)
		if err != nil {
			return fmt.Errorf("%s policy option %s: %q is neither true nor false", of, name, value)
		}
		*to = on
	}
	return nil
}

func (c *compiler) distances() error {
	nodes := c.state.Topology.NUMANodes
	for i := range nodes {
		for j := range nodes {
			d, ok := nodes[i].Distances[nodes[j].ID]
			if !ok {
				return fmt.Errorf("prefer-closest-numa-nodes is on and the distance from NUMA node %d to %d is not told", nodes[i].ID, nodes[j].ID)
			}
			c.n.distances = append(c.n.distances, d)
		}
	}
	return nil
}

func (c *compiler) cpus() error {
	n := c.n
	var err error
	if n.cpu, err = compileCPUs(c.state.Topology.NUMANodes); err != nil {
		return err
	}
	if !n.static {
		return nil
	}
	if len(n.cpu.ids) == 0 {
		return errors.New("the CPU manager is static and no CPU is told")
	}
	var sets []cpuset.CPUSet
	for i := range c.held {
		for _, ct := range c.held[i].Containers {
			for _, set := range ct.CPUs {
				sets = append(sets, set.CPUSet)
			}
		}
	}
	taken := n.cpu.bits(topology.CPUSet{CPUSet: cpuset.New().Union(sets...)})
	for k := range n.cpu.numa {
		n.empty.cpus = n.empty.cpus.or(&n.cpu.numa[k].set)
	}
	n.empty.cpus = n.empty.cpus.without(&n.cpu.reserved)
	n.room.cpus = n.empty.cpus.without(&taken)
	contended := n.cpu.bits(c.state.Pools.Contended)
	contended = contended.and(&n.empty.cpus)
	n.room.cpus = n.room.cpus.or(&contended)
	leaked := n.cpu.bits(c.state.Pools.Leaked)
	n.room.cpus = n.room.cpus.without(&leaked)
	return nil
}

func (c *compiler) devices() error {
	n := c.n
	for i := range c.state.Pools.Pools {
		src := &c.state.Pools.Pools[i]
		if n.poolOf(src.Resource) != nil {
			return fmt.Errorf("pool %s is listed twice", src.Resource)
		}
		p := pool{resource: src.Resource, policy: Policy(src.AllocationPolicy), aligned: src.HasTopology(), at: len(n.room.counts)}
		if p.policy != "" && !p.policy.known() {
			return fmt.Errorf("pool %s: unknown allocation policy %q", src.Resource, src.AllocationPolicy)
		}
		if src.Foreign {
			p.policy = ""
		}
		groups := slices.Clone(src.Groups)
		slices.SortStableFunc(groups, func(a, b topology.Group) int {
			return cmp.Or(slices.Compare(a.NUMANodes, b.NUMANodes), strings.Compare(a.PF, b.PF))
		})
		pfs := map[string]int{}
		for j := range groups {
			g := &groups[j]
			compiled, err := c.group(g, pfs)
			holds, all := heldOf(src.Resource, g, c.held)
			if err == nil && holds > g.Healthy {
				err = fmt.Errorf("pods hold %d of %d healthy devices", holds, g.Healthy)
			}
			if err != nil {
				return fmt.Errorf("pool %s: %w", src.Resource, err)
			}
			p.groups = append(p.groups, compiled)
			p.bridges = append(p.bridges, bridgesAbove(g.PF, g.Upstream))
			n.stray = n.stray || p.policy != "" && p.aligned && compiled.mask == 0
			p.held += int64(all)
			p.healthy += int64(g.Healthy)
			p.hosts |= compiled.mask
			n.empty.counts = append(n.empty.counts, int64(g.Healthy))
			n.room.counts = append(n.room.counts, int64(g.Healthy-holds))
		}
		if p.hosts == 0 || c.state.Topology.Kubelet.Minor < minorHostsOnly {
			p.hosts = n.everyNUMANode()
		}
		if n.policy == policyBestEffort || n.policy == policyRestricted {
			p.countMost(n)
		}
		n.pools = append(n.pools, p)
	}
	return nil
}

func (c *compiler) group(g *topology.Group, pfs map[string]int) (group, error) {
	if g.Healthy > g.Total || g.Healthy < 0 {
		return group{}, fmt.Errorf("%d of %d devices are healthy", g.Healthy, g.Total)
	}
	out := group{mask: c.mask(g.NUMANodes), numa: firstNUMANode(g.NUMANodes), total: int64(g.Total), numaNodes: g.NUMANodes, pfAddress: g.PF, unhealthy: g.Unhealthy}
	if _, known := pfs[g.PF]; !known {
		pfs[g.PF] = len(pfs)
	}
	out.pf = pfs[g.PF]
	return out, nil
}

// heldOf counts the devices of a group that pods hold, the healthy ones and
// all. An init container's device may be held again by an app container: ids, not entries.
func heldOf(resource string, g *topology.Group, held []topology.Allocation) (healthy, all int) {
	ids := map[string]bool{}
	for i := range held {
		for _, c := range held[i].Containers {
			for _, d := range c.Devices {
				if d.Resource != resource || !d.Of(g) {
					continue
				}
				for _, id := range d.IDs {
					if !ids[id] && !slices.Contains(g.Unhealthy, id) {
						healthy++
					}
					ids[id] = true
				}
			}
		}
	}
	return healthy, len(ids)
}

// mask are the NUMA nodes of a list that the node has.
func (c *compiler) mask(ids []int) uint64 {
	var mask uint64
	for _, id := range ids {
		if k, ok := c.index[id]; ok {
			mask |= 1 << k
		}
	}
	return mask
}
