package oracle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/numalane/numalane/e2e/kubelets/wire"
	"github.com/numalane/numalane/e2e/kubelets/wire/client"
	"github.com/numalane/numalane/internal/config"
	"github.com/numalane/numalane/internal/kubelet"
	"github.com/numalane/numalane/internal/pools"
)

// errRefusesToStart is wrapped when a kubelet does not start on its machine
// and configuration. There is nothing to foretell then.
var errRefusesToStart = errors.New("the kubelet refuses to start")

// node is a scenario's kubelet, the plugins beside it, and what the API knows
// of its pods.
type node struct {
	s        *Scenario
	dir      string // the kubelet's folder
	managers *client.Kubelet
	tree     *tree

	minor   int
	config  *config.Config
	own     *ownPlugin
	foreign []*foreignPlugin
	reader  *kubelet.Reader

	pools   []kubelet.Pool // ours, as they are published
	pods    []*pod         // in the order of their admission
	carrier carrier
	latest  *observed // what was read last; nil after a change
}

// pod is a pod that the kubelet has met, unless the API has forgotten it.
type pod struct {
	*v1.Pod
	runs   bool // else it has ended, or was refused
	static bool // the API does not have it
}

// startNode starts the scenario's kubelet in an empty folder.
func startNode(ctx context.Context, m *client.Kubelet, t *tree, s *Scenario, dir string) (*node, error) {
	n := &node{s: s, dir: dir, managers: m, tree: t}
	var err error
	if n.config, err = parsePools(s.Pools); err != nil {
		return nil, err
	}
	for _, sub := range []string{n.socketDir(), filepath.Join(dir, "pod-resources")} {
		if err := os.MkdirAll(sub, 0o755); err != nil {
			return nil, err
		}
	}
	text, err := yaml.Marshal(s.Kubelet)
	if err != nil {
		return nil, fmt.Errorf("encode the kubelet's configuration: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.yaml"), text, 0o644); err != nil {
		return nil, err
	}
	if err := n.startKubelet(); err != nil {
		return nil, errors.Join(err, n.close())
	}
	if err := n.startPlugins(ctx); err != nil {
		return nil, errors.Join(err, n.close())
	}
	return n, nil
}

func (n *node) socketDir() string { return filepath.Join(n.dir, "device-plugins") }

// startKubelet starts it, or starts it again over its checkpoints.
func (n *node) startKubelet() error {
	node, err := json.Marshal(v1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "oracle"},
		Status:     v1.NodeStatus{Capacity: n.s.Allocatable, Allocatable: n.s.Allocatable},
	})
	if err != nil {
		return fmt.Errorf("encode the Node: %w", err)
	}
	start := &wire.Start{Dir: n.dir, Machine: n.tree.info, Node: node}
	for _, p := range n.running() {
		b, err := json.Marshal(p.Pod)
		if err != nil {
			return fmt.Errorf("encode pod %s: %w", p.UID, err)
		}
		start.Pods = append(start.Pods, b)
	}
	answer, err := n.managers.Do(wire.Command{Start: start})
	if err != nil {
		return err
	}
	if answer.Error != "" {
		return fmt.Errorf("%w: %s", errRefusesToStart, answer.Error)
	}
	if n.minor, err = kubelet.ParseMinor(answer.Version); err != nil {
		return err
	}
	if n.minor != n.s.Minor {
		return fmt.Errorf("the program of kubelet 1.%d is that of 1.%d", n.s.Minor, n.minor)
	}
	n.reader, err = kubelet.NewReader(kubelet.Options{Dir: n.dir, Logger: slog.New(slog.DiscardHandler)})
	return err
}

// startPlugins starts all plugins and waits until the kubelet counts their devices.
func (n *node) startPlugins(ctx context.Context) error {
	held := func() map[string][]string {
		ids, err := n.reader.HeldDevices()
		if err != nil {
			return nil // no checkpoint of a format that is known: Read will say so
		}
		return ids
	}
	n.own = startOwnPlugin(ctx, n.socketDir(), held)
	for i := range n.s.Foreign {
		p, err := startForeignPlugin(ctx, n.socketDir(), fmt.Sprintf("foreign-%d.sock", i), &n.s.Foreign[i])
		if err != nil {
			return err
		}
		n.foreign = append(n.foreign, p)
	}
	return n.advertise()
}

// advertise hands the machine's devices to the plugin, and waits for the kubelet.
func (n *node) advertise() error {
	assignment := n.config.Assign(n.tree.host)
	n.pools = pools.Published(assignment.Pools, n.tree.host, nil)
	if err := n.own.update(pools.Advertised(assignment.Pools, n.tree.host, nil)); err != nil {
		return err
	}
	devices := n.devices()
	if _, err := n.managers.Must(wire.Command{Await: devices}); err != nil {
		return fmt.Errorf("wait for the plugins' devices: %w", err)
	}
	if len(devices) == 0 {
		return nil
	}
	return n.awaitCheckpoint(devices)
}

// checkpointTimeout is far above what the kubelet takes to write a file.
const checkpointTimeout = 2 * time.Second

// awaitCheckpoint waits for the file that the kubelet writes after it counts
// a resource's devices (devicemanager genericDeviceUpdateCallback). It may never
// come to list them all: where several resources change at once, the kubelet may
// write an older list over a newer one (writeCheckpoint).
func (n *node) awaitCheckpoint(devices []wire.Devices) error {
	tick := time.NewTicker(200 * time.Microsecond)
	defer tick.Stop()
	timeout := time.After(checkpointTimeout)
	for {
		listed, err := n.registered()
		if err == nil && !slices.ContainsFunc(devices, func(d wire.Devices) bool { return listed[d.Resource] != d.Allocatable }) {
			return nil
		}
		select {
		case <-tick.C:
		case <-timeout:
			return err
		}
	}
}

// registered counts the healthy devices of each resource in the kubelet's checkpoint.
func (n *node) registered() (map[string]int, error) {
	text, err := os.ReadFile(filepath.Join(n.socketDir(), "kubelet_internal_checkpoint"))
	if err != nil {
		return nil, err
	}
	var file struct {
		Data struct{ RegisteredDevices map[string][]string }
	}
	if err := json.Unmarshal(text, &file); err != nil {
		return nil, fmt.Errorf("decode kubelet_internal_checkpoint: %w", err)
	}
	counts := make(map[string]int, len(file.Data.RegisteredDevices))
	for resource, ids := range file.Data.RegisteredDevices {
		counts[resource] = len(ids)
	}
	return counts, nil
}

// devices are what the kubelet must count of each resource.
func (n *node) devices() []wire.Devices {
	all := []wire.Devices{}
	for _, p := range n.pools {
		d := wire.Devices{Resource: p.Resource, Capacity: len(p.Devices)}
		for i := range p.Devices {
			if p.Devices[i].Healthy {
				d.Allocatable++
			}
		}
		if d.Capacity > 0 { // else it is not registered
			all = append(all, d)
		}
	}
	for _, p := range n.s.Foreign {
		all = append(all, wire.Devices{Resource: p.Resource, Capacity: len(p.Devices), Allocatable: len(p.Devices)})
	}
	return all
}

// stopPlugins ends all plugins, and the reader of a kubelet that is about to go.
func (n *node) stopPlugins() error {
	var err error
	for _, p := range n.foreign {
		p.close()
	}
	n.foreign = nil
	if n.own != nil {
		err = n.own.close()
		n.own = nil
	}
	if n.reader != nil {
		err = errors.Join(err, n.reader.Close())
		n.reader = nil
	}
	return err
}

// close leaves the kubelet alone: the next Start stops it.
func (n *node) close() error { return n.stopPlugins() }

func (n *node) running() []*pod {
	var all []*pod
	for _, p := range n.pods {
		if p.runs {
			all = append(all, p)
		}
	}
	return all
}
