package allocator

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/numalane/numalane/pkg/topology"
)

// spoilt is a good state, and what makes each bad.
var spoilt = map[string]struct {
	spoil func(*topology.NodeState)
	want  string
}{
	"no NUMA nodes":      {func(s *topology.NodeState) { s.Topology.NUMANodes = nil }, "0 NUMA nodes"},
	"older kubelet":      {func(s *topology.NodeState) { s.Topology.Kubelet.Minor = 33 }, "kubelet 1.33 is not known"},
	"newer kubelet":      {func(s *topology.NodeState) { s.Topology.Kubelet.Minor = 99 }, "kubelet 1.99 is not known"},
	"unknown policy":     {func(s *topology.NodeState) { s.Topology.Kubelet.TopologyPolicy = "quantum" }, `policy "quantum"`},
	"unknown scope":      {func(s *topology.NodeState) { s.Topology.Kubelet.TopologyScope = "galaxy" }, `scope "galaxy"`},
	"unknown CPU policy": {func(s *topology.NodeState) { s.Topology.Kubelet.CPUPolicy = "dynamic" }, `CPU manager policy "dynamic"`},
	"unknown memory":     {func(s *topology.NodeState) { s.Topology.Kubelet.MemoryPolicy = "static" }, `memory manager policy "static"`},
	"unknown option":     {func(s *topology.NodeState) { s.Topology.Kubelet.TopologyOpts = map[string]string{"x": "true"} }, `topology manager policy option "x"`},
	"unknown CPU option": {func(s *topology.NodeState) { s.Topology.Kubelet.CPUOpts = map[string]string{"x": "true"} }, `CPU manager policy option "x"`},
	"option neither": {func(s *topology.NodeState) {
		s.Topology.Kubelet.CPUOpts = map[string]string{"align-by-socket": "maybe"}
	}, "neither true nor false"},
	"no CPUs": {func(s *topology.NodeState) {
		for i := range s.Topology.NUMANodes {
			s.Topology.NUMANodes[i].Cores = nil
		}
	}, "no CPU is told"},
	"NUMA node twice": {func(s *topology.NodeState) { s.Topology.NUMANodes[1].ID = 0 }, "NUMA node 0 is listed after NUMA node 0"},
	"CPU in two NUMA nodes": {func(s *topology.NodeState) {
		s.Topology.NUMANodes[1].Cores[0].CPUs[0] = topology.NewCPUSet(0)
	}, "CPU 0 is listed in NUMA node 0 and in NUMA node 1"},
	"reserves what is not there": {func(s *topology.NodeState) {
		s.Topology.NUMANodes[1].Reserved = topology.NewCPUSet(0)
	}, "reserves CPUs 0 that it does not have"},
	"more healthy than all": {func(s *topology.NodeState) { s.Pools.Pools[0].Groups[0].Healthy = 99 }, "99 of 4 devices are healthy"},
	"more held than healthy": {func(s *topology.NodeState) {
		s.Pools.Pools[0].Groups[0].Healthy = 1
		s.Held = []topology.Allocation{{Containers: []topology.ContainerAllocation{{Devices: []topology.DeviceAllocation{
			{Resource: "numalane.io/vf", NUMANodes: []int{0}, IDs: []string{"a", "b"}},
		}}}}}
	}, "pods hold 2 of 1 healthy devices"},
	"pool twice":                {func(s *topology.NodeState) { s.Pools.Pools = append(s.Pools.Pools, s.Pools.Pools[0]) }, "listed twice"},
	"unknown allocation policy": {func(s *topology.NodeState) { s.Pools.Pools[0].AllocationPolicy = "greedy" }, `allocation policy "greedy"`},
	"memory twice": {func(s *topology.NodeState) {
		n := &s.Topology.NUMANodes[0]
		n.Memory = append(n.Memory, n.Memory[0])
	}, "lists memory twice"},
	"more memory held than there is": {func(s *topology.NodeState) { s.Held = holdsMemory(0, 9<<30) }, "more than NUMA nodes [0] have left"},
	"memory of another machine":      {func(s *topology.NodeState) { s.Held = holdsMemory(7, 1) }, "NUMA node 7, which the node does not have"},
	"no distances": {func(s *topology.NodeState) {
		s.Topology.Kubelet.TopologyPolicy = topology.PolicyRestricted
		s.Topology.Kubelet.TopologyOpts = map[string]string{"prefer-closest-numa-nodes": "true"}
	}, "distance from NUMA node 0 to 0 is not told"},
}

func holdsMemory(node int, size uint64) []topology.Allocation {
	return []topology.Allocation{{UID: "u", Containers: []topology.ContainerAllocation{{Name: "c", Memory: []topology.MemoryAllocation{
		{Type: "memory", NUMANodes: []int{node}, Size: size},
	}}}}}
}

func good() *topology.NodeState {
	return machine{cores: []int{4, 4}, vfs: []int{4, 2}, memory: []uint64{1 << 30, 1 << 30}}.state()
}

func TestCompileRefuses(t *testing.T) {
	compile(t, good())
	for name, tt := range spoilt {
		t.Run(name, func(t *testing.T) {
			s := good()
			tt.spoil(s)
			_, err := Compile(s)
			if err == nil {
				t.Fatal("compiled a state that contradicts itself")
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %q, want %q in it", err, tt.want)
			}
		})
	}
}

// FuzzState: whatever a node publishes, it is refused or answers every pod,
// and what Admit says is what Outcomes show.
func FuzzState(f *testing.F) {
	add := func(s *topology.NodeState) {
		b, err := json.Marshal(s)
		if err != nil {
			f.Fatal(err)
		}
		for cpus := range uint8(3) {
			f.Add(b, cpus*3, uint8(2), uint8(1))
		}
	}
	for _, policy := range []string{topology.PolicyNone, topology.PolicyBestEffort, topology.PolicyRestricted, topology.PolicySingleNUMANode} {
		for _, scope := range []string{topology.ScopeContainer, topology.ScopePod} {
			s := good()
			s.Topology.Kubelet.TopologyPolicy, s.Topology.Kubelet.TopologyScope = policy, scope
			s.Topology.Kubelet.CPUOpts = map[string]string{"distribute-cpus-across-numa": "true", "full-pcpus-only": "true"}
			add(s)
		}
	}
	for _, tt := range spoilt {
		s := good()
		tt.spoil(s)
		add(s)
	}
	f.Fuzz(func(t *testing.T, state []byte, cpus, vfs, init uint8) {
		var s topology.NodeState
		if json.Unmarshal(state, &s) != nil || len(s.Topology.NUMANodes) > 8 {
			return
		}
		n, err := Compile(&s)
		if err != nil {
			return
		}
		r := NewRequest(podOf(
			asks{cpu: "1", vf: int64(init % 3), init: true},
			asks{cpu: "500m", loose: int64(init % 4)},
			asks{cpu: string('0' + rune(cpus%10)), vf: int64(vfs % 8), mem: "300Mi"},
		))
		v := n.Admit(r)
		outcomes, complete := n.Outcomes(r, maxOutcomes)
		if !complete {
			return
		}
		admitted := 0
		for _, o := range outcomes {
			if o.Verdict.OK() {
				admitted++
			}
		}
		if v.OK() != (admitted == len(outcomes)) {
			t.Fatalf("Admit says %s, %d of %d outcomes admit", v.Reason.Code(), admitted, len(outcomes))
		}
	})
}
