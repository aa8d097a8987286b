package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	corev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/numalane/numalane/pkg/allocator"
)

// Policy says which nodes pods may go to although their state is not known.
// The zero value refuses them all to pods that ask for something exclusive: a
// node that publishes nothing promises nothing.
type Policy struct {
	AdmitAbsent     bool // the node publishes nothing
	AdmitUnreadable bool // it publishes what cannot be read, contradicts itself, or is of a kubelet that is not known
	AdmitNewer      bool // it publishes a newer format
	// RefuseStale is the other way round: pods are refused by a node that has
	// not said for staleAfter what one holds that is bound to it. Whatever that
	// holds counts either way; what else has happened there is not known.
	RefuseStale bool
}

// suspectFor is about what a plugin takes to be replaced.
const suspectFor = 3 * time.Second

// staleAfter is many times what a node takes to acknowledge a pod, and less
// than an API server takes to declare a node dead (node-monitor-grace-period).
const staleAfter = 30 * time.Second

func (p Policy) admits(r allocator.Reason) bool {
	switch r {
	case allocator.NoState:
		return p.AdmitAbsent
	case allocator.UnreadableState, allocator.Unknown:
		return p.AdmitUnreadable
	case allocator.NewerState:
		return p.AdmitNewer
	}
	return false
}

// Ledger knows what every node has and who holds it. Its methods may be
// called from any goroutine.
type Ledger struct {
	log     *slog.Logger
	policy  Policy
	metrics *metrics

	client   corev1.PodsGetter
	informed struct{ nodes, pods cache.SharedIndexInformer }
	pods     corelisters.PodLister
	synced   atomic.Bool
	watches  []*watch

	// write is held by whoever changes what is known: the two watches, Bind
	// and settle. It is never held during a call to the API.
	write  sync.Mutex
	moment uint64             // counts what is seen, see allocator.Move
	buried map[types.UID]bool // pods seen to end during a CatchUp; nil: there is none

	catchingUp sync.Mutex // one at a time

	// read guards the maps alone, so that questions never wait for a change.
	// They are changed by whoever holds both.
	read     sync.RWMutex
	nodes    map[string]*node
	promised map[types.UID][]string // nodes that a pod is promised to
}

// New makes a Ledger that asks client. Nothing happens before Run.
func New(client kubernetes.Interface, policy Policy, log *slog.Logger, reg prometheus.Registerer) (*Ledger, error) {
	l := &Ledger{
		log:      log,
		policy:   policy,
		metrics:  newMetrics(),
		client:   client.CoreV1(),
		promised: map[types.UID][]string{},
		nodes:    map[string]*node{},
	}
	l.informed.nodes = coreinformers.NewNodeInformer(client, 0, nil)
	l.informed.pods = coreinformers.NewFilteredPodInformer(client, v1.NamespaceAll, 0,
		cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc}, liveOnly)
	l.pods = corelisters.NewPodLister(l.informed.pods.GetIndexer())
	if err := errors.Join(l.informed.nodes.SetTransform(stripNode), l.informed.pods.SetTransform(stripPod)); err != nil {
		return nil, fmt.Errorf("set up the watches: %w", err)
	}
	if err := errors.Join(l.metrics.register(reg), reg.Register(census{l})); err != nil {
		return nil, fmt.Errorf("register the ledger's metrics: %w", err)
	}
	var err error
	l.watches, err = minded(l, reg)
	return l, err
}

// Run watches until ctx ends.
func (l *Ledger) Run(ctx context.Context) error {
	nodes, err := l.informed.nodes.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { l.setNode(obj.(*v1.Node)) },
		UpdateFunc: func(_, obj any) { l.setNode(obj.(*v1.Node)) },
		DeleteFunc: func(obj any) { l.dropNode(last[*v1.Node](obj)) },
	})
	if err != nil {
		return fmt.Errorf("watch Nodes: %w", err)
	}
	pods, err := l.informed.pods.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { l.setPod(obj.(*v1.Pod)) },
		UpdateFunc: func(old, obj any) { l.replacePod(old.(*v1.Pod), obj.(*v1.Pod)) },
		DeleteFunc: func(obj any) { l.dropPod(last[*v1.Pod](obj)) },
	})
	if err != nil {
		return fmt.Errorf("watch Pods: %w", err)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { l.informed.nodes.RunWithContext(ctx); return nil })
	g.Go(func() error { l.informed.pods.RunWithContext(ctx); return nil })
	g.Go(func() error {
		if cache.WaitForCacheSync(ctx.Done(), nodes.HasSynced, pods.HasSynced) {
			l.synced.Store(true)
			l.log.Info("the ledger is complete", "nodes", len(l.informed.nodes.GetStore().ListKeys()), "pods", len(l.informed.pods.GetStore().ListKeys()))
		}
		return nil
	})
	g.Go(func() error { l.settleRegularly(ctx); return nil })
	return g.Wait()
}

// HasSynced tells whether the watches have shown everything that there was at
// the start. Before that no answer means anything.
func (l *Ledger) HasSynced() bool { return l.synced.Load() }

// Admit foretells what the nodes' kubelets will say to the pod, were it bound to
// them now: say is told of each. What is already promised to this very pod does
// not stand in its way.
//
// A pod that may be bound to another node already, the outcome of that being
// unknown, is refused by all others until it is known.
func (l *Ledger) Admit(nodes []string, pod types.UID, r *allocator.Request, say func(node string, v allocator.Verdict)) {
	promised, it := l.promisedTo(pod), crowdOf(pod)
	for i, s := range l.snapshots(nodes) {
		if elsewhere(promised, nodes[i]) != "" {
			say(nodes[i], allocator.Verdict{Reason: allocator.InFlux, Container: -1})
			continue
		}
		if s.crowd&it != 0 {
			s = s.without(pod)
		}
		say(nodes[i], l.verdict(s, r))
	}
}

// AdmitWithout foretells the same for when the pods that are leaving have gone.
func (l *Ledger) AdmitWithout(node string, pod types.UID, r *allocator.Request, leaving []types.UID) allocator.Verdict {
	return l.verdict(l.snapshot(node).without(append(leaving[:len(leaving):len(leaving)], pod)...), r)
}

// verdict lets pods go to nodes that are not known where that is the policy.
func (l *Ledger) verdict(s *snapshot, r *allocator.Request) allocator.Verdict {
	v := s.admit(r)
	switch {
	case l.policy.admits(v.Reason):
		return allocator.Verdict{Reason: allocator.Admitted, Container: -1}
	case v.OK() && l.policy.RefuseStale && s.isStale():
		return allocator.Verdict{Reason: allocator.StaleState, Container: -1}
	}
	return v
}

// Score says how useful the room is that the pod leaves on the node, from 0 to
// most. It is 0 for a node that refuses the pod, or whose state is not known.
func (l *Ledger) Score(node string, pod types.UID, r *allocator.Request, most int64) int64 {
	s := l.snapshot(node)
	score := s.without(pod).score(r, most)
	if s.isSuspect() {
		return min(score, 1) // rather any other
	}
	return score
}

// tick is the next moment. The caller holds write.
func (l *Ledger) tick() uint64 {
	l.moment++
	return l.moment
}

func (l *Ledger) snapshot(name string) *snapshot {
	l.read.RLock()
	defer l.read.RUnlock()
	return l.latest(name)
}

func (l *Ledger) snapshots(names []string) []*snapshot {
	all := make([]*snapshot, len(names))
	l.read.RLock()
	defer l.read.RUnlock()
	for i, name := range names {
		all[i] = l.latest(name)
	}
	return all
}

// latest is a node's snapshot. The caller holds read.
func (l *Ledger) latest(name string) *snapshot {
	if n := l.nodes[name]; n != nil {
		return n.now.Load()
	}
	return &absent
}

// at is the node of this name, made when it is new. The caller holds write.
func (l *Ledger) at(name string) *node {
	if n := l.nodes[name]; n != nil {
		return n
	}
	n := newNode(name)
	l.read.Lock()
	l.nodes[name] = n
	l.read.Unlock()
	return n
}

// publish makes a change of a node known, and forgets one of which nothing is
// left. The caller holds write.
func (l *Ledger) publish(n *node) {
	if n.forgotten() {
		l.read.Lock()
		delete(l.nodes, n.name)
		l.read.Unlock()
		return
	}
	n.rebuild(l)
}

func (l *Ledger) setNode(obj *v1.Node) {
	l.write.Lock()
	defer l.write.Unlock()
	n := l.at(obj.Name)
	if n.describe(obj, l.log) {
		l.publish(n)
	}
}

func (l *Ledger) dropNode(obj *v1.Node) {
	l.write.Lock()
	defer l.write.Unlock()
	if n := l.nodes[obj.Name]; n != nil {
		n.undescribe()
		l.publish(n)
	}
}

// replacePod is for an update, which after a broken watch may show another
// pod of the same name.
func (l *Ledger) replacePod(old, pod *v1.Pod) {
	if old.UID != pod.UID {
		l.dropPod(old)
	}
	l.setPod(pod)
}

func (l *Ledger) setPod(pod *v1.Pod) {
	if isTerminal(pod) {
		l.dropPod(pod)
		return
	}
	if pod.Spec.NodeName == "" {
		return // it holds nothing; what it is promised, Bind knows
	}
	c := newClaim(pod)
	l.write.Lock()
	defer l.write.Unlock()
	l.count(c)
}

// count takes a bound pod in. The caller holds write.
func (l *Ledger) count(c *claim) {
	c.since = time.Now()
	pod := c.pod
	n := l.at(pod.Spec.NodeName)
	old := n.bound[pod.UID]
	switch promise := n.promises[pod.UID]; {
	case old != nil && old.sameAs(pod):
		return // a change that nothing here depends on
	case old != nil:
		c.inherit(old)
	case promise != nil:
		c.inherit(promise)
	case l.synced.Load():
		c.bound, c.foreign = l.tick(), true
	default:
		// It was there before us: what its kubelet met first cannot be told.
	}
	// Whatever was promised to the pod is now a fact, here or elsewhere. Here
	// the one becomes the other in a single step.
	l.unpromise(pod.UID, pod.Spec.NodeName)
	n.bound[pod.UID] = c
	delete(n.promises, pod.UID)
	if c.request.Exclusive() || old != nil && old.request.Exclusive() {
		l.publish(n)
	}
}

// dropPod is for a pod that has ended or is gone. Where it was, or was promised
// to be, its kubelet may have met others before that.
func (l *Ledger) dropPod(pod *v1.Pod) {
	l.write.Lock()
	defer l.write.Unlock()
	moment := l.tick()
	if l.buried != nil {
		l.buried[pod.UID] = true
	}
	names := l.promised[pod.UID]
	l.setPromised(pod.UID, nil)
	if !slices.Contains(names, pod.Spec.NodeName) {
		names = append(names, pod.Spec.NodeName)
	}
	for _, name := range names {
		n := l.nodes[name]
		if n == nil {
			continue
		}
		c := n.bound[pod.UID]
		if c == nil {
			c = n.promises[pod.UID]
		}
		if c == nil {
			continue
		}
		n.end(c, moment)
		if c.request.Exclusive() || n.forgotten() {
			l.publish(n)
		}
	}
}

// unpromise takes back what was promised to a pod, but leaves the node spared
// to the caller, who changes it further. The caller holds write.
func (l *Ledger) unpromise(pod types.UID, spared string) {
	for _, name := range l.promised[pod] {
		if n := l.nodes[name]; n != nil && name != spared {
			delete(n.promises, pod)
			l.publish(n)
		}
	}
	l.setPromised(pod, nil)
}

// setPromised notes the nodes that a pod is promised to. The caller holds write.
func (l *Ledger) setPromised(pod types.UID, nodes []string) {
	l.read.Lock()
	defer l.read.Unlock()
	if len(nodes) == 0 {
		delete(l.promised, pod)
	} else {
		l.promised[pod] = nodes
	}
}

// promisedTo are the nodes that a pod is promised to.
func (l *Ledger) promisedTo(pod types.UID) []string {
	l.read.RLock()
	defer l.read.RUnlock()
	return l.promised[pod]
}

// elsewhere is another of the nodes that a pod is promised to than this one;
// empty: there is none.
func elsewhere(promised []string, node string) string {
	for _, other := range promised {
		if other != node {
			return other
		}
	}
	return ""
}

// last is the object of a deletion, which a broken watch wraps.
func last[T any](obj any) T {
	if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = gone.Obj
	}
	return obj.(T)
}

func isTerminal(pod *v1.Pod) bool {
	return pod.Status.Phase == v1.PodSucceeded || pod.Status.Phase == v1.PodFailed
}
