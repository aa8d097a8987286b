package oracle

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// foreignPlugin is another vendor's plugin, no more than the kubelet needs.
type foreignPlugin struct {
	pluginapi.UnimplementedDevicePluginServer

	pool    *ForeignPool
	server  *grpc.Server
	closing chan struct{}
}

// startForeignPlugin serves a pool and registers it with the kubelet.
func startForeignPlugin(ctx context.Context, socketDir, name string, pool *ForeignPool) (*foreignPlugin, error) {
	path := filepath.Join(socketDir, name)
	if err := os.RemoveAll(path); err != nil {
		return nil, fmt.Errorf("plugin of %s: %w", pool.Resource, err)
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("plugin of %s: %w", pool.Resource, err)
	}
	p := &foreignPlugin{pool: pool, server: grpc.NewServer(), closing: make(chan struct{})}
	pluginapi.RegisterDevicePluginServer(p.server, p)
	go p.server.Serve(listener)
	if err := p.register(ctx, filepath.Join(socketDir, "kubelet.sock"), name); err != nil {
		p.close()
		return nil, fmt.Errorf("plugin of %s: %w", pool.Resource, err)
	}
	return p, nil
}

// registerTimeout is far above what a kubelet takes.
const registerTimeout = time.Minute

func (p *foreignPlugin) register(ctx context.Context, kubelet, endpoint string) error {
	conn, err := grpc.NewClient("unix://"+kubelet, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("connect to the kubelet: %w", err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, registerTimeout)
	defer cancel()
	_, err = pluginapi.NewRegistrationClient(conn).Register(ctx, &pluginapi.RegisterRequest{
		Version: pluginapi.Version, Endpoint: endpoint, ResourceName: p.pool.Resource, Options: p.options(),
	})
	if err != nil {
		return fmt.Errorf("register: %w", err)
	}
	return nil
}

func (p *foreignPlugin) close() {
	close(p.closing)
	p.server.Stop()
}

func (p *foreignPlugin) options() *pluginapi.DevicePluginOptions {
	return &pluginapi.DevicePluginOptions{GetPreferredAllocationAvailable: p.pool.Prefers}
}

// GetDevicePluginOptions is where the kubelet reads whether it may ask for preferences.
func (p *foreignPlugin) GetDevicePluginOptions(context.Context, *pluginapi.Empty) (*pluginapi.DevicePluginOptions, error) {
	return p.options(), nil
}

// ListAndWatch sends the pool once: what a foreign plugin holds to be unhealthy
// the kubelet does not tell, so nobody can publish it.
func (p *foreignPlugin) ListAndWatch(_ *pluginapi.Empty, stream pluginapi.DevicePlugin_ListAndWatchServer) error {
	list := &pluginapi.ListAndWatchResponse{}
	for _, d := range p.pool.Devices {
		out := &pluginapi.Device{ID: d.ID, Health: pluginapi.Healthy}
		if len(d.NUMANodes) > 0 {
			out.Topology = &pluginapi.TopologyInfo{}
		}
		for _, n := range d.NUMANodes {
			out.Topology.Nodes = append(out.Topology.Nodes, &pluginapi.NUMANode{ID: int64(n)})
		}
		list.Devices = append(list.Devices, out)
	}
	if err := stream.Send(list); err != nil {
		return err
	}
	select {
	case <-p.closing:
	case <-stream.Context().Done():
	}
	return nil
}

// GetPreferredAllocation names the last of what is offered.
func (p *foreignPlugin) GetPreferredAllocation(_ context.Context, req *pluginapi.PreferredAllocationRequest) (*pluginapi.PreferredAllocationResponse, error) {
	resp := &pluginapi.PreferredAllocationResponse{}
	for _, c := range req.GetContainerRequests() {
		ids := slices.Clone(c.GetMustIncludeDeviceIDs())
		for _, id := range slices.Backward(slices.Sorted(slices.Values(c.GetAvailableDeviceIDs()))) {
			if len(ids) < int(c.GetAllocationSize()) && !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
		resp.ContainerResponses = append(resp.ContainerResponses, &pluginapi.ContainerPreferredAllocationResponse{DeviceIDs: ids})
	}
	return resp, nil
}

// Allocate gives the containers nothing but their devices.
func (p *foreignPlugin) Allocate(_ context.Context, req *pluginapi.AllocateRequest) (*pluginapi.AllocateResponse, error) {
	resp := &pluginapi.AllocateResponse{}
	for range req.GetContainerRequests() {
		resp.ContainerResponses = append(resp.ContainerResponses, &pluginapi.ContainerAllocateResponse{})
	}
	return resp, nil
}
