package allocator

import (
	"fmt"
	"slices"
	"strings"

	"github.com/numalane/numalane/pkg/topology"
)

// Node is a NodeState compiled for admission. It is immutable, so any number
// of goroutines may ask it.
type Node struct {
	policy   policy
	podScope bool
	static   bool // CPU manager static
	memory   bool // memory manager Static
	podLevel bool // gate PodLevelResourceManagers
	// claims: extended resources that DRA serves take no device of a device
	// plugin (devicemanager isDRAExtendedResource).
	claims bool
	// claimsUncounted: nor do the general predicates count them.
	claimsUncounted bool
	// absentIsDRA and zeroIsDRA: the general predicates leave what the node does
	// not have, or has none of, to DRA (noderesources shouldDelegateResourceToDRA).
	absentIsDRA, zeroIsDRA bool
	// emptyMemory: the memory manager looks for room for nothing where a
	// container of a Guaranteed pod asks for no memory.
	emptyMemory bool

	numaIDs   []int
	distances []int     // prefer-closest-numa-nodes: NUMA node by NUMA node; else nil
	between   Distances // for Prefer's choice
	// stray: a pool of ours has devices on the machine's NUMA nodes and others.
	stray   bool
	cpu     *cpuTopology
	cpuOpts cpuOptions
	pools   []pool
	mem     []memoryType
	cellsAt int
	totals  []total // ordered as the kubelet goes through them; nil when they are not known

	room  room
	empty room // the node with nothing held
	// others are what the node may be instead: how what ended pods held is taken
	// back is left to chance.
	others []*Node
}

// room is all that an admission changes.
type room struct {
	cpus cpuBits // free exclusive ones
	// counts are, in this order: every pool's free devices by group, every type
	// of memory by NUMA node, and the NUMA nodes that each NUMA node's memory is given away
	// together with.
	counts []int64
}

// policy is the topology manager's.
type policy uint8

const (
	policyNone policy = iota
	policyBestEffort
	policyRestricted
	policySingle
)

// Versions of the kubelet at which an admission changed.
const (
	// oldestMinor and newestMinor are those whose code this package was held against.
	oldestMinor, newestMinor = 34, 37
	// minorDRAClaims skips devices for extended resources that DRA serves.
	minorDRAClaims = 35
	// minorCountedDRA does not count those in the general predicates either, and
	// counts all others. The one before it counts nothing of what the node has
	// none of, and earlier ones nothing of what the node does not list.
	minorCountedDRA = 36
	// minorHostsOnly makes device hints only of NUMA nodes that host a device
	// of the resource (devicemanager deviceNUMANodes).
	minorHostsOnly = 36
	// minorNoEmptyMemory leaves the memory manager alone where nothing is asked of it.
	minorNoEmptyMemory = 37
	// minorDistribution heeds align-by-socket in distribute-cpus-across-numa.
	minorDistribution = 37
)

// The feature gates that decide, as they are published.
const (
	gatePodLevelManagers    = "PodLevelResourceManagers"
	gateDRAExtendedResource = "DRAExtendedResource"
)

// Equal tells whether two nodes have the same room left, and so answer every
// pod alike. Both must come from states of one node. What a node may be instead
// of what it is is left out.
func (n *Node) Equal(o *Node) bool {
	return n.room.cpus == o.room.cpus && slices.Equal(n.room.counts, o.room.counts)
}

func (n *Node) poolOf(resource string) *pool {
	for i := range n.pools {
		if n.pools[i].resource == resource {
			return &n.pools[i]
		}
	}
	return nil
}

// memoryKind is the index of a type of memory, -1 when the node has none.
func (n *Node) memoryKind(name string) int {
	for i := range n.mem {
		if n.mem[i].name == name {
			return i
		}
	}
	return -1
}

// ask is what a request comes to on this node.
func (n *Node) ask(r *Request) *ask {
	if n.podLevel {
		return &r.managed
	}
	return &r.plain
}

// countedOf is what the general predicates count of a request.
func (n *Node) countedOf(r *Request) []amount {
	if n.claimsUncounted {
		return r.unclaimed
	}
	return r.totals
}

// String is the room that is left, for people.
func (n *Node) String() string {
	var b strings.Builder
	for k, id := range n.numaIDs {
		fmt.Fprintf(&b, "NUMA node %d:", id)
		if n.static {
			free := n.room.cpus.and(&n.cpu.numa[k].set)
			fmt.Fprintf(&b, " CPUs %s", n.cpu.set(&free))
		}
		for i := range n.mem {
			fmt.Fprintf(&b, ", %s %d", n.mem[i].name, n.room.counts[n.mem[i].at+k])
		}
		if n.memory {
			fmt.Fprintf(&b, ", given away with %v", n.ids(uint64(n.room.counts[n.cellsAt+k])))
		}
		b.WriteByte('\n')
	}
	for i := range n.pools {
		p := &n.pools[i]
		for j := range p.groups {
			g := &p.groups[j]
			fmt.Fprintf(&b, "%s: NUMA nodes %v, PF %q: %d of %d\n", p.resource, g.numaNodes, g.pfAddress, n.room.counts[p.at+j], g.total)
		}
	}
	return b.String()
}

// held is all that pods hold.
func held(s *topology.NodeState) []topology.Allocation {
	return slices.Concat(s.Held, s.Pools.Unowned)
}
