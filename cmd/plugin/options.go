package main

import (
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/numalane/numalane/internal/daemon"
	"github.com/numalane/numalane/internal/kubelet"
)

// options are the command line. Every path has a flag, so that several plugins
// can run on one machine.
type options struct {
	configFile     string
	resourcePrefix string
	sysfsRoot      string
	rescan         time.Duration

	kubeletDir       string
	devicePluginDir  string
	podResources     string
	kubeletURL       string
	kubeletConfig    string
	kubeletConfigDir string

	nodeName   string
	kubeconfig string
	listen     string

	log     daemon.Logging
	logging logFlags
}

func (o *options) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.SortFlags = false
	o.addHostFlags(cmd, "/etc/pcidp/config.json")
	f.DurationVar(&o.rescan, "rescan-interval", time.Minute, "longest time between two looks at the machine; kernel events and changes are seen at once")
	f.StringVar(&o.kubeletDir, "kubelet-dir", kubelet.DefaultDir, "root folder of the kubelet, with its state files")
	f.StringVar(&o.devicePluginDir, "device-plugin-dir", "", "folder of kubelet.sock (default KUBELET-DIR/device-plugins)")
	f.StringVar(&o.podResources, "pod-resources-socket", "", "socket of the PodResources API (default KUBELET-DIR/pod-resources/kubelet.sock)")
	f.StringVar(&o.kubeletURL, "kubelet-url", "https://127.0.0.1:10250", "where the kubelet serves /configz; empty to read only its configuration file")
	f.StringVar(&o.kubeletConfig, "kubelet-config", "", "the kubelet's configuration file, for when /configz does not answer (default KUBELET-DIR/config.yaml)")
	f.StringVar(&o.kubeletConfigDir, "kubelet-config-dir", "", "the kubelet's configuration drop-in folder")
	f.StringVar(&o.nodeName, "node-name", os.Getenv("NODE_NAME"), "name of this Node in the API (default $NODE_NAME)")
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "how to reach the API (default: in a pod, its service account; elsewhere nothing is published)")
	f.StringVar(&o.listen, "listen", "127.0.0.1:8892", "address of /livez, /readyz and /metrics; empty for none")
	o.log.AddFlags(f)
	o.logging.addFlags(f)
}

// addHostFlags are those that inspect has as well.
func (o *options) addHostFlags(cmd *cobra.Command, configFile string) {
	f := cmd.Flags()
	f.StringVar(&o.configFile, "config-file", configFile, "pool configuration, JSON or YAML")
	f.StringVar(&o.resourcePrefix, "resource-prefix", "intel.com", "prefix of resources that name none")
	f.StringVar(&o.sysfsRoot, "sysfs-root", "/", "folder that holds sys/, or a sysfs itself: a captured machine as well")
}

// complete fills in what follows from other flags, and checks.
func (o *options) complete() error {
	// The other paths below the kubelet's folder internal/kubelet fills in.
	if o.devicePluginDir == "" {
		o.devicePluginDir = filepath.Join(o.kubeletDir, "device-plugins")
	}
	if o.rescan <= 0 {
		return errors.New("--rescan-interval: want a positive time")
	}
	return nil
}
