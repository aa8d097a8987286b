package topology

import (
	"cmp"
	"slices"
	"strings"

	"k8s.io/utils/cpuset"
)

// The keys of the contract between the plugin and the extender.
const (
	TopologyAnnotation   = "numalane.io/topology"        // on the Node: NodeTopology
	PoolsAnnotation      = "numalane.io/pools"           // on the Node: NodePools
	AllocationAnnotation = "numalane.io/allocation"      // on the Pod: Allocation
	PolicyLabel          = "numalane.io/topology-policy" // on the Node
	ScopeLabel           = "numalane.io/topology-scope"  // on the Node
	PoolLabelPrefix      = "pool.numalane.io/"           // on the Node: largest healthy count on one NUMA node
)

// Topology manager policies and scopes, as KubeletConfiguration spells them.
const (
	PolicyNone           = "none"
	PolicyBestEffort     = "best-effort"
	PolicyRestricted     = "restricted"
	PolicySingleNUMANode = "single-numa-node"

	ScopeContainer = "container"
	ScopePod       = "pod"
)

// CPU and memory manager policies, as KubeletConfiguration spells them.
const (
	CPUManagerNone      = "none"
	CPUManagerStatic    = "static"
	MemoryManagerNone   = "None"
	MemoryManagerStatic = "Static"
)

// NodeState is what a node's kubelet is, has, and has given away: all that
// its answer to one more pod depends on. The allocator computes on it.
type NodeState struct {
	Topology NodeTopology
	Pools    NodePools
	// Held are the allocations of the node's pods, one a pod UID. An entry of
	// NodePools.Unowned counts as held as well, without being repeated here.
	Held []Allocation
	// Totals are what the general predicates count; nil leaves them out. They
	// are not published: the API has them.
	Totals *Totals
}

// Totals are the sums over a whole node, by resource name: CPUs in thousandths
// under "cpu", the number of pods under "pods", all else in the API's units.
type Totals struct {
	Allocatable map[string]int64 // the Node's status
	Requested   map[string]int64 // of all pods that the kubelet has admitted
}

// NodeTopology is the annotation numalane.io/topology: the kubelet's settings
// and the machine as its managers see it. It changes when the kubelet restarts.
type NodeTopology struct {
	Version   int        `json:"version"`
	Kubelet   Kubelet    `json:"kubelet"`
	NUMANodes []NodeNUMA `json:"numaNodes"` // by ID
	// Inexact says why the state is not exact, for example that a state file
	// has an unknown format; empty when it is exact.
	Inexact string `json:"inexact,omitempty"`
	// Away: the kubelet does not listen, or has started and not gone through its
	// pods yet. Until then it takes back nothing of what pods held that ended
	// while it was down (sourcesReady.AllReady), so its answers cannot be foretold.
	Away bool `json:"away,omitempty"`
}

// Kubelet is the part of a kubelet's configuration that decides an admission.
type Kubelet struct {
	Minor          int               `json:"minor"`                  // 37 for v1.37.2
	FeatureGates   []string          `json:"featureGates,omitempty"` // those that matter and are on, sorted
	TopologyPolicy string            `json:"topologyPolicy"`         // PolicyNone …
	TopologyScope  string            `json:"topologyScope"`          // ScopeContainer, ScopePod
	TopologyOpts   map[string]string `json:"topologyOpts,omitempty"` // topologyManagerPolicyOptions
	CPUPolicy      string            `json:"cpuPolicy"`              // none, static
	CPUOpts        map[string]string `json:"cpuOpts,omitempty"`      // cpuManagerPolicyOptions
	MemoryPolicy   string            `json:"memoryPolicy,omitempty"` // None, Static
}

// NodeNUMA is a NUMA node as the kubelet's managers see it.
type NodeNUMA struct {
	ID        int         `json:"id"`
	Cores     []CoreGroup `json:"cores,omitempty"`
	Reserved  CPUSet      `json:"reserved,omitzero"` // CPUs that no container gets exclusively
	Distances map[int]int `json:"distances,omitempty"`
	Memory    []Memory    `json:"memory,omitempty"` // by Type
}

// CoreGroup are the physical cores of a NUMA node that share a socket and a
// last-level cache, each with its threads, ordered by their lowest CPU id.
type CoreGroup struct {
	Socket int      `json:"socket"`
	Cache  int      `json:"cache"`
	CPUs   []CPUSet `json:"cpus"` // one set of threads a core
}

// Memory is one type of memory of a NUMA node, "memory" or "hugepages-1Gi".
type Memory struct {
	Type        string `json:"type"`
	Allocatable uint64 `json:"allocatable"` // bytes, what the memory manager may give away
	Reserved    uint64 `json:"reserved"`    // bytes, system-reserved
}

// CPUs are all CPUs of the NUMA node, reserved ones too.
func (n *NodeNUMA) CPUs() CPUSet {
	// One union of all: a union copies what it has, and a ledger asks this for
	// every container.
	var cores []cpuset.CPUSet
	for _, g := range n.Cores {
		for _, c := range g.CPUs {
			cores = append(cores, c.CPUSet)
		}
	}
	return CPUSet{cpuset.New().Union(cores...)}
}

// NodePools is the annotation numalane.io/pools: the device pools of a node.
type NodePools struct {
	Version int    `json:"version"`
	Pools   []Pool `json:"pools"` // by Resource
	// Unowned is what the kubelet holds for pods that the API does not have.
	Unowned []Allocation `json:"unowned,omitempty"`
	// Contended are CPUs that a pod holds and the kubelet would give to another
	// as well. On machines whose sockets or cores are not alike it counts part
	// of one as a whole, and gives away what is taken (cpumanager isSocketFree, isCoreFree).
	Contended CPUSet `json:"contended,omitzero"`
	// Leaked are CPUs that no pod holds and the kubelet will not give away until
	// its state file is removed: those of a pod with pod-level resources that it
	// refused half-way (cpumanager allocatePodForAdd, removeStaleState).
	Leaked CPUSet `json:"leaked,omitzero"`
	// Memory is the memory manager's account of those NUMA nodes where it
	// cannot be told from what pods hold: it depends on their order where
	// allocations span NUMA nodes (memorymanager updateMachineState, releaseMemory).
	Memory []MemoryAccount `json:"memory,omitempty"` // by NUMANode
	// MemoryElse are the other ways in which that account may come out: what
	// several ended pods held is taken back in no order (memorymanager removeStaleState).
	MemoryElse [][]MemoryAccount `json:"memoryElse,omitempty"`
}

// MemoryAccount is what the memory manager takes a NUMA node to have left.
type MemoryAccount struct {
	NUMANode int               `json:"numaNode"`
	With     []int             `json:"with,omitempty"` // NUMANodeState.Cells, of a node that holds any
	Free     map[string]uint64 `json:"free"`           // bytes by type
}

// Pool is one device-plugin resource of a node.
type Pool struct {
	Resource string `json:"resource"` // numalane.io/sriov
	// AllocationPolicy is how GetPreferredAllocation chooses; empty for a
	// pool of another vendor's plugin, of which it is not known.
	AllocationPolicy string `json:"allocationPolicy,omitempty"`
	// Foreign marks a pool of another vendor's plugin: its unhealthy devices
	// are not to be seen, so its totals may be too small.
	Foreign bool    `json:"foreign,omitempty"`
	Groups  []Group `json:"groups"` // by NUMANodes, then PF
}

// HasTopology tells whether any device of the pool says where it sits: only
// then does the kubelet align the pool (devicemanager, deviceHasTopologyAlignment).
func (p *Pool) HasTopology() bool {
	for _, g := range p.Groups {
		if len(g.NUMANodes) > 0 {
			return true
		}
	}
	return false
}

// Group are the devices of a pool that share NUMA nodes and PF.
type Group struct {
	NUMANodes []int    `json:"numaNodes,omitempty"` // empty: no topology
	PF        string   `json:"pf,omitempty"`        // PCI address of the PF
	PFName    string   `json:"pfName,omitempty"`
	Upstream  []string `json:"upstream,omitempty"` // PCI bridges above the PF, the nearest first
	Speed     int      `json:"speed,omitempty"`    // Mbit/s of the PF
	Link      string   `json:"link,omitempty"`     // up, down
	Total     int      `json:"total"`              // registered with the kubelet
	Healthy   int      `json:"healthy"`
	Free      int      `json:"free"`                // for people; the extender computes its own
	Unhealthy []string `json:"unhealthy,omitempty"` // ids, so that a held one is not counted twice
}

// Allocation is the annotation numalane.io/allocation: what one pod holds. It
// is the node's acknowledgement of that very UID.
type Allocation struct {
	Version    int                   `json:"version"`
	UID        string                `json:"uid"`
	Containers []ContainerAllocation `json:"containers"` // init containers too, by name
}

// WholePod stands in the place of a container's name for what a pod with
// pod-level resources holds as a whole, its containers sharing or splitting it
// (gate PodLevelResourceManagers). It is no valid container name.
const WholePod = "(pod)"

// ContainerAllocation is what one container holds exclusively.
type ContainerAllocation struct {
	Name    string             `json:"name"`
	CPUs    map[int]CPUSet     `json:"cpus,omitempty"` // exclusive ones, by NUMA id
	Memory  []MemoryAllocation `json:"memory,omitempty"`
	Devices []DeviceAllocation `json:"devices,omitempty"` // by Resource, NUMANodes, PF
}

// MemoryAllocation is memory bound to a group of NUMA nodes.
type MemoryAllocation struct {
	Type      string `json:"type"` // memory, hugepages-1Gi
	NUMANodes []int  `json:"numaNodes"`
	Size      uint64 `json:"size"` // bytes
}

// DeviceAllocation are the devices of one resource, NUMA node and PF.
type DeviceAllocation struct {
	Resource  string   `json:"resource"`
	NUMANodes []int    `json:"numaNodes,omitempty"`
	PF        string   `json:"pf,omitempty"`
	IDs       []string `json:"ids"`
}

// Of tells whether the devices are of a group of their resource's pool.
func (d *DeviceAllocation) Of(g *Group) bool {
	return d.PF == g.PF && slices.Equal(d.NUMANodes, g.NUMANodes)
}

// Compare orders allocations by Resource, NUMANodes and PF.
func (d DeviceAllocation) Compare(o DeviceAllocation) int {
	return cmp.Or(strings.Compare(d.Resource, o.Resource), slices.Compare(d.NUMANodes, o.NUMANodes), strings.Compare(d.PF, o.PF))
}
