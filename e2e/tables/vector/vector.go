// Package vector is the form in which the inputs of the kubelet's own tests,
// and what its code made of them, are kept for the allocator's tests.
package vector

import (
	"encoding/json"

	"github.com/numalane/numalane/pkg/topology"
)

// Table is what one of the kubelet's packages came to.
type Table struct {
	Machines [][]topology.NodeNUMA `json:"machines"`
	Vectors  []json.RawMessage     `json:"vectors"` // Vector each, one a line
}

// Vector is one input. Exactly one of the pointers is set.
type Vector struct {
	// Test is the first of the kubelet's tests that has this input.
	Test string `json:"test"`

	Pod   *Pod   `json:"pod,omitempty"`
	Take  *Take  `json:"take,omitempty"`
	Hints *Hints `json:"hints,omitempty"`
	Grant *Grant `json:"grant,omitempty"`
	Merge *Merge `json:"merge,omitempty"`
	// Left is why an input cannot be told to the allocator at all.
	Left string `json:"left,omitempty"`
}

// State is a node. Numa is its machine where it is recorded; the index of it,
// Machine, where it is kept.
type State struct {
	Machine int                            `json:"machine"`
	NUMA    []topology.NodeNUMA            `json:"numa,omitempty"`
	Gates   []string                       `json:"gates,omitempty"`
	CPUs    string                         `json:"cpus,omitempty"` // CPU manager policy
	CPUOpts map[string]string              `json:"cpuOpts,omitempty"`
	Memory  string                         `json:"memory,omitempty"` // memory manager policy
	Pools   []topology.Pool                `json:"pools,omitempty"`
	Held    []topology.ContainerAllocation `json:"held,omitempty"`
}

// Pod is a pod that arrives at a node, with the answers of the kubelet under
// its topology manager policies.
type Pod struct {
	State   State           `json:"state"`
	Pod     json.RawMessage `json:"pod"`
	Answers []Answer        `json:"answers"`
}

// Answer is what the kubelet did under some policies ("none",
// "restricted/pod"). Where it goes by chance there are several Lands.
type Answer struct {
	In      []string    `json:"in"`
	Reasons []string    `json:"reasons,omitempty"` // of the refusals seen
	Lands   [][]Landing `json:"lands,omitempty"`   // of the admissions seen
}

// Free is the name of a landing that is none: what nobody holds afterwards.
const Free = "(free)"

// Landing is what a container got.
type Landing struct {
	Name    string                      `json:"name,omitempty"`
	CPUs    topology.CPUSet             `json:"cpus,omitzero"`
	Memory  []topology.MemoryAllocation `json:"memory,omitempty"`
	Devices []Devices                   `json:"devices,omitempty"`
}

// Devices are a number of devices of one resource that sit on the same NUMA nodes.
type Devices struct {
	Resource  string `json:"resource,omitempty"`
	NUMANodes []int  `json:"numaNodes,omitempty"`
	Count     int    `json:"count"`
}

// Take is a call of takeByTopologyNUMAPacked, or with a Group of
// takeByTopologyNUMADistributed.
type Take struct {
	Machine   int                 `json:"machine"`
	NUMA      []topology.NodeNUMA `json:"numa,omitempty"`
	Available topology.CPUSet     `json:"available,omitzero"`
	Count     int                 `json:"count"`
	Group     int                 `json:"group,omitempty"`
	Spread    bool                `json:"spread,omitempty"`
	ByCache   bool                `json:"byCache,omitempty"`
	BySocket  bool                `json:"bySocket,omitempty"`
	Got       topology.CPUSet     `json:"got,omitzero"`
	Failed    bool                `json:"failed,omitempty"`
}

// Demand is what is asked of one manager, and Reuse what init containers of the same pod left.
type Demand struct {
	CPUs    int               `json:"cpus,omitempty"`
	Memory  map[string]uint64 `json:"memory,omitempty"`
	Devices map[string]int    `json:"devices,omitempty"`
	Reuse   Landing           `json:"reuse,omitzero"`
}

// Hint is a topology hint. No NUMANodes stand for any.
type Hint struct {
	NUMANodes []int `json:"numaNodes,omitempty"`
	Preferred bool  `json:"preferred,omitempty"`
}

// Hints is one manager's list for a demand.
type Hints struct {
	State  State  `json:"state"`
	Demand Demand `json:"demand"`
	Hints  []Hint `json:"hints,omitempty"`
}

// Grant is one manager's allocation for a container under a given hint.
type Grant struct {
	State  State  `json:"state"`
	Kind   string `json:"kind"` // app, init, sidecar
	Demand Demand `json:"demand"`
	Hint   Hint   `json:"hint,omitzero"`
	// Plugin: a device plugin had a say, in a way that no node publishes.
	Plugin bool `json:"plugin,omitempty"`
	// Reason is the kubelet's when it refuses, else Lands is what it gave.
	Reason string      `json:"reason,omitempty"`
	Lands  [][]Landing `json:"lands,omitempty"`
}

// Merge is a call of a topology manager policy's Merge.
type Merge struct {
	NUMANodes []int   `json:"numaNodes"`
	Distances [][]int `json:"distances,omitempty"` // with prefer-closest-numa-nodes: row by row
	Policy    string  `json:"policy"`
	// Resources are the lists of hints; null: no wish, empty: a wish that cannot be met.
	Resources [][]Hint `json:"resources"`
	Best      Hint     `json:"best,omitzero"`
	Admit     bool     `json:"admit,omitempty"`
}
