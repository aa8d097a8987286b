package main

import (
	"context"
	"errors"
	"log/slog"
	"net"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes"

	"github.com/numalane/numalane/internal/extender"
	"github.com/numalane/numalane/internal/httpserver"
	"github.com/numalane/numalane/internal/ledger"
)

// app is everything that runs.
type app struct {
	book    *ledger.Ledger
	servers []*httpserver.Server // that of the verbs comes first
}

func newApp(o options, policy ledger.Policy, client kubernetes.Interface, log *slog.Logger) (*app, error) {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	book, err := ledger.New(client, policy, log.With("component", "ledger"), reg)
	if err != nil {
		return nil, err
	}
	synced := func() error {
		if !book.HasSynced() {
			return errors.New("the watches of Nodes and Pods have not caught up yet")
		}
		return nil
	}
	verbs, err := extender.New(extender.Options{Cluster: book, Evictions: book, Ready: synced, Log: log.With("component", "extender"), Metrics: reg})
	if err != nil {
		return nil, err
	}
	checks := []httpserver.Check{{Name: "watches", Ready: synced}}
	serve := []httpserver.Options{{
		Addr: o.listen, Handler: verbs, Gatherer: reg, Checks: checks,
		CertFile: o.certFile, KeyFile: o.keyFile, Profiling: o.profiling, Log: log.With("component", "http"),
	}}
	if o.healthListen != "" {
		// Probes and Prometheus come from outside the pod, and must not be
		// able to have pods bound.
		serve = append(serve, httpserver.Options{Addr: o.healthListen, Gatherer: reg, Checks: checks, Log: log.With("component", "health")})
	}
	d := &app{book: book}
	for _, opts := range serve {
		s, err := httpserver.New(opts)
		if err != nil {
			return nil, err
		}
		d.servers = append(d.servers, s)
	}
	if a, ok := d.servers[0].Addr().(*net.TCPAddr); ok && !a.IP.IsLoopback() {
		log.Warn("whoever reaches this address can have pods bound", "listen", o.listen)
	}
	return d, nil
}

// run serves until ctx ends or something fails.
func (d *app) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.book.Run(ctx) })
	for _, s := range d.servers {
		g.Go(func() error { return s.Run(ctx) })
	}
	return g.Wait()
}
