package main

import (
	"context"
	"log/slog"
	"net"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes"

	"github.com/numalane/numalane/internal/extender"
	"github.com/numalane/numalane/internal/httpserver"
	"github.com/numalane/numalane/internal/lead"
	"github.com/numalane/numalane/internal/ledger"
)

// app is everything that runs.
type app struct {
	book    *ledger.Ledger
	leader  leader
	servers []*httpserver.Server // that of the verbs comes first
}

func newApp(o options, policy ledger.Policy, client kubernetes.Interface, log *slog.Logger) (*app, error) {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	book, err := ledger.New(client, policy, log.With("component", "ledger"), reg)
	if err != nil {
		return nil, err
	}
	term, err := lead.NewTerm(book, log.With("component", "lead"), reg)
	if err != nil {
		return nil, err
	}
	d := &app{book: book}
	if d.leader, err = o.shape.leader(client, term); err != nil {
		return nil, err
	}
	verbs, err := extender.New(extender.Options{
		Cluster: book, Evictions: book, Lead: term, Ready: book.Ready, Log: log.With("component", "extender"), Metrics: reg,
	})
	if err != nil {
		return nil, err
	}
	checks := []httpserver.Check{{Name: "watches", Ready: book.Ready}}
	if o.shape.schedulerLease == "" {
		// Beside a kube-scheduler nobody chooses among extenders, and one that
		// waits for its turn is as it should be.
		checks = append(checks, httpserver.Check{Name: "leader", Ready: term.Leading})
	}
	serve := []httpserver.Options{{
		Addr: o.listen, Handler: verbs, Gatherer: reg, Checks: checks,
		CertFile: o.certFile, KeyFile: o.keyFile, ClientCAFile: o.clientCAFile, Profiling: o.profiling, Log: log.With("component", "http"),
	}}
	if o.healthListen != "" {
		// Probes and Prometheus come from outside the pod, and must not be
		// able to have pods bound.
		serve = append(serve, httpserver.Options{Addr: o.healthListen, Gatherer: reg, Checks: checks, Log: log.With("component", "health")})
	}
	for _, opts := range serve {
		s, err := httpserver.New(opts)
		if err != nil {
			return nil, err
		}
		d.servers = append(d.servers, s)
	}
	if a, ok := d.servers[0].Addr().(*net.TCPAddr); ok && !a.IP.IsLoopback() && o.clientCAFile == "" {
		log.Warn("whoever reaches this address can have pods bound; --client-ca-file would ask who it is", "listen", o.listen)
	}
	return d, nil
}

// run serves until ctx ends or something fails. The servers end first, so that
// calls under way end as a leader's.
func (d *app) run(ctx context.Context) error {
	below, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, below := errgroup.WithContext(below)
	g.Go(func() error { return d.book.Run(below) })
	g.Go(func() error { return d.leader.Run(below) })
	g.Go(func() error {
		defer stop()
		ctx, end := context.WithCancel(ctx)
		defer context.AfterFunc(below, end)()
		servers, ctx := errgroup.WithContext(ctx)
		for _, s := range d.servers {
			servers.Go(func() error { return s.Run(ctx) })
		}
		return servers.Wait()
	})
	return g.Wait()
}
