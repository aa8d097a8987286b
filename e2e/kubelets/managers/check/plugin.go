package check

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
	podresourcesapi "k8s.io/kubelet/pkg/apis/podresources/v1"

	"github.com/numalane/numalane/e2e/kubelets/wire"
)

// plugin has devices that never change, gpu-<NUMA node>-<number>.
type plugin struct {
	pluginapi.UnimplementedDevicePluginServer
	devices []*pluginapi.Device
}

func newPlugin(perNode ...int) *plugin {
	p := &plugin{}
	for node, devices := range perNode {
		for i := range devices {
			p.devices = append(p.devices, &pluginapi.Device{
				ID: fmt.Sprintf("gpu-%d-%d", node, i), Health: pluginapi.Healthy,
				Topology: &pluginapi.TopologyInfo{Nodes: []*pluginapi.NUMANode{{ID: int64(node)}}},
			})
		}
	}
	return p
}

func (p *plugin) GetDevicePluginOptions(context.Context, *pluginapi.Empty) (*pluginapi.DevicePluginOptions, error) {
	return &pluginapi.DevicePluginOptions{}, nil
}

func (p *plugin) ListAndWatch(_ *pluginapi.Empty, stream grpc.ServerStreamingServer[pluginapi.ListAndWatchResponse]) error {
	if err := stream.Send(&pluginapi.ListAndWatchResponse{Devices: p.devices}); err != nil {
		return err
	}
	<-stream.Context().Done()
	return nil
}

func (p *plugin) Allocate(_ context.Context, r *pluginapi.AllocateRequest) (*pluginapi.AllocateResponse, error) {
	answer := &pluginapi.AllocateResponse{}
	for range r.ContainerRequests {
		answer.ContainerResponses = append(answer.ContainerResponses, &pluginapi.ContainerAllocateResponse{})
	}
	return answer, nil
}

// plugIn starts a plugin with so many devices on each NUMA node, in place of the
// one before, and waits for the kubelet to count them.
func (n *node) plugIn(perNode ...int) {
	n.t.Helper()
	n.stopOld()
	folder := filepath.Join(n.dir, "device-plugins")
	listener, err := net.Listen("unix", filepath.Join(folder, "gpu.sock"))
	if err != nil {
		n.t.Fatal(err)
	}
	p, server := newPlugin(perNode...), grpc.NewServer()
	pluginapi.RegisterDevicePluginServer(server, p)
	go server.Serve(listener)
	n.stopOld = server.Stop

	ctx, cancel := context.WithTimeout(n.t.Context(), 10*time.Second)
	defer cancel()
	conn := n.dial(filepath.Join(folder, "kubelet.sock"))
	defer conn.Close()
	if _, err := pluginapi.NewRegistrationClient(conn).Register(ctx, &pluginapi.RegisterRequest{Version: pluginapi.Version, Endpoint: "gpu.sock", ResourceName: gpu}); err != nil {
		n.t.Fatalf("register: %v", err)
	}
	count := len(p.devices)
	n.do(wire.Command{Await: []wire.Devices{{Resource: gpu, Capacity: count, Allocatable: count}}})
}

func (n *node) dial(socket string) *grpc.ClientConn {
	n.t.Helper()
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		n.t.Fatal(err)
	}
	return conn
}

// holds reads from the PodResources API that a pod's container has so many CPUs
// and devices, and memory, all on NUMA node 0. It returns the CPUs and where the
// rest is.
func (n *node) holds(pod string, cpus, devices int) string {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), 10*time.Second)
	defer cancel()
	conn := n.dial(filepath.Join(n.dir, "pod-resources", "kubelet.sock"))
	defer conn.Close()
	client := podresourcesapi.NewPodResourcesListerClient(conn)
	all, err := client.GetAllocatableResources(ctx, &podresourcesapi.AllocatableResourcesRequest{})
	if err != nil {
		n.t.Fatal(err)
	}
	if len(all.CpuIds) != 2*numaNodes*coresPerNode-1 || len(all.Devices) != 6 || len(all.Memory) != numaNodes {
		n.t.Errorf("allocatable: %v", all)
	}
	list, err := client.List(ctx, &podresourcesapi.ListPodResourcesRequest{})
	if err != nil {
		n.t.Fatal(err)
	}
	i := slices.IndexFunc(list.PodResources, func(p *podresourcesapi.PodResources) bool { return p.Name == pod })
	if i < 0 {
		n.t.Fatalf("pod %s is not in %v", pod, list)
	}
	c := list.PodResources[i].Containers[0]
	zero := len(c.CpuIds) == cpus && len(c.Devices) == devices && len(c.Memory) == 1
	for _, d := range c.Devices {
		zero = zero && strings.HasPrefix(d.DeviceIds[0], "gpu-0-") && d.Topology.Nodes[0].ID == 0
	}
	for _, m := range c.Memory {
		zero = zero && len(m.Topology.Nodes) == 1 && m.Topology.Nodes[0].ID == 0
	}
	for _, cpu := range c.CpuIds {
		zero = zero && cpu%(numaNodes*coresPerNode) < coresPerNode
	}
	if !zero {
		n.t.Errorf("pod %s has %v, want %d CPUs, %d devices and memory of NUMA node 0", pod, c, cpus, devices)
	}
	slices.Sort(c.CpuIds)
	return fmt.Sprint(c.CpuIds, len(c.Devices), c.Memory)
}
