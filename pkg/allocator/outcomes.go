package allocator

import (
	"slices"

	"github.com/numalane/numalane/pkg/topology"
)

// Outcome is one thing that the kubelet may do with a pod.
type Outcome struct {
	Verdict Verdict
	// Containers tell what each container holds once the pod is admitted, in
	// admission order. Where the pod has its CPUs and memory as a whole, that
	// is listed for topology.WholePod.
	Containers []Landing
	After      *Node
}

// Landing is what one container holds. What an app container reuses of an init
// container is listed for both, as the kubelet does, but for memory, which moves.
type Landing struct {
	Container string
	CPUs      topology.CPUSet
	Memory    []topology.MemoryAllocation
	Devices   []DeviceCount
}

// LandingsOf tells what a pod's node says that it holds in the words of an
// Outcome, so that one can be held against the other.
func LandingsOf(a *topology.Allocation) []Landing {
	all := make([]Landing, 0, len(a.Containers))
	for _, c := range a.Containers {
		l := Landing{Container: c.Name, Memory: c.Memory}
		for _, cpus := range c.CPUs {
			l.CPUs.CPUSet = l.CPUs.Union(cpus.CPUSet)
		}
		for _, d := range c.Devices {
			l.Devices = append(l.Devices, DeviceCount{Resource: d.Resource, NUMANodes: d.NUMANodes, PF: d.PF, Count: len(d.IDs)})
		}
		all = append(all, l)
	}
	return all
}

// DeviceCount are devices of one resource that share NUMA nodes and PF.
type DeviceCount struct {
	Resource  string
	NUMANodes []int
	PF        string
	Count     int
}

// Outcomes are all that the kubelet may do with the pod, were it to arrive
// now: one, unless the kubelet picks devices at random. complete is false when
// there are more than limit.
func (n *Node) Outcomes(r *Request, limit int) (outcomes []Outcome, complete bool) {
	for _, node := range append([]*Node{n}, n.others...) {
		var f fate
		for more := true; more; more = f.next() {
			if len(outcomes) == limit {
				return outcomes, false
			}
			outcomes = append(outcomes, node.outcome(r, &f))
		}
	}
	return outcomes, true
}

func (n *Node) outcome(r *Request, f *fate) Outcome {
	q := n.ask(r)
	a := admission{node: n, room: n.clone(), fate: f, memory: &reusableMemory{}, lands: &landings{node: n, ask: q}}
	a.reuse.counts = make([]int64, len(n.room.counts))
	v := a.verdict(q, n.countedOf(r))
	if !v.OK() {
		return Outcome{Verdict: v, After: n}
	}
	for i := range a.lands.list {
		l := &a.lands.list[i]
		l.Memory = slices.DeleteFunc(l.Memory, func(m topology.MemoryAllocation) bool { return m.Size == 0 })
		if len(l.Memory) == 0 {
			l.Memory = nil
		}
	}
	after := *n
	after.room = a.room
	after.others = nil
	after.pools, after.totals = n.poolsAfter(&a.room), n.totalsAfter(r)
	return Outcome{Verdict: v, Containers: a.lands.list, After: &after}
}

// fate decides what the kubelet leaves to chance, each way in turn.
type fate struct {
	picks, widths []int
	at            int
}

// pick is a number below width.
func (f *fate) pick(width int) int {
	if width <= 1 {
		return 0
	}
	if f.at == len(f.picks) {
		f.picks, f.widths = append(f.picks, 0), append(f.widths, width)
	}
	p := f.picks[f.at]
	f.at++
	return p
}

// next turns to the next way that things may go; false when all have been gone.
func (f *fate) next() bool {
	f.at = 0
	for last := len(f.picks) - 1; last >= 0; last-- {
		if f.picks[last]++; f.picks[last] < f.widths[last] {
			return true
		}
		f.picks, f.widths = f.picks[:last], f.widths[:last]
	}
	return false
}

// landings write down what each container gets. A nil one does not.
type landings struct {
	node *Node
	ask  *ask
	list []Landing
}

func (l *landings) begin(container string) {
	if l != nil {
		l.list = append(l.list, Landing{Container: container})
	}
}

func (l *landings) current() *Landing { return &l.list[len(l.list)-1] }

func (l *landings) cpus(got *cpuBits) {
	if l != nil {
		l.current().CPUs = l.node.cpu.set(got)
	}
}

func (l *landings) device(p *pool, i int, count int64) {
	if l == nil || count == 0 {
		return
	}
	g := &p.groups[i]
	l.current().Devices = append(l.current().Devices, DeviceCount{p.resource, g.numaNodes, g.pfAddress, int(count)})
}

// memory notes the blocks, and takes from those of earlier init containers
// what is used again (memorymanager updateInitContainersMemoryBlocks).
func (l *landings) memory(mask uint64, want []wantMemory) {
	if l == nil {
		return
	}
	ids := l.node.ids(mask)
	for _, w := range want {
		name := l.node.mem[w.kind].name
		left := uint64(w.size)
		for i := range l.list[:len(l.list)-1] {
			if l.ask.containers[i].kind != initial {
				continue
			}
			for j := range l.list[i].Memory {
				b := &l.list[i].Memory[j]
				if b.Type == name && slices.Equal(b.NUMANodes, ids) {
					used := min(left, b.Size)
					b.Size -= used
					left -= used
				}
			}
		}
		if w.size > 0 {
			l.current().Memory = append(l.current().Memory, topology.MemoryAllocation{Type: name, NUMANodes: ids, Size: uint64(w.size)})
		}
	}
}
