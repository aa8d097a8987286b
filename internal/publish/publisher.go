package publish

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
	"k8s.io/client-go/kubernetes"

	"github.com/numalane/numalane/internal/kubelet"
	"github.com/numalane/numalane/pkg/topology"
)

const (
	// FieldManager is the name that the API server notes with our fields.
	FieldManager = "numalane-plugin"

	// freeDelay gathers changes of what is only for people to read: every
	// watcher of Nodes gets every write of a Node.
	freeDelay = 5 * time.Second

	// minInterval bounds how often the kubelet is read while its files keep
	// changing. An admission writes several times within milliseconds.
	minInterval = 10 * time.Millisecond

	// parallelWrites is how many writes are under way at once: after a restart
	// of the node there may be a hundred pods to acknowledge.
	parallelWrites = 8
)

// Source tells what the kubelet holds. [kubelet.Reader] is one.
type Source interface {
	Read(context.Context, kubelet.Input) (topology.NodeState, error)
	// Changed has a token after every change of what Read reads.
	// The token is the time of the first of them since the last token.
	Changed() <-chan time.Time
}

// Options are what a Publisher works with. The functions are called from its
// own goroutine and give snapshots that nobody changes afterwards.
type Options struct {
	Client   kubernetes.Interface // nil: there is no API, nothing is published
	NodeName string
	Source   Source
	Host     func() *topology.Host // nil as long as the machine has not been read
	Pools    func() []kubelet.Pool // the plugin's own pools, as advertised
	// Ready tells whether the kubelet listens to this plugin instance: every
	// pool has a live ListAndWatch, or there is no pool.
	Ready func() bool
	// Away tells that no kubelet listens; nil: that is not known.
	Away func() bool
	// Changed has a token after Host, Pools or Ready may answer differently.
	Changed <-chan struct{}
	Logger  *slog.Logger          // slog.Default
	Metrics prometheus.Registerer // nil: none
}

// Publisher keeps the API in step with the node. Its state belongs to the
// goroutine of Run; writes are made in others, one an object at a time.
type Publisher struct {
	o       Options
	log     *slog.Logger
	cluster *cluster
	node    nodeWriter
	pods    podWriter
	metrics *metrics
	sayings sayings

	reach   retry     // of the API as a whole
	sign    time.Time // the token of Source.Changed that is being looked into
	writes  sync.WaitGroup
	writing int
	done    chan outcome
}

// New prepares a Publisher.
func New(o Options) (*Publisher, error) {
	log := cmp.Or(o.Logger, slog.Default()).With("component", "publish", "node", o.NodeName)
	m, err := newMetrics(o.Metrics)
	if err != nil {
		return nil, err
	}
	p := &Publisher{
		o: o, log: log, metrics: m, sayings: sayings{log: log},
		node: nodeWriter{object: &object{}, name: o.NodeName},
		pods: podWriter{known: map[string]*object{}},
		done: make(chan outcome, parallelWrites),
	}
	if o.Client != nil {
		p.cluster = newCluster(o.Client, o.NodeName, log)
	}
	return p, nil
}

// Run publishes until ctx ends. What fails is logged and tried again.
func (p *Publisher) Run(ctx context.Context) error {
	if p.cluster == nil {
		p.log.Warn("there is no Kubernetes API to publish to: devices are advertised, and the extender will not know this node")
		<-ctx.Done()
		return nil
	}
	changed := p.o.Source.Changed()
	ctx, cancel := context.WithCancel(ctx)
	defer p.writes.Wait()
	defer p.cluster.start(ctx)()
	defer cancel()
	pace := rate.NewLimiter(rate.Every(minInterval), 1)
	again := time.NewTimer(0)
	var due time.Time // when again ends, as far as something waits for it
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case p.sign = <-changed:
		case <-p.o.Changed:
		case <-p.cluster.changed:
		case <-p.cluster.reached:
			// Whatever backoff there is was for an API that did not answer.
			if p.reach.left() == 0 {
				continue
			}
			p.reach = retry{}
		case out := <-p.done:
			wait, now := p.finish(&out)
			if !now {
				if at := time.Now().Add(wait); wait > 0 && (due.IsZero() || at.Before(due)) {
					due = at
					again.Reset(wait)
				}
				continue
			}
		case <-again.C:
		}
		if pace.Wait(ctx) != nil {
			return nil
		}
		if p.sign.IsZero() {
			// What woke us may have come before the token of what is read now.
			select {
			case p.sign = <-changed:
			default:
				p.sign = time.Now()
			}
		}
		due = time.Time{}
		wait := p.sync(ctx)
		p.sign = time.Time{}
		if wait > 0 {
			due = time.Now().Add(wait)
			again.Reset(wait)
		}
	}
}

// sync brings the API in step once. The result is when it has more to do on
// its own account; 0: not before something changes.
func (p *Publisher) sync(ctx context.Context) time.Duration {
	if !p.cluster.synced() {
		return 0
	}
	if !p.o.Ready() {
		if p.o.Away != nil && p.o.Away() {
			return p.sayAway(ctx)
		}
		return 0
	}
	// The order matters: a write is made only if the object is still the one
	// that was seen before the kubelet was read.
	node, err := p.cluster.node()
	if err != nil {
		p.sayings.cannot(err)
		return 0
	}
	minor, err := kubelet.ParseMinor(node.Status.NodeInfo.KubeletVersion)
	if err != nil {
		p.sayings.cannot(err)
		return 0
	}
	pods := p.cluster.pods()
	pools := p.o.Pools()
	state, err := p.o.Source.Read(ctx, kubelet.Input{Host: p.o.Host(), Minor: minor, Pools: pools, Pods: podsOf(pods)})
	if err != nil {
		if ctx.Err() == nil {
			p.sayings.cannot(err)
		}
		return 0
	}
	p.sayings.cannot(nil)
	p.metrics.read(&state)
	podJobs, podWait, podErr := p.pods.prepare(pods, &state, p.sign)
	nodeJob, nodeWait, nodeErr := p.node.prepare(node, &state, pools)
	p.sayings.unwritable(errors.Join(podErr, nodeErr))
	wait := soonest(podWait, nodeWait)
	if left := p.reach.left(); left > 0 {
		if len(podJobs) > 0 || nodeJob != nil {
			wait = soonest(wait, left)
		}
		return wait
	}
	for i := range podJobs {
		if !p.begin(ctx, p.pods.known[string(podJobs[i].uid)], podAPI{p.o.Client.CoreV1()}, &podJobs[i]) {
			return wait
		}
	}
	if nodeJob != nil {
		p.begin(ctx, p.node.object, nodeAPI{p.o.Client.CoreV1().Nodes()}, nodeJob)
	}
	return wait
}

// sayAway publishes that the kubelet does not listen.
func (p *Publisher) sayAway(ctx context.Context) time.Duration {
	node, err := p.cluster.node()
	if err != nil {
		return 0
	}
	j, wait, err := p.node.prepareAway(node)
	p.sayings.unwritable(err)
	switch left := p.reach.left(); {
	case j == nil:
	case left > 0:
		wait = left
	default:
		p.begin(ctx, p.node.object, nodeAPI{p.o.Client.CoreV1().Nodes()}, j)
	}
	return wait
}

// begin makes a write in a goroutine of its own. It is false when there are
// enough of them already; the next that ends makes room.
func (p *Publisher) begin(ctx context.Context, o *object, api objects, j *job) bool {
	if p.writing == parallelWrites {
		return false
	}
	p.writing++
	o.begin(j)
	if j.corrects {
		p.metrics.corrected.WithLabelValues(j.kind).Inc()
		p.log.Warn("somebody else wrote what this node's plugin writes, putting it right", "object", j.kind, "namespace", j.namespace, "name", j.name)
	}
	p.writes.Go(func() { p.done <- j.do(ctx, api) })
	return true
}

// finish takes a write's outcome in. The results are when to come back, and
// whether to do so now.
func (p *Publisher) finish(out *outcome) (wait time.Duration, now bool) {
	full := p.writing == parallelWrites
	p.writing--
	o := p.node.object
	if out.kind == "pod" {
		o = p.pods.known[string(out.uid)]
	} else if out.uid != p.node.uid {
		o.writing = false // it was of a Node that has been made anew since
		return 0, true
	}
	now = o.finish(out) || full
	p.metrics.wrote(out)
	p.sayings.wrote(out)
	if out.result == unreachable {
		if p.reach.left() == 0 {
			p.reach.failed(lastReach)
		}
		return p.reach.left(), false
	}
	p.reach = retry{}
	if left := o.retry.left(); left > 0 {
		return left, now
	}
	return 0, now
}

// soonest is the earlier of two waits, of which 0 means never.
func soonest(a, b time.Duration) time.Duration {
	if a == 0 || b > 0 && b < a {
		return b
	}
	return a
}
