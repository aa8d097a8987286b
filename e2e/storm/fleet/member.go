package fleet

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"

	"github.com/numalane/numalane/e2e/cluster"
)

// statusEvery is how often kubelets look whether their Node's status changed.
const statusEvery = 4 * time.Second

// Member is a node that runs.
type Member struct {
	*Node
	Live    *cluster.Node
	Plugin  *cluster.Process
	Metrics string // address of the plugin's metrics
	NUMAOf  map[int]int

	client kubernetes.Interface
}

// Start starts a node, with our plugin, and waits for nothing.
func (n *Node) Start(ctx context.Context, c *cluster.Cluster) (*Member, error) {
	m := &Member{Node: n, NUMAOf: map[int]int{}, client: c.Client}
	for _, cpu := range n.Machine.CPUs() {
		m.NUMAOf[cpu.ID] = cpu.NUMANode
	}
	var err error
	if m.Live, err = c.StartNode(ctx, n.NodeSpec); err != nil {
		return nil, err
	}
	file := filepath.Join(m.Live.Dir, "pools.json")
	if err := os.WriteFile(file, []byte(n.Pools), 0o644); err != nil {
		return nil, err
	}
	if m.Metrics, err = cluster.FreeAddress(); err != nil {
		return nil, err
	}
	m.Plugin, err = m.Live.StartPlugin(file, "--listen", m.Metrics, "--rescan-interval", "30s")
	return m, err
}

// Ready waits until the node is ready and says that it has all its VFs.
func (m *Member) Ready(ctx context.Context) error {
	if err := m.Live.Ready(ctx); err != nil {
		return err
	}
	for name, want := range m.VFs {
		if err := m.Live.Allocatable(ctx, name, want); err != nil {
			return err
		}
	}
	return nil
}

// Registered tells whether the plugin's streams to the kubelet are live: after
// a restart of either the kubelet has no healthy device until then.
func (m *Member) Registered(ctx context.Context) error {
	have := map[corev1.ResourceName]int64{}
	if err := m.Live.PodResources(ctx, func(ctx context.Context, c podresources.PodResourcesListerClient) error {
		a, err := c.GetAllocatableResources(ctx, &podresources.AllocatableResourcesRequest{})
		if err != nil {
			return err
		}
		for _, d := range a.GetDevices() {
			have[corev1.ResourceName(d.GetResourceName())] += int64(len(d.GetDeviceIds()))
		}
		return nil
	}); err != nil {
		return err
	}
	for name, want := range m.VFs {
		if have[name] != want {
			return fmt.Errorf("the kubelet of %s has %d of %s, want %d", m.Name, have[name], name, want)
		}
	}
	return nil
}
