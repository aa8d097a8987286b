package kubelet

import (
	"cmp"
	"log/slog"
	"net/http"
	"path/filepath"
	"time"
)

// DefaultDir is the kubelet's root folder unless its --root-dir says otherwise.
const DefaultDir = "/var/lib/kubelet"

// The files that the kubelet's managers keep.
const (
	cpuStateFile    = "cpu_manager_state"
	memoryStateFile = "memory_manager_state"
	checkpointName  = "kubelet_internal_checkpoint"
	kubeletSocket   = "kubelet.sock" // made anew at every start of the kubelet
)

// Options say where the kubelet is. Empty fields have defaults.
type Options struct {
	Dir                string // the kubelet's root folder; DefaultDir
	DevicePluginDir    string // Dir/device-plugins
	PodResourcesSocket string // Dir/pod-resources/kubelet.sock

	// ConfigzURL is the kubelet's own server, https://127.0.0.1:10250; empty
	// leaves /configz out. It is the one that knows the kubelet's flags too.
	ConfigzURL string
	// HTTPClient is for ConfigzURL and decides which certificates it trusts; http.DefaultClient.
	HTTPClient *http.Client
	// TokenFile holds the bearer token for ConfigzURL, read for each request
	// because projected tokens rotate; empty sends none.
	TokenFile string

	// ConfigFile and ConfigDropInDir are the kubelet's --config and
	// --config-dir, read when /configz does not answer. Dir/config.yaml and none.
	ConfigFile      string
	ConfigDropInDir string

	// PodResources answers in place of PodResourcesSocket.
	PodResources PodResources

	// Steady is how long leaked CPUs, memory that is accounted for and not given,
	// and what is held for pods that the API does not have must be seen before
	// Read tells of them: a look between two writes of the kubelet's sees such
	// things where there are none. 0 tells at once, and does not wait for a kubelet
	// that starts to go through its pods: for one that is still.
	Steady time.Duration

	Logger *slog.Logger // slog.Default
}

func (o Options) withDefaults() Options {
	o.Dir = filepath.Clean(cmp.Or(o.Dir, DefaultDir))
	o.DevicePluginDir = filepath.Clean(cmp.Or(o.DevicePluginDir, filepath.Join(o.Dir, "device-plugins")))
	o.PodResourcesSocket = cmp.Or(o.PodResourcesSocket, filepath.Join(o.Dir, "pod-resources", "kubelet.sock"))
	o.ConfigFile = cmp.Or(o.ConfigFile, filepath.Join(o.Dir, "config.yaml"))
	o.HTTPClient = cmp.Or(o.HTTPClient, http.DefaultClient)
	o.Logger = cmp.Or(o.Logger, slog.Default())
	return o
}
