package allocator

import (
	"cmp"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/numalane/numalane/pkg/topology"
)

var worlds = flag.Int("worlds", 150, "how many random worlds TestPromisesAreKept goes through")

// TestPromisesAreKept lets random pods come and go on random nodes, with a
// kubelet that learns of it late and in batches, and a watcher that learns of it
// late as well and promises the node to whomever Traffic admits. The kubelet
// never refuses a pod that was promised, unless another has ended without notice
// and that alone is the cause; and nobody is left to wait once all is still.
func TestPromisesAreKept(t *testing.T) {
	var sum tally
	for seed := range *worlds {
		w := newWorld(rand.New(rand.NewPCG(uint64(seed), 4)))
		for range 120 {
			w.step()
		}
		w.settle()
		if w.wrong != "" {
			t.Errorf("seed %d, policy %s, scope %s: %s\n%s", seed, w.state.Topology.Kubelet.TopologyPolicy, w.state.Topology.Kubelet.TopologyScope, w.wrong, strings.Join(w.story, "\n"))
			return
		}
		sum.add(&w.tally)
	}
	t.Logf("%+v", sum)
	if sum.Promised < 5**worlds || sum.Expected < 2**worlds || sum.InFlux > sum.Promised || sum.Outrun*100 > sum.Promised {
		t.Errorf("%+v: that shows little", sum)
	}
}

type tally struct{ Asked, Promised, Refused, InFlux, Expected, Unknown, Overtaken, Outrun int }

func (t *tally) add(o *tally) {
	t.Asked += o.Asked
	t.Promised += o.Promised
	t.Refused += o.Refused
	t.InFlux += o.InFlux
	t.Expected += o.Expected
	t.Unknown += o.Unknown
	t.Overtaken += o.Overtaken
	t.Outrun += o.Outrun
}

// event is a change of the API, in the order in which it was made.
type event struct {
	what string // bind, ack, deleting, end
	pod  *worldPod
}

type worldPod struct {
	name    string
	age     int
	request *Request
	excused bool        // another was being deleted when it was promised, and the watcher did not know
	lives   []*worldPod // when it was promised, as far as the watcher knew

	ended, deleting, acked bool // in the API
	// On the node: admitted, and what it holds; gone from it.
	admitted, dropped bool
	sawDeleting       bool
	held              topology.Allocation

	move Move // as the watcher has it
}

type world struct {
	*rand.Rand
	tally
	state   *topology.NodeState
	log     []event
	kubelet int // events that it has seen
	watcher int
	moment  uint64
	pods    []*worldPod
	made    int
	shapes  []func() []asks
	wrong   string
	story   []string
}

func newWorld(r *rand.Rand) *world {
	w := &world{Rand: r}
	m := machine{threads: 1 + r.IntN(2)}
	cores := 2 + r.IntN(5)
	for range 1 + r.IntN(3) {
		m.cores = append(m.cores, cores)
		if r.IntN(10) == 0 {
			m.cores[0]++ // sockets that are not alike
		}
		m.vfs = append(m.vfs, r.IntN(6))
		m.gpus = append(m.gpus, r.IntN(3))
	}
	m.policy = []string{topology.PolicySingleNUMANode, topology.PolicySingleNUMANode, topology.PolicyRestricted, topology.PolicyBestEffort, topology.PolicyNone}[r.IntN(5)]
	m.scope = []string{topology.ScopeContainer, topology.ScopePod}[r.IntN(2)]
	if r.IntN(4) == 0 {
		for range m.cores {
			m.memory = append(m.memory, uint64(4+r.IntN(8))<<20)
		}
	}
	if r.IntN(4) == 0 && m.threads == 2 {
		m.cpuOpts = map[string]string{"full-pcpus-only": "true"}
	}
	w.state = m.state()
	w.state.Pools.Pools[0].AllocationPolicy = string(PolicyPacked)
	w.state.Pools.Pools[1].AllocationPolicy = string(PolicySpread)
	container := func() asks {
		a := asks{mem: fmt.Sprint(1+r.IntN(3), "Mi")}
		if r.IntN(6) > 0 {
			a.cpu = fmt.Sprint(1 + r.IntN(4))
		} else {
			a.cpu = "500m"
		}
		if r.IntN(2) == 0 {
			a.vf = int64(1 + r.IntN(2))
		}
		if r.IntN(5) == 0 {
			a.gpu = 1
		}
		return a
	}
	// A few shapes come again and again, as those of Deployments do.
	for range 1 + r.IntN(4) {
		shape := []asks{container()}
		for r.IntN(3) == 0 {
			c := container()
			c.init, c.side = r.IntN(4) == 0, r.IntN(4) == 0
			shape = append(shape, c)
		}
		w.shapes = append(w.shapes, func() []asks { return shape })
	}
	return w
}

func (w *world) say(format string, args ...any) {
	w.story = append(w.story, fmt.Sprintf(format, args...))
}

func (w *world) step() {
	switch w.IntN(10) {
	case 0, 1, 2:
		w.arrival()
	case 3:
		w.departure()
	case 4, 5:
		w.kubeletLooks(1 + w.IntN(4))
	case 6, 7:
		w.acknowledge()
	case 8:
		w.watcherLooks(1 + w.IntN(4))
	case 9:
		w.drop()
	}
}

// settle lets everybody catch up, and asks once more.
func (w *world) settle() {
	for w.wrong == "" && (w.kubelet < len(w.log) || w.watcher < len(w.log) || w.acknowledge()) {
		w.kubeletLooks(len(w.log))
		w.watcherLooks(len(w.log))
	}
	for _, p := range w.pods {
		if p.deleting && !p.ended {
			w.end(p)
		}
	}
	w.kubeletLooks(len(w.log))
	w.watcherLooks(len(w.log))
	if w.wrong != "" {
		return
	}
	t := w.traffic()
	now, err := Compile(w.truth())
	if err != nil {
		panic(err)
	}
	for _, shape := range w.shapes {
		r := NewRequest(podOf(shape()...))
		if got, want := t.Admit(r), now.Admit(r); got != want {
			w.wrong = fmt.Sprintf("all is still, and %v is answered with %s, want %s", shape(), got.Reason.Code(), want.Reason.Code())
		}
	}
}

func (w *world) tick() uint64 { w.moment++; return w.moment }

// traffic is the node as the watcher sees it.
func (w *world) traffic() *Traffic {
	var moves []Move
	for _, p := range w.pods {
		moves = append(moves, p.move)
	}
	t, err := CompileTraffic(w.state, moves)
	if err != nil {
		panic(err)
	}
	return t
}

func (w *world) arrival() {
	w.made++
	p := &worldPod{name: fmt.Sprint("p", w.made), age: w.IntN(1000)}
	shape := w.shapes[w.IntN(len(w.shapes))]()
	p.request = NewRequest(podOf(shape...))
	if !p.request.Exclusive() {
		return
	}
	w.Asked++
	v := w.traffic().Admit(p.request)
	switch {
	case v.Reason == InFlux:
		w.InFlux++
		return
	case !v.OK():
		w.Refused++
		return
	}
	w.Promised++
	for _, e := range w.log[w.watcher:] {
		p.excused = p.excused || e.what == "deleting"
	}
	for _, o := range w.pods {
		if o.move.Gone == 0 && !o.move.Leaving {
			p.lives = append(p.lives, o)
		}
	}
	p.move = Move{Request: p.request, Bound: w.tick()}
	w.pods = append(w.pods, p)
	w.write("bind", p)
	w.say("%s of %+v is bound", p.name, shape)
}

func (w *world) write(what string, p *worldPod) { w.log = append(w.log, event{what, p}) }

// departure deletes a pod: at once, or with grace.
func (w *world) departure() {
	p := w.any(func(p *worldPod) bool { return !p.ended })
	switch {
	case p == nil:
	case p.deleting || w.IntN(2) == 0:
		w.end(p)
	default:
		p.deleting = true
		w.write("deleting", p)
		w.say("%s is being deleted", p.name)
	}
}

func (w *world) end(p *worldPod) {
	p.ended = true
	w.write("end", p)
	w.say("%s has ended", p.name)
}

// drop lets the kubelet be done with a pod that is being deleted.
func (w *world) drop() {
	if p := w.any(func(p *worldPod) bool { return p.sawDeleting && p.admitted && !p.dropped }); p != nil {
		p.dropped = true
		w.say("the kubelet is done with %s", p.name)
	}
}

func (w *world) any(f func(*worldPod) bool) *worldPod {
	var some []*worldPod
	for _, p := range w.pods {
		if f(p) {
			some = append(some, p)
		}
	}
	if len(some) == 0 {
		return nil
	}
	return some[w.IntN(len(some))]
}

// kubeletLooks takes a batch of events: ends first, then pods by their age, then the rest.
func (w *world) kubeletLooks(most int) {
	batch := w.log[w.kubelet:min(len(w.log), w.kubelet+most)]
	w.kubelet += len(batch)
	var come []*worldPod
	for _, e := range batch {
		switch e.what {
		case "end":
			e.pod.dropped = true
		case "bind":
			come = append(come, e.pod)
		}
	}
	slices.SortFunc(come, func(a, b *worldPod) int { return cmp.Compare(a.age, b.age) })
	for _, p := range come {
		if !p.dropped {
			w.meet(p)
		}
	}
	for _, e := range batch {
		if e.what == "deleting" {
			e.pod.sawDeleting = true
		}
	}
}

// truth is the node as its kubelet sees it.
func (w *world) truth() *topology.NodeState {
	s := *w.state
	for _, p := range w.pods {
		if p.admitted && !p.dropped {
			s.Held = append(s.Held, p.held)
		}
	}
	return &s
}

func (w *world) meet(p *worldPod) {
	n, err := Compile(w.truth())
	if err != nil {
		panic(err)
	}
	outcomes, _ := n.Outcomes(p.request, 1000)
	o := outcomes[w.IntN(len(outcomes))]
	if !o.Verdict.OK() {
		w.say("the kubelet refuses %s: %s of\n%s", p.name, o.Verdict.Reason.Code(), n)
		switch {
		case p.excused || p.deleting:
		case w.outrun(p):
			w.Outrun++
		default:
			w.wrong = fmt.Sprintf("%s was promised the node and is refused", p.name)
		}
		if !p.ended {
			w.end(p)
		}
		p.dropped = true
		return
	}
	p.admitted = true
	p.held = topology.Allocation{UID: p.name}
	reuse := map[string][]string{} // what init containers ended with
	for i, l := range o.Containers {
		c := topology.ContainerAllocation{Name: l.Container, Memory: l.Memory, CPUs: map[int]topology.CPUSet{}}
		for k := range n.numaIDs {
			all := n.cpu.inMask(1 << k)
			if on := l.CPUs.Intersection(n.cpu.set(&all).CPUSet); !on.IsEmpty() {
				c.CPUs[n.numaIDs[k]] = topology.CPUSet{CPUSet: on}
			}
		}
		for _, d := range l.Devices {
			a := topology.DeviceAllocation{Resource: d.Resource, NUMANodes: d.NUMANodes, PF: d.PF}
			group := fmt.Sprint(d.Resource, d.NUMANodes)
			again := min(d.Count, len(reuse[group]))
			a.IDs = append(w.free(group, d.Count-again), reuse[group][:again]...)
			reuse[group] = reuse[group][again:]
			if p.request.plain.containers[i].kind == initial {
				reuse[group] = append(reuse[group], a.IDs...)
			}
			c.Devices = append(c.Devices, a)
		}
		p.held.Containers = append(p.held.Containers, c)
	}
	w.say("the kubelet admits %s: %+v", p.name, o.Containers)
}

// outrun tells whether the pod is refused only because others have ended that
// the watcher took for alive when it promised the node: had they not, it would
// have been admitted.
func (w *world) outrun(p *worldPod) bool {
	s := w.truth()
	before := len(s.Held)
	for _, o := range p.lives {
		if o.admitted && o.dropped {
			s.Held = append(s.Held, o.held)
		}
	}
	if len(s.Held) == before {
		return false
	}
	n, err := Compile(s)
	if err != nil {
		return false
	}
	return n.Admit(p.request).OK()
}

// free are ids of a group that nobody holds.
func (w *world) free(group string, count int) (ids []string) {
	taken := map[string]bool{}
	for _, a := range w.truth().Held {
		for _, c := range a.Containers {
			for _, other := range c.Devices {
				for _, id := range other.IDs {
					taken[id] = true
				}
			}
		}
	}
	for i := 0; len(ids) < count; i++ {
		if id := fmt.Sprint(group, i); !taken[id] {
			ids = append(ids, id)
		}
	}
	return ids
}

// acknowledge writes down what an admitted pod holds; false: there is none to be written down.
func (w *world) acknowledge() bool {
	p := w.any(func(p *worldPod) bool { return p.admitted && !p.dropped && !p.acked && !p.ended })
	if p == nil {
		return false
	}
	p.acked = true
	w.write("ack", p)
	w.say("%s is acknowledged", p.name)
	return true
}

func (w *world) watcherLooks(most int) {
	batch := w.log[w.watcher:min(len(w.log), w.watcher+most)]
	for _, e := range batch {
		w.watcher++
		p := e.pod
		switch e.what {
		case "deleting":
			p.move.Leaving = true
		case "end":
			p.move.Gone = w.tick()
		case "ack":
			w.hear(p)
		}
	}
	w.say("the watcher has seen %d of %d", w.watcher, len(w.log))
	// Who has gone is forgotten once it matters to nobody.
	t := w.traffic()
	i := 0
	w.pods = slices.DeleteFunc(w.pods, func(*worldPod) bool { i++; return t.Forgotten(i - 1) })
}

func (w *world) hear(p *worldPod) {
	expected, known := w.traffic().Expected(slices.Index(w.pods, p), &p.held)
	unseen := maps.Collect(func(yield func(string, bool) bool) {
		for _, e := range w.log {
			if e.what == "deleting" && !yield(e.pod.name, true) {
				return
			}
		}
	})
	switch {
	case expected:
		w.Expected++
	case !known:
		w.Unknown++
	case len(unseen) > 0:
		w.Overtaken++
	default:
		w.wrong = fmt.Sprintf("%s holds what was not foretold: %+v", p.name, p.held.Containers)
	}
	p.move.Held, p.move.Settled = &p.held, w.tick()
}
