package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"github.com/numalane/numalane/internal/config"
	"github.com/numalane/numalane/internal/httpserver"
	"github.com/numalane/numalane/internal/inventory"
	"github.com/numalane/numalane/internal/kubelet"
	"github.com/numalane/numalane/internal/plugin"
	"github.com/numalane/numalane/internal/pools"
	"github.com/numalane/numalane/internal/publish"
	"github.com/numalane/numalane/pkg/topology"
)

// app is everything that runs, wired into the two flows: host, inventory,
// pools, kubelet; and kubelet's state, publish, API.
type app struct {
	log       *slog.Logger
	config    *config.Config
	inventory *inventory.Loop
	servers   *plugin.Servers
	kubelet   *kubelet.Reader
	publisher *publish.Publisher
	http      *httpserver.Server // nil: none

	view    atomic.Pointer[view]
	changed chan struct{} // has a token after view or the servers' status changed
}

// view is the machine and its pools, of one scan.
type view struct {
	host  *topology.Host
	pools []kubelet.Pool
}

func newApp(o options, log *slog.Logger) (*app, error) {
	a := &app{log: log, changed: make(chan struct{}, 1)}
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	a.view.Store(&view{})
	var err error
	if a.config, err = config.Load(o.configFile, o.resourcePrefix); err != nil {
		return nil, err
	}
	for _, w := range a.config.Warnings {
		log.Warn("pool configuration", "file", o.configFile, "warning", w.String())
	}
	client, err := o.client(log)
	if err != nil {
		return nil, err
	}
	if a.kubelet, err = o.reader(log); err != nil {
		return nil, err
	}
	a.inventory = inventory.New(inventory.Options{
		Scan:     func() (*topology.Host, error) { return a.scan(o.sysfsRoot) },
		Events:   ofThisHost(o.sysfsRoot),
		Interval: o.rescan,
		Logger:   log,
	})
	a.servers = plugin.New(plugin.Options{
		SocketDir: o.devicePluginDir, Logger: log, OnAllocate: a.kubelet.Poke, OnStatus: a.statusChanged, Held: a.kubelet.HeldDevices,
		DeviceInfoDir: o.deviceInfoDir, CDIDir: o.cdi(), CDIAnnotations: o.cdiAnnotations,
	})
	if err := reg.Register(a.servers); err != nil {
		return nil, errors.Join(fmt.Errorf("register the pools' metrics: %w", err), a.kubelet.Close())
	}
	if a.publisher, err = publish.New(publish.Options{
		Client: client, NodeName: o.nodeName, Source: a.kubelet, Changed: a.changed, Logger: log, Metrics: reg,
		Host:  func() *topology.Host { return a.view.Load().host },
		Pools: func() []kubelet.Pool { return a.view.Load().pools },
		Ready: func() bool { return a.scanned() == nil && a.registered() == nil },
		Away:  a.away,
	}); err != nil {
		return nil, errors.Join(err, a.kubelet.Close())
	}
	if o.listen != "" {
		checks := []httpserver.Check{{Name: "inventory", Ready: a.scanned}, {Name: "kubelet", Ready: a.registered}}
		if a.http, err = httpserver.New(httpserver.Options{Addr: o.listen, Log: log, Checks: checks, Gatherer: reg}); err != nil {
			return nil, errors.Join(err, a.kubelet.Close())
		}
	}
	return a, nil
}

// run works until ctx ends or something fails.
func (a *app) run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, a.kubelet.Close()) }()
	updates := make(chan []plugin.Pool)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.assign(ctx, updates) })
	g.Go(func() error { return a.inventory.Run(ctx) })
	g.Go(func() error { return a.servers.Run(ctx, updates) })
	g.Go(func() error { return a.kubelet.Watch(ctx) })
	g.Go(func() error { return a.publisher.Run(ctx) })
	if a.http != nil {
		g.Go(func() error { return a.http.Run(ctx) })
	}
	return g.Wait()
}

// assign makes pools of each snapshot of the machine.
func (a *app) assign(ctx context.Context, updates chan<- []plugin.Pool) error {
	snapshots, heldChanged := a.inventory.Subscribe(), a.kubelet.Changed()
	said := map[string]string{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-heldChanged:
			a.servers.HeldChanged()
		case s := <-snapshots:
			assignment := a.config.Assign(s.Host)
			said = a.sayRejections(said, assignment.Rejections)
			a.view.Store(&view{host: s.Host, pools: pools.Published(assignment.Pools, s.Host, nil)})
			a.tell()
			select {
			case updates <- pools.Advertised(assignment.Pools, s.Host, nil):
			case <-ctx.Done():
			}
		}
	}
}

// sayRejections logs why a device is in no pool, once for each reason.
func (a *app) sayRejections(said map[string]string, rs []config.Rejection) map[string]string {
	now := make(map[string]string, len(rs))
	for _, r := range rs {
		now[r.Device] = r.Reason
		if said[r.Device] != r.Reason {
			a.log.Info("device is in no pool", "device", r.Device, "reason", r.Reason)
		}
	}
	return now
}

func (a *app) scan(root string) (*topology.Host, error) {
	if last := a.inventory.Latest(); last != nil {
		return topology.Read(root, topology.WithPrevious(last.Host))
	}
	return topology.Read(root)
}

// away tells that no kubelet listens.
func (a *app) away() bool {
	return slices.ContainsFunc(a.servers.Status(), func(p plugin.PoolStatus) bool { return p.Phase == plugin.Waiting })
}

func (a *app) statusChanged() {
	if a.away() {
		// Whoever listens next has only started, also if its files tell so later.
		a.kubelet.Lost()
	}
	a.tell()
}

func (a *app) tell() {
	select {
	case a.changed <- struct{}{}:
	default:
	}
}

// scanned is nil once the machine has been read.
func (a *app) scanned() error {
	if a.view.Load().host == nil {
		return errors.New("the machine has not been read yet")
	}
	return nil
}

// registered names a pool whose devices the kubelet does not listen to; it is
// nil when it listens to all.
func (a *app) registered() error {
	status := a.servers.Status()
	if len(status) < len(a.config.Pools) {
		return errors.New("the pools have not been made yet")
	}
	for _, p := range status {
		if p.Phase != plugin.Live && p.Phase != plugin.Idle {
			return fmt.Errorf("pool %s is %s", p.Resource, p.Phase)
		}
	}
	return nil
}
