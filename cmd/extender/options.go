package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/numalane/numalane/internal/daemon"
	"github.com/numalane/numalane/internal/ledger"
)

// options are the command line.
type options struct {
	kubeconfig string

	listen       string
	certFile     string
	keyFile      string
	clientCAFile string
	healthListen string
	profiling    bool

	absent     string
	unreadable string
	newer      string

	shape shape

	log daemon.Logging
}

func (o *options) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "how to reach the API (default: the service account of the pod this runs in)")
	f.StringVar(&o.listen, "listen", "127.0.0.1:8890", "address for kube-scheduler's calls, health and metrics")
	f.StringVar(&o.certFile, "tls-cert-file", "", "PEM certificate to serve with TLS; read again when it changes")
	f.StringVar(&o.keyFile, "tls-private-key-file", "", "PEM key of the certificate")
	f.StringVar(&o.clientCAFile, "client-ca-file", "", "PEM certificates; only clients with a certificate that one of them signed are served on --listen (needs TLS)")
	f.StringVar(&o.healthListen, "health-listen", "", "second address, for health and metrics alone, that others may reach; empty for none")
	f.BoolVar(&o.profiling, "profiling", false, "serve /debug/pprof/ on the address for kube-scheduler's calls")
	f.StringVar(&o.absent, "absent-state", "closed", "nodes that publish nothing: closed refuses them to pods that ask for exclusive CPUs, NUMA memory or devices; open admits")
	f.StringVar(&o.unreadable, "unreadable-state", "closed", "nodes that publish what cannot be read, contradicts itself or is of an unknown kubelet: open or closed")
	f.StringVar(&o.newer, "newer-state", "closed", "nodes that publish a newer format than this binary reads: open or closed")
	o.shape.addFlags(cmd)
	o.log.AddFlags(f)
}

func (o *options) policy() (p ledger.Policy, err error) {
	for _, s := range []struct {
		flag, value string
		admit       *bool
	}{
		{"--absent-state", o.absent, &p.AdmitAbsent},
		{"--unreadable-state", o.unreadable, &p.AdmitUnreadable},
		{"--newer-state", o.newer, &p.AdmitNewer},
	} {
		switch s.value {
		case "open":
			*s.admit = true
		case "closed":
		default:
			err = errors.Join(err, fmt.Errorf("%s %q: want open or closed", s.flag, s.value))
		}
	}
	return p, err
}

func (o *options) client() (kubernetes.Interface, error) {
	var config *rest.Config
	var err error
	if o.kubeconfig != "" {
		config, err = clientcmd.BuildConfigFromFlags("", o.kubeconfig)
	} else if config, err = rest.InClusterConfig(); errors.Is(err, rest.ErrNotInCluster) {
		err = errors.New("this is not a pod of a cluster: give --kubeconfig")
	}
	if err != nil {
		return nil, fmt.Errorf("find the API: %w", err)
	}
	config.UserAgent = "numalane-extender"
	// One binding a pod: client-go's default of 5 a second would set the pace
	// of the whole scheduler. The API server has its own fairness.
	config.QPS = -1
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a client of the API: %w", err)
	}
	return client, nil
}
