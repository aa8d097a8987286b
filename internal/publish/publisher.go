package publish

import (
	"cmp"
	"context"
	"log/slog"
	"time"

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
	minInterval = 20 * time.Millisecond
)

// Source tells what the kubelet holds. [kubelet.Reader] is one.
type Source interface {
	Read(context.Context, kubelet.Input) (topology.NodeState, error)
	// Changed has a token after every change of what Read reads.
	Changed() <-chan struct{}
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
	// Changed has a token after Host, Pools or Ready may answer differently.
	Changed <-chan struct{}
	Logger  *slog.Logger // slog.Default
}

// Publisher keeps the API in step with the node.
type Publisher struct {
	o       Options
	log     *slog.Logger
	cluster *cluster
	node    nodeWriter
	pods    podWriter
	said    string
}

// New prepares a Publisher.
func New(o Options) *Publisher {
	log := cmp.Or(o.Logger, slog.Default()).With("component", "publish", "node", o.NodeName)
	p := &Publisher{o: o, log: log}
	if o.Client != nil {
		p.cluster = newCluster(o.Client, o.NodeName, log)
		p.node = nodeWriter{client: o.Client.CoreV1().Nodes(), name: o.NodeName, log: log}
		p.pods = podWriter{client: o.Client.CoreV1(), log: log, written: map[string]*record{}}
	}
	return p
}

// Run publishes until ctx ends. It returns early, and with an error, only when
// it cannot begin; what fails later is logged and tried again.
func (p *Publisher) Run(ctx context.Context) error {
	if p.cluster == nil {
		p.log.Warn("there is no Kubernetes API to publish to: devices are advertised, and the extender will not know this node")
		<-ctx.Done()
		return nil
	}
	changed := p.o.Source.Changed()
	stop, err := p.cluster.start(ctx)
	if err != nil {
		return err
	}
	defer stop()
	pace := rate.NewLimiter(rate.Every(minInterval), 1)
	again := time.NewTimer(0)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-p.o.Changed:
		case <-p.cluster.changed:
		case <-again.C:
		}
		if pace.Wait(ctx) != nil {
			return nil
		}
		if wait := p.sync(ctx); wait > 0 {
			again.Reset(wait)
		}
	}
}

// sync brings the API in step once. The result is when it has more to do on
// its own account; 0: not before something changes.
func (p *Publisher) sync(ctx context.Context) time.Duration {
	if !p.o.Ready() || !p.cluster.synced() {
		return 0
	}
	node, err := p.cluster.node()
	if err != nil {
		p.say(err)
		return 0
	}
	minor, err := kubelet.ParseMinor(node.Status.NodeInfo.KubeletVersion)
	if err != nil {
		p.say(err)
		return 0
	}
	pods := p.cluster.pods()
	pools := p.o.Pools()
	state, err := p.o.Source.Read(ctx, kubelet.Input{Host: p.o.Host(), Minor: minor, Pools: pools, Pods: podsOf(pods)})
	if err != nil {
		if ctx.Err() == nil {
			p.say(err)
		}
		return 0
	}
	p.say(nil)
	return soonest(p.pods.write(ctx, pods, &state), p.node.write(ctx, node, &state, pools))
}

// say logs why nothing is published, once for each reason.
func (p *Publisher) say(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text == p.said {
		return
	}
	p.said = text
	if err != nil {
		p.log.Warn("cannot publish this node's state, what was published stands", "err", err)
	} else {
		p.log.Info("publishing this node's state")
	}
}

// soonest is the earlier of two waits, of which 0 means never.
func soonest(a, b time.Duration) time.Duration {
	if a == 0 || b > 0 && b < a {
		return b
	}
	return a
}
