package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/numalane/numalane/internal/kubelet"
	"github.com/numalane/numalane/internal/publish"
	"github.com/numalane/numalane/internal/publish/nodefeature"
	"github.com/numalane/numalane/pkg/topology"
)

// ofThisHost tells whether a sysfs is the running kernel's, whose events say
// when to look again.
func ofThisHost(root string) bool {
	switch filepath.Clean(root) {
	case "/", "/sys":
		return true
	}
	return false
}

// api is nil where there is none to publish to.
func (o *options) api(log *slog.Logger) (*rest.Config, error) {
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
	// The publisher writes only on change, few at a time and with backoff; a
	// limit on top would keep a node that starts from acknowledging its pods.
	c.QPS = -1
	// An API that does not even refuse must not hold a try up for long.
	c.Dial = (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}).DialContext
	return c, nil
}

// connect makes what writes to the API.
func (a *app) connect(o options, reg prometheus.Registerer) error {
	api, err := o.api(a.log)
	if err != nil {
		return err
	}
	var client kubernetes.Interface // nil: nothing is published
	if api != nil {
		if client, err = kubernetes.NewForConfig(api); err != nil {
			return fmt.Errorf("Kubernetes API: %w", err)
		}
	}
	pools := func() []kubelet.Pool { return a.view.Load().pools }
	ready := func() bool { return a.registered() == nil }
	if a.publisher, err = publish.New(publish.Options{
		Client: client, NodeName: o.nodeName, Source: a.kubelet, Changed: a.changed, Logger: a.log, Metrics: reg,
		Host:  func() *topology.Host { return a.view.Load().host },
		Pools: pools, Ready: ready, Away: a.away,
	}); err != nil || api == nil || o.nodeFeatureNamespace == "" {
		return err
	}
	features, err := dynamic.NewForConfig(api)
	if err != nil {
		return fmt.Errorf("Kubernetes API: %w", err)
	}
	a.feature = nodefeature.New(nodefeature.Options{
		Features: features, Nodes: client, Namespace: o.nodeFeatureNamespace, NodeName: o.nodeName,
		Pools: pools, Ready: ready, Changed: a.featureChanged, Logger: a.log,
	})
	return nil
}

// serviceAccountToken is where a pod finds its token.
const serviceAccountToken = "/var/run/secrets/kubernetes.io/serviceaccount/token"

// steady is many times what an admission takes, and short enough for what is real.
const steady = 500 * time.Millisecond

func (o *options) reader(log *slog.Logger) (*kubelet.Reader, error) {
	k := kubelet.Options{
		Dir: o.kubeletDir, DevicePluginDir: o.devicePluginDir, PodResourcesSocket: o.podResources,
		ConfigFile: o.kubeletConfig, ConfigDropInDir: o.kubeletConfigDir, ConfigzURL: o.kubeletURL, Logger: log,
		HTTPClient: &http.Client{Timeout: 10 * time.Second}, Steady: steady,
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
