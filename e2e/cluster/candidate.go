package cluster

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	schedulerconfig "k8s.io/kube-scheduler/config/v1"
	"sigs.k8s.io/yaml"
)

// Candidate is one of several kube-schedulers that elect a leader, or one of
// several extenders.
type Candidate struct {
	Name string
	// Host is the host name that the process sees, as it would in its pod.
	Host string
}

// StartCandidate starts a kube-scheduler that stands for election, with short
// terms, by a KubeSchedulerConfiguration as users have it. Each of its extenders
// is at this URL.
func (c *Cluster) StartCandidate(ctx context.Context, s Candidate, configFile, extender string, edit func(*schedulerconfig.KubeSchedulerConfiguration)) (*Process, error) {
	b, err := os.ReadFile(configFile)
	if err != nil {
		return nil, fmt.Errorf("scheduler configuration: %w", err)
	}
	config := schedulerconfig.KubeSchedulerConfiguration{}
	if err := yaml.UnmarshalStrict(b, &config); err != nil {
		return nil, fmt.Errorf("scheduler configuration %s: %w", configFile, err)
	}
	config.ClientConnection.Kubeconfig = c.Kubeconfig
	config.LeaderElection.LeaseDuration = metav1.Duration{Duration: 6 * time.Second}
	config.LeaderElection.RenewDeadline = metav1.Duration{Duration: 4 * time.Second}
	config.LeaderElection.RetryPeriod = metav1.Duration{Duration: time.Second}
	for i := range config.Extenders {
		config.Extenders[i].URLPrefix = extender
	}
	if edit != nil {
		edit(&config)
	}
	if b, err = yaml.Marshal(config); err != nil {
		return nil, err
	}
	file := filepath.Join(Dir, s.Name+".yaml")
	if err := writeFile(file, string(b)); err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	c.opts.Progress("starting %s", s.Name)
	p, err := c.runOn(s.Host, s.Name, "kube-scheduler", "--config", file, "--bind-address", "127.0.0.1",
		"--secure-port", fmt.Sprint(port), "--cert-dir", filepath.Join(Dir, "pki-"+s.Name))
	if err != nil {
		return nil, err
	}
	client := &http.Client{Transport: insecureTransport()}
	defer client.CloseIdleConnections()
	return p, p.ready(ctx, 30*time.Second, func(ctx context.Context) error {
		return get(ctx, client, fmt.Sprintf("https://127.0.0.1:%d/healthz", port))
	})
}

// StartExtenderCandidate starts one of several extenders. It waits until that is
// alive, and not until it is ready, and returns its address for the verbs and
// that for health.
func (c *Cluster) StartExtenderCandidate(ctx context.Context, s Candidate, flags ...string) (p *Process, verbs, health string, err error) {
	for _, addr := range []*string{&verbs, &health} {
		port, err := freePort()
		if err != nil {
			return nil, "", "", err
		}
		*addr = fmt.Sprintf("127.0.0.1:%d", port)
	}
	c.opts.Progress("starting %s", s.Name)
	args := append([]string{"--kubeconfig", c.Kubeconfig, "--listen", verbs, "--health-listen", health}, flags...)
	if p, err = c.runOn(s.Host, s.Name, "numalane-extender", args...); err != nil {
		return nil, "", "", err
	}
	return p, verbs, health, p.ready(ctx, 30*time.Second, func(ctx context.Context) error {
		return get(ctx, http.DefaultClient, "http://"+health+"/livez")
	})
}

// runOn runs a program that sees another host name than this process.
func (c *Cluster) runOn(host, name, program string, args ...string) (p *Process, err error) {
	if host == "" {
		return c.run(name, false, program, args...)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		// A child has the namespaces of the thread that starts it. This one
		// ends with the goroutine, for it is not unlocked.
		runtime.LockOSThread()
		if err = syscall.Unshare(syscall.CLONE_NEWUTS); err != nil {
			err = fmt.Errorf("a host name of its own for %s: %w", name, err)
			return
		}
		if err = syscall.Sethostname([]byte(host)); err != nil {
			err = fmt.Errorf("host name of %s: %w", name, err)
			return
		}
		p, err = c.run(name, false, program, args...)
	}()
	<-done
	return p, err
}
