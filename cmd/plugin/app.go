package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"github.com/numalane/numalane/internal/capture"
	"github.com/numalane/numalane/internal/config"
	"github.com/numalane/numalane/internal/httpserver"
	"github.com/numalane/numalane/internal/inventory"
	"github.com/numalane/numalane/internal/kubelet"
	"github.com/numalane/numalane/internal/plugin"
	"github.com/numalane/numalane/internal/publish"
	"github.com/numalane/numalane/internal/publish/nodefeature"
	"github.com/numalane/numalane/internal/reload"
	"github.com/numalane/numalane/pkg/topology"
)

// app is everything that runs, wired into the two flows: host, inventory,
// pools, kubelet; and kubelet's state, publish, API.
type app struct {
	log       *slog.Logger
	file      *reload.File
	config    *config.Config // that it starts with
	inventory *inventory.Loop
	servers   *plugin.Servers
	kubelet   *kubelet.Reader
	publisher *publish.Publisher
	feature   *nodefeature.Writer // nil: none
	http      *httpserver.Server  // nil: none

	view atomic.Pointer[view]
	// Both have a token after view or the servers' status changed: of publisher, of feature.
	changed, featureChanged chan struct{}
}

// view is the machine and all pools of the configuration, of one scan.
type view struct {
	host  *topology.Host
	pools []kubelet.Pool
}

func newApp(o options, log *slog.Logger) (*app, error) {
	a := &app{log: log, changed: make(chan struct{}, 1), featureChanged: make(chan struct{}, 1)}
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	a.view.Store(&view{})
	var err error
	if a.file, a.config, err = reload.Load(o.configFile, o.resourcePrefix, log, reg); err != nil {
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
	if err := a.connect(o, reg); err != nil {
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
	configs, updates := make(chan *config.Config), make(chan []plugin.Pool)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.file.Run(ctx, configs) })
	g.Go(func() error { return a.assign(ctx, configs, updates) })
	g.Go(func() error { return a.inventory.Run(ctx) })
	g.Go(func() error { return a.servers.Run(ctx, updates) })
	g.Go(func() error { return a.kubelet.Watch(ctx) })
	g.Go(func() error { return a.publisher.Run(ctx) })
	if a.feature != nil {
		g.Go(func() error { return a.feature.Run(ctx) })
	}
	if a.http != nil {
		g.Go(func() error { return a.http.Run(ctx) })
	}
	return g.Wait()
}

// scan reads the machine: of a captured one also what netlink told of it, which
// the inventory asks of the running kernel alone.
func (a *app) scan(root string) (*topology.Host, error) {
	var o []topology.Option
	if last := a.inventory.Latest(); last != nil {
		o = append(o, topology.WithPrevious(last.Host))
	}
	host, err := topology.Read(root, o...)
	if err != nil || ofThisHost(root) {
		return host, err
	}
	return host, capture.Facts(root, host)
}

func (a *app) tell() {
	for _, ch := range []chan struct{}{a.changed, a.featureChanged} {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}
