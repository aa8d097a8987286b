package main

import (
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/numalane/numalane/internal/cdi"
	"github.com/numalane/numalane/internal/daemon"
	"github.com/numalane/numalane/internal/devinfo"
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

	deviceInfoDir  string
	useCDI         bool
	cdiDir         string
	cdiAnnotations bool

	nodeName             string
	kubeconfig           string
	nodeFeatureNamespace string
	listen               string

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
	f.StringVar(&o.deviceInfoDir, "devinfo-dir", devinfo.DefaultDir, "folder where Multus looks for DeviceInfo files of devices that pods hold; empty for none")
	f.BoolVar(&o.useCDI, "use-cdi", false, "have the container runtime make device nodes by CDI")
	f.StringVar(&o.cdiDir, "cdi-dir", cdi.DefaultDir, "folder where the container runtime looks for CDI specifications")
	f.BoolVar(&o.cdiAnnotations, "cdi-annotations", false, "with --use-cdi, name the devices to the container runtime by annotation as well, for one that knows no other way")
	f.StringVar(&o.nodeName, "node-name", os.Getenv("NODE_NAME"), "name of this Node in the API (default $NODE_NAME)")
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "how to reach the API (default: in a pod, its service account; elsewhere nothing is published)")
	f.StringVar(&o.nodeFeatureNamespace, "node-feature-namespace", "", "keep a NodeFeature object with a summary of the pools in this namespace, for Node Feature Discovery (deploy/node-feature has the rights); empty for none")
	f.StringVar(&o.listen, "listen", "127.0.0.1:8892", "address of /livez, /readyz and /metrics; empty for none")
	o.log.AddFlags(f)
	o.logging.addFlags(f)
}

// addHostFlags are those that inspect has as well.
func (o *options) addHostFlags(cmd *cobra.Command, configFile string) {
	f := cmd.Flags()
	f.StringVar(&o.configFile, "config-file", configFile, "pool configuration, JSON or YAML")
	addPrefixFlag(cmd, &o.resourcePrefix)
	f.StringVar(&o.sysfsRoot, "sysfs-root", "/", "folder that holds sys/, or a sysfs itself: a captured machine as well")
}

// addPrefixFlag is for whatever reads the peer's format.
func addPrefixFlag(cmd *cobra.Command, prefix *string) {
	cmd.Flags().StringVar(prefix, "resource-prefix", "intel.com", "prefix of resources that name none")
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
	switch {
	case o.useCDI && o.cdiDir == "":
		return errors.New("--cdi-dir: want a folder with --use-cdi")
	case o.cdiAnnotations && !o.useCDI:
		return errors.New("--cdi-annotations: means nothing without --use-cdi")
	}
	return nil
}

// cdi is the folder for CDI specifications; empty: without CDI.
func (o *options) cdi() string {
	if !o.useCDI {
		return ""
	}
	return o.cdiDir
}
