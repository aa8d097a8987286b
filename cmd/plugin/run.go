package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/numalane/numalane/internal/config"
	"github.com/numalane/numalane/internal/httpserver"
	"github.com/numalane/numalane/internal/inventory"
	"github.com/numalane/numalane/internal/kubelet"
	"github.com/numalane/numalane/internal/plugin"
	"github.com/numalane/numalane/internal/publish"
	"github.com/numalane/numalane/pkg/topology"
)

// view is the machine and its pools, of one scan.
type view struct {
	host  *topology.Host
	pools []kubelet.Pool
}

// run wires the two flows and runs them until ctx ends:
// host, inventory, pools, kubelet; and kubelet's state, publish, API.
func run(ctx context.Context, o options, log *slog.Logger) (err error) {
	if err := o.complete(); err != nil {
		return err
	}
	pools, err := config.Load(o.configFile, o.resourcePrefix)
	if err != nil {
		return err
	}
	client, err := o.client(log)
	if err != nil {
		return err
	}
	reader, err := o.reader(log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reader.Close()) }()

	var latest atomic.Pointer[view]
	changed := make(chan struct{}, 1)
	tell := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	servers := plugin.New(plugin.Options{
		SocketDir:  o.devicePluginDir,
		Logger:     log,
		OnAllocate: reader.Poke,
		OnStatus:   tell,
		Held: func() map[string][]string {
			held, err := reader.HeldDevices()
			if err != nil {
				log.Warn("cannot tell which devices pods hold", "err", err)
			}
			return held
		},
	})
	publisher := publish.New(publish.Options{
		Client: client, NodeName: o.nodeName, Source: reader, Changed: changed, Logger: log,
		Host: func() *topology.Host {
			if v := latest.Load(); v != nil {
				return v.host
			}
			return nil
		},
		Pools: func() []kubelet.Pool {
			if v := latest.Load(); v != nil {
				return v.pools
			}
			return nil
		},
		Ready: func() bool { return latest.Load() != nil && notLive(servers.Status()) == nil },
	})
	var loop *inventory.Loop
	loop = inventory.New(inventory.Options{
		Scan: func() (*topology.Host, error) {
			if last := loop.Latest(); last != nil {
				return topology.Read(o.sysfsRoot, topology.WithPrevious(last.Host))
			}
			return topology.Read(o.sysfsRoot)
		},
		Events:   ofThisHost(o.sysfsRoot),
		Interval: o.rescan,
		Logger:   log,
	})

	g, ctx := errgroup.WithContext(ctx)
	updates := make(chan []plugin.Pool)
	snapshots := loop.Subscribe()
	heldChanged := reader.Changed()
	g.Go(func() error { return loop.Run(ctx) })
	g.Go(func() error { return servers.Run(ctx, updates) })
	g.Go(func() error { return reader.Watch(ctx) })
	g.Go(func() error { return publisher.Run(ctx) })
	g.Go(func() error {
		said := map[topology.Address]string{}
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-heldChanged:
				servers.HeldChanged()
			case s := <-snapshots:
				a := pools.Assign(s.Host)
				said = sayRejections(log, said, a.Rejections)
				latest.Store(&view{host: s.Host, pools: published(a.Pools, s.Host)})
				tell()
				select {
				case updates <- advertised(a.Pools):
				case <-ctx.Done():
				}
			}
		}
	})
	if o.listen != "" {
		server, err := httpserver.New(httpserver.Options{Addr: o.listen, Log: log, Checks: []httpserver.Check{
			{Name: "inventory", Ready: func() error {
				if loop.Latest() == nil {
					return errors.New("the machine has not been read yet")
				}
				return nil
			}},
			{Name: "kubelet", Ready: func() error { return notLive(servers.Status()) }},
		}})
		if err != nil {
			return err
		}
		g.Go(func() error { return server.Run(ctx) })
	}
	return g.Wait()
}

// notLive names a pool whose devices the kubelet does not listen to; nil when
// it listens to all.
func notLive(pools []plugin.PoolStatus) error {
	for _, p := range pools {
		if p.Phase != plugin.Live && p.Phase != plugin.Idle {
			return fmt.Errorf("pool %s is %s", p.Resource, p.Phase)
		}
	}
	return nil
}

// sayRejections logs why a device is in no pool, once for each reason.
func sayRejections(log *slog.Logger, said map[topology.Address]string, rs []config.Rejection) map[topology.Address]string {
	now := make(map[topology.Address]string, len(rs))
	for _, r := range rs {
		now[r.Address] = r.Reason
		if said[r.Address] != r.Reason {
			log.Info("device is in no pool", "device", r.Address.String(), "reason", r.Reason)
		}
	}
	return now
}

// ofThisHost tells whether a sysfs is the running kernel's, whose events say
// when to look again.
func ofThisHost(root string) bool {
	switch filepath.Clean(root) {
	case "/", "/sys":
		return true
	}
	return false
}

// client is nil where there is no API to publish to.
func (o *options) client(log *slog.Logger) (kubernetes.Interface, error) {
	var c *rest.Config
	var err error
	if o.kubeconfig != "" {
		c, err = clientcmd.BuildConfigFromFlags("", o.kubeconfig)
	} else if c, err = rest.InClusterConfig(); errors.Is(err, rest.ErrNotInCluster) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("Kubernetes API: %w", err)
	}
	if o.nodeName == "" {
		log.Warn("--node-name is not given: nothing is published")
		return nil, nil
	}
	c.UserAgent = "numalane-plugin"
	// A node that starts acknowledges all its pods at once.
	c.QPS, c.Burst = 50, 100
	return kubernetes.NewForConfig(c)
}

// serviceAccountToken is where a pod finds its token.
const serviceAccountToken = "/var/run/secrets/kubernetes.io/serviceaccount/token"

func (o *options) reader(log *slog.Logger) (*kubelet.Reader, error) {
	k := kubelet.Options{
		Dir: o.kubeletDir, DevicePluginDir: o.devicePluginDir, PodResourcesSocket: o.podResources,
		ConfigFile: o.kubeletConfig, ConfigDropInDir: o.kubeletConfigDir, ConfigzURL: o.kubeletURL, Logger: log,
		HTTPClient: &http.Client{Timeout: 10 * time.Second},
	}
	if o.kubeconfig == "" {
		k.TokenFile = serviceAccountToken
	}
	if u, err := url.Parse(o.kubeletURL); err != nil {
		return nil, fmt.Errorf("--kubelet-url: %w", err)
	} else if ip := net.ParseIP(u.Hostname()); ip != nil && ip.IsLoopback() {
		// A kubelet signs its own certificate unless told otherwise, and on
		// loopback nobody else can answer for it.
		k.HTTPClient.Transport = &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	}
	return kubelet.NewReader(k)
}
