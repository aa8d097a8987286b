package storm

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/cpuset"

	"github.com/numalane/numalane/e2e/storm/fleet"
	"github.com/numalane/numalane/e2e/storm/load"
	"github.com/numalane/numalane/e2e/storm/packing"
	"github.com/numalane/numalane/pkg/allocator"
	"github.com/numalane/numalane/pkg/topology"
)

// quiet is a storm's cluster before the fill act: its nodes, with some pods
// here and there, and the VFs that are free.
func quiet(t *testing.T, seed uint64) (nodes []*allocator.Node, total, free int) {
	t.Helper()
	dice := rand.New(rand.NewPCG(seed, 1))
	small := request(2, 1)
	for _, n := range fleet.New(20, dice) {
		s := state(n)
		node, err := allocator.Compile(s)
		if err != nil {
			t.Fatalf("node %s: %v", n.Name, err)
		}
		total += int(n.VFs[fleet.VF])
		free += int(n.VFs[fleet.VF])
		for range dice.IntN(3) {
			if after, v := node.After(small); v.OK() {
				node = after
				free--
			}
		}
		nodes = append(nodes, node)
	}
	return nodes, total, free
}

// state is what a node of the fleet publishes when nothing runs on it.
func state(n *fleet.Node) *topology.NodeState {
	s := &topology.NodeState{Topology: topology.NodeTopology{Kubelet: topology.Kubelet{
		Minor: 37, TopologyPolicy: n.Policy, TopologyScope: n.Scope, CPUPolicy: topology.CPUManagerStatic,
	}}}
	for _, numa := range n.Machine.NUMANodes {
		group := topology.CoreGroup{Socket: numa.Socket, Cache: numa.Socket}
		var reserved cpuset.CPUSet
		cores := map[int][]int{}
		for _, c := range n.Machine.CPUs() {
			if c.NUMANode == numa.ID {
				cores[c.Core] = append(cores[c.Core], c.ID)
			}
		}
		for core := range len(n.Machine.CPUs()) {
			if threads := cores[core]; len(threads) > 0 {
				group.CPUs = append(group.CPUs, topology.CPUSet{CPUSet: cpuset.New(threads...)})
			}
		}
		if numa.ID == 0 {
			reserved = group.CPUs[0].CPUSet
		}
		s.Topology.NUMANodes = append(s.Topology.NUMANodes, topology.NodeNUMA{ID: numa.ID, Cores: []topology.CoreGroup{group}, Reserved: topology.CPUSet{CPUSet: reserved}})
	}
	pools := map[corev1.ResourceName]*topology.Pool{}
	for i, nic := range n.Machine.NICs {
		name := fleet.VF
		if n.VFs[fleet.Slow] > 0 && nic.VFDevice == "10ed" {
			name = fleet.Slow
		}
		if pools[name] == nil {
			pools[name] = &topology.Pool{Resource: string(name)}
		}
		pools[name].Groups = append(pools[name].Groups, topology.Group{NUMANodes: []int{nic.NUMANode}, PF: fmt.Sprint("pf", i), Total: nic.VFs, Healthy: nic.VFs})
	}
	for _, name := range []corev1.ResourceName{fleet.Slow, fleet.VF} {
		if p := pools[name]; p != nil {
			s.Pools.Pools = append(s.Pools.Pools, *p)
		}
	}
	return s
}

func request(cpus, vfs int64) *allocator.Request {
	rl := corev1.ResourceList{
		corev1.ResourceCPU: *resource.NewQuantity(cpus, resource.DecimalSI), corev1.ResourceMemory: resource.MustParse("64Mi"),
		fleet.VF: *resource.NewQuantity(vfs, resource.DecimalSI),
	}
	return allocator.NewRequest(&corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Resources: corev1.ResourceRequirements{Requests: rl, Limits: rl}}}}})
}

// scheduler tells whether it would put a pod on a node to which it has sent so
// many since the load came.
type scheduler func(n *allocator.Node, r *allocator.Request, sent int) bool

// place puts what a scheduler dares to, one pod after the other on the node of
// the best score, and returns the VFs that they hold.
func place(nodes []*allocator.Node, kinds []packing.Kind, dares scheduler) (held int) {
	sent := make([]int, len(nodes))
	nodes = append([]*allocator.Node(nil), nodes...)
	for _, k := range kinds {
		for range k.Count {
			best, score := -1, int64(0)
			for i, n := range nodes {
				if s := n.Score(k.Request, 1000); s > score && dares(n, k.Request, sent[i]) {
					best, score = i, s
				}
			}
			if best < 0 {
				continue
			}
			nodes[best], _ = nodes[best].After(k.Request)
			sent[best]++
			held += k.Value
		}
	}
	return held
}

// A storm whose scheduler is safe because it is timid must not pass.
func TestFillShowsTimidity(t *testing.T) {
	tests := map[string]struct {
		dares  scheduler
		passes bool
	}{
		"as ours": {func(n *allocator.Node, r *allocator.Request, _ int) bool { return n.Admit(r).OK() }, true},
		"none to a node that one is on the way to": {func(n *allocator.Node, r *allocator.Request, sent int) bool {
			return sent == 0 && n.Admit(r).OK()
		}, false},
		"only where two would fit": {func(n *allocator.Node, r *allocator.Request, _ int) bool {
			after, v := n.After(r)
			return v.OK() && after.Admit(r).OK()
		}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(5) {
				nodes, total, free := quiet(t, seed)
				kinds := load.Kinds(load.Fill(free))
				best := packing.Most(nodes, kinds)
				if best.Cut {
					t.Errorf("seed %d: the search was cut short", seed)
				}
				held := place(nodes, kinds, tt.dares)
				tally := good()
				tally.Best = float64(total-free+best.Value) / float64(total)
				tally.Occupancy = float64(total-free+held) / float64(total)
				err := tally.Err()
				if (err == nil) != tt.passes || err != nil && !strings.Contains(err.Error(), "an exhaustive search reaches") {
					t.Errorf("seed %d: it reaches %.1f%% of the VFs and a search %.1f%%: %v", seed, 100*tally.Occupancy, 100*tally.Best, err)
				}
			}
		})
	}
}
