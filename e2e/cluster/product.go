package cluster

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	schedulerconfig "k8s.io/kube-scheduler/config/v1"
	"sigs.k8s.io/yaml"
)

// StartPlugin starts numalane-plugin for a node, with a pool configuration and
// further flags.
func (n *Node) StartPlugin(configFile string, flags ...string) (*Process, error) {
	args := append([]string{
		"--sysfs-root", n.Sysfs(), "--config-file", configFile,
		"--kubelet-dir", n.KubeletDir(), "--device-plugin-dir", n.DevicePluginDir(),
		"--devinfo-dir", n.DeviceInfoDir(), "--kubelet-url", fmt.Sprintf("https://127.0.0.1:%d", n.Port),
		"--node-name", n.Name, "--kubeconfig", n.c.Kubeconfig,
		"--listen", "", "--rescan-interval", "1s",
	}, flags...)
	return n.c.run(n.Name+"-plugin", false, "numalane-plugin", args...)
}

// StartExtender starts numalane-extender and waits until it is ready. It returns
// the address it listens on.
func (c *Cluster) StartExtender(ctx context.Context, flags ...string) (*Process, string, error) {
	port, err := freePort()
	if err != nil {
		return nil, "", err
	}
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	c.opts.Progress("starting numalane-extender")
	p, err := c.run("numalane-extender", false, "numalane-extender", append([]string{"--kubeconfig", c.Kubeconfig, "--listen", addr}, flags...)...)
	if err != nil {
		return nil, "", err
	}
	return p, addr, p.serves(ctx, 30*time.Second, func(ctx context.Context) error {
		return get(ctx, http.DefaultClient, "http://"+addr+"/readyz")
	})
}

// Kubectl runs kubectl to its end.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(c.opts.Bin, "kubectl"), append([]string{"--kubeconfig", c.Kubeconfig}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("kubectl %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// StartScheduler starts a kube-scheduler. configFile is a
// KubeSchedulerConfiguration as users have it, or empty for the defaults; only
// what is of this cluster is put in: how to reach the API and the extender's
// address; without one no extender is asked.
func (c *Cluster) StartScheduler(ctx context.Context, name, configFile, extender string, change ...func(*schedulerconfig.KubeSchedulerConfiguration)) (*Process, error) {
	config := schedulerconfig.KubeSchedulerConfiguration{}
	if configFile != "" {
		b, err := os.ReadFile(configFile)
		if err != nil {
			return nil, fmt.Errorf("scheduler configuration: %w", err)
		}
		if err := yaml.UnmarshalStrict(b, &config); err != nil {
			return nil, fmt.Errorf("scheduler configuration %s: %w", configFile, err)
		}
	}
	config.APIVersion, config.Kind = schedulerconfig.SchemeGroupVersion.String(), "KubeSchedulerConfiguration"
	no := false
	config.LeaderElection.LeaderElect = &no
	config.ClientConnection.Kubeconfig = c.Kubeconfig
	if extender == "" {
		config.Extenders = nil
	}
	for _, f := range change {
		f(&config)
	}
	for i := range config.Extenders {
		config.Extenders[i].URLPrefix = strings.TrimSuffix("http://"+extender, "/")
	}
	b, err := yaml.Marshal(config)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(Dir, name+".yaml")
	if err := writeFile(file, string(b)); err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	c.opts.Progress("starting %s", name)
	p, err := c.run(name, false, "kube-scheduler", "--config", file, "--bind-address", "127.0.0.1",
		"--secure-port", fmt.Sprint(port), "--cert-dir", filepath.Join(Dir, "pki-"+name))
	if err != nil {
		return nil, err
	}
	return p, p.serves(ctx, 30*time.Second, func(ctx context.Context) error {
		client := &http.Client{Transport: insecureTransport()}
		defer client.CloseIdleConnections()
		return get(ctx, client, fmt.Sprintf("https://127.0.0.1:%d/readyz", port))
	})
}
