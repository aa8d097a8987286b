package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubeletconfig "k8s.io/kubelet/config/v1beta1"
	"sigs.k8s.io/yaml"

	"github.com/numalane/numalane/internal/sysfstest"
)

// NodeSpec is a node to be: its machine, and what its kubelet's configuration
// says beyond what a node without hardware needs.
type NodeSpec struct {
	Name    string
	Machine sysfstest.Machine
	// Kubelet changes the configuration, which aligns by single-numa-node
	// with static CPU manager.
	Kubelet func(*kubeletconfig.KubeletConfiguration)
	// Verbosity is of the kubelet's log.
	Verbosity int
}

// Node is a running kubelet with its container runtime.
type Node struct {
	Name string
	// Dir is the node's folder: kubelet/ is the kubelet's root, dp/ its
	// device-plugins folder, root/ holds the machine's sys/ and proc/.
	Dir  string
	Port int // the kubelet's, on loopback
	Spec NodeSpec

	Runtime *Process
	Kubelet *Process
	c       *Cluster
}

// Sysfs is the folder that holds the machine's sys/ and proc/.
func (n *Node) Sysfs() string { return filepath.Join(n.Dir, "root") }

// KubeletDir is the kubelet's root folder.
func (n *Node) KubeletDir() string { return filepath.Join(n.Dir, "kubelet") }

// DevicePluginDir is the folder of the kubelet's registration socket.
func (n *Node) DevicePluginDir() string { return filepath.Join(n.Dir, "dp") }

// DeviceInfoDir is where numalane-plugin puts DeviceInfo files.
func (n *Node) DeviceInfoDir() string { return filepath.Join(n.Dir, "devinfo") }

// StartNode brings up a container runtime and a kubelet, and does not wait for
// the Node to be ready.
func (c *Cluster) StartNode(ctx context.Context, spec NodeSpec) (*Node, error) {
	n := &Node{Name: spec.Name, Spec: spec, Dir: filepath.Join(Dir, spec.Name), c: c}
	c.opts.Progress("starting node %s", spec.Name)
	for _, d := range []string{n.Sysfs(), n.KubeletDir(), n.DevicePluginDir(), filepath.Join(n.Dir, "manifests"), filepath.Join(n.Dir, "podlogs")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
	}
	if err := spec.Machine.Write(n.Sysfs()); err != nil {
		return nil, fmt.Errorf("node %s: %w", n.Name, err)
	}
	var err error
	if n.Port, err = freePort(); err != nil {
		return nil, err
	}
	if err := n.writeFiles(); err != nil {
		return nil, fmt.Errorf("node %s: %w", n.Name, err)
	}
	if n.Runtime, err = c.run(n.Name+"-runtime", false, "simnode", "runtime", "--socket", n.runtimeSocket()); err != nil {
		return nil, err
	}
	if err := n.Runtime.serves(ctx, 30*time.Second, func(context.Context) error {
		// The file of an earlier runtime is there before this one listens.
		conn, err := net.Dial("unix", n.runtimeSocket())
		if err == nil {
			err = conn.Close()
		}
		return err
	}); err != nil {
		return nil, err
	}
	return n, n.StartKubelet()
}

// StartKubelet starts the node's kubelet, the first time or again.
func (n *Node) StartKubelet() error {
	var err error
	n.Kubelet, err = n.c.run(n.Name+"-kubelet", true, "simnode", "kubelet", "--root", n.Dir, "--name", n.Name,
		"--kubeconfig", n.c.Kubeconfig, "--config", n.configFile(), "--machine", n.machineFile(),
		"--v", fmt.Sprint(n.Spec.Verbosity))
	return err
}

// Ready waits until the Node is ready, and fully registered with the API.
func (n *Node) Ready(ctx context.Context) error {
	return n.Kubelet.ready(ctx, 90*time.Second, func(ctx context.Context) error {
		node, err := n.c.Client.CoreV1().Nodes().Get(ctx, n.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		return IsReady(node)
	})
}

// IsReady is nil for a Node that is ready and fully registered, else what it lacks.
func IsReady(node *corev1.Node) error {
	if len(node.Spec.Taints) > 0 {
		return fmt.Errorf("node %s has taints %v", node.Name, node.Spec.Taints)
	}
	for _, cond := range node.Status.Conditions {
		if cond.Type == corev1.NodeReady {
			if cond.Status == corev1.ConditionTrue {
				return nil
			}
			return fmt.Errorf("node %s is not ready: %s", node.Name, cond.Message)
		}
	}
	return fmt.Errorf("node %s does not say whether it is ready", node.Name)
}

// Allocatable waits until the node has so many of a resource to give.
func (n *Node) Allocatable(ctx context.Context, resource corev1.ResourceName, want int64) error {
	return n.Kubelet.ready(ctx, 60*time.Second, func(ctx context.Context) error {
		node, err := n.c.Client.CoreV1().Nodes().Get(ctx, n.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if q := node.Status.Allocatable[resource]; q.Value() != want {
			return fmt.Errorf("node %s has %s of %s to give, want %d", n.Name, q.String(), resource, want)
		}
		return nil
	})
}

func (n *Node) runtimeSocket() string { return filepath.Join(n.Dir, "runtime.sock") }
func (n *Node) configFile() string    { return filepath.Join(n.Dir, "kubelet.yaml") }
func (n *Node) machineFile() string   { return filepath.Join(n.Dir, "machine.json") }

func (n *Node) writeFiles() error {
	machine, err := json.Marshal(n.Spec.Machine)
	if err != nil {
		return err
	}
	config, err := yaml.Marshal(n.config())
	if err != nil {
		return err
	}
	return errors.Join(writeFile(n.machineFile(), string(machine)), writeFile(n.configFile(), string(config)))
}

// config is a kubelet's configuration for a node without hardware.
func (n *Node) config() *kubeletconfig.KubeletConfiguration {
	no, yes := false, true
	anonymous := kubeletconfig.KubeletAuthentication{
		Anonymous: kubeletconfig.KubeletAnonymousAuthentication{Enabled: &yes},
		Webhook:   kubeletconfig.KubeletWebhookAuthentication{Enabled: &no},
	}
	port := int32(n.Port)
	none := int32(0)
	socket := "unix://" + n.runtimeSocket()
	resolv := ""
	c := &kubeletconfig.KubeletConfiguration{
		TypeMeta:                 metav1.TypeMeta{APIVersion: kubeletconfig.SchemeGroupVersion.String(), Kind: "KubeletConfiguration"},
		ContainerRuntimeEndpoint: socket,
		ImageServiceEndpoint:     socket,
		StaticPodPath:            filepath.Join(n.Dir, "manifests"),
		PodLogsDir:               filepath.Join(n.Dir, "podlogs"),
		VolumePluginDir:          filepath.Join(n.Dir, "volumeplugins"),
		Address:                  "127.0.0.1",
		Port:                     port,
		HealthzPort:              &none,
		Authentication:           anonymous,
		Authorization:            kubeletconfig.KubeletAuthorization{Mode: kubeletconfig.KubeletAuthorizationModeAlwaysAllow},
		// The node shares its cgroups, swap, firewall and kernel with the host:
		// a kubelet in the box must touch none of them.
		FailCgroupV1:                  &no,
		CgroupsPerQOS:                 &no,
		CgroupDriver:                  "cgroupfs",
		EnforceNodeAllocatable:        []string{"none"}, // an empty list would be the default
		FailSwapOn:                    &no,
		MakeIPTablesUtilChains:        &no,
		ProtectKernelDefaults:         true,
		LocalStorageCapacityIsolation: &no,
		EvictionHard:                  map[string]string{},
		ResolverConfig:                &resolv,
		CPUManagerPolicy:              "static",
		TopologyManagerPolicy:         "single-numa-node",
		SystemReserved:                map[string]string{"cpu": "1"},
		// Device changes reach the Node's status only with the next update of it.
		NodeStatusUpdateFrequency: metav1.Duration{Duration: time.Second},
		// The runtime writes no logs: to look for them fills the kubelet's own.
		ContainerLogMonitorInterval: &metav1.Duration{Duration: 24 * time.Hour},
	}
	if n.Spec.Kubelet != nil {
		n.Spec.Kubelet(c)
	}
	return c
}
