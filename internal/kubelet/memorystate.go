package kubelet

import (
	"fmt"
	"maps"
	"slices"

	"github.com/numalane/numalane/pkg/topology"
)

// MemoryState is a kubelet's memory_manager_state.
type MemoryState struct {
	Policy string
	// Machine is what the memory manager has to give away, by NUMA id. It is
	// empty under policy None.
	Machine map[int][]topology.Memory
	// Containers are the blocks by pod UID and container name. A block of an
	// init container is only what app containers did not take over.
	Containers map[string]map[string][]topology.MemoryAllocation
	// Pods are the blocks that a pod with pod-level resources holds as a whole.
	Pods map[string][]topology.MemoryAllocation
	// Unknown names fields that this version does not understand.
	Unknown []string

	data memoryData
}

// memoryData: memorymanager/state, MemoryManagerCheckpointV1 to V3.
type memoryData struct {
	PolicyName   string                              `json:"policyName"`
	MachineState map[int]numaMemory                  `json:"machineState"`
	Entries      map[string]map[string][]memoryBlock `json:"entries"`
	PodEntries   map[string]struct {
		MemoryBlocks []memoryBlock `json:"memoryBlocks"`
	} `json:"podEntries"`
}

type numaMemory struct {
	NumberOfAssignments int                    `json:"numberOfAssignments"`
	MemoryMap           map[string]memoryTable `json:"memoryMap"`
	Cells               []int                  `json:"cells"`
}

// memoryTable is in bytes. Reserved is what pods hold, not the system.
type memoryTable struct {
	Total          uint64 `json:"total"`
	SystemReserved uint64 `json:"systemReserved"`
	Allocatable    uint64 `json:"allocatable"`
	Reserved       uint64 `json:"reserved"`
	Free           uint64 `json:"free"`
}

type memoryBlock struct {
	NUMAAffinity []int  `json:"numaAffinity"`
	Type         string `json:"type"`
	Size         uint64 `json:"size"`
}

// ParseMemoryState reads any format of memory_manager_state that Kubernetes
// 1.34 to 1.37 write.
func ParseMemoryState(b []byte) (MemoryState, error) {
	data, unknown, err := unwrap(b, func(d *memoryData) string { return d.PolicyName })
	if err != nil {
		return MemoryState{}, fmt.Errorf("decode memory_manager_state: %w", err)
	}
	s := MemoryState{Policy: data.PolicyName, Unknown: unknown, data: data}
	for id, n := range data.MachineState {
		for _, kind := range slices.Sorted(maps.Keys(n.MemoryMap)) {
			m := n.MemoryMap[kind]
			put(&s.Machine, id, append(s.Machine[id], topology.Memory{
				Type: kind, Allocatable: m.Allocatable, Reserved: m.SystemReserved,
			}))
		}
	}
	for uid, containers := range data.Entries {
		for name, bs := range containers {
			if blocks := blocksOf(bs); len(blocks) > 0 {
				c := s.Containers[uid]
				put(&c, name, blocks)
				put(&s.Containers, uid, c)
			}
		}
	}
	for uid, e := range data.PodEntries {
		if blocks := blocksOf(e.MemoryBlocks); len(blocks) > 0 {
			put(&s.Pods, uid, blocks)
		}
	}
	return s, nil
}

func blocksOf(bs []memoryBlock) []topology.MemoryAllocation {
	var blocks []topology.MemoryAllocation
	for _, b := range bs {
		if b.Size == 0 {
			continue // taken over by an app container (memorymanager updateInitContainersMemoryBlocks)
		}
		blocks = append(blocks, topology.MemoryAllocation{
			Type: b.Type, NUMANodes: slices.Sorted(slices.Values(b.NUMAAffinity)), Size: b.Size,
		})
	}
	return blocks
}

// put sets a key of a map that may not have been made yet.
func put[K comparable, V any](m *map[K]V, k K, v V) {
	if *m == nil {
		*m = map[K]V{}
	}
	(*m)[k] = v
}
