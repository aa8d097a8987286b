package kubelet

import (
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"

	"github.com/numalane/numalane/pkg/topology"
)

// PodResources is what is asked of the kubelet's PodResources API.
// [podresources.PodResourcesListerClient] is one.
type PodResources interface {
	List(context.Context, *podresources.ListPodResourcesRequest, ...grpc.CallOption) (*podresources.ListPodResourcesResponse, error)
	GetAllocatableResources(context.Context, *podresources.AllocatableResourcesRequest, ...grpc.CallOption) (*podresources.AllocatableResourcesResponse, error)
}

const podResourcesTimeout = 2 * time.Second

// maxListBytes bounds an answer. The kubelet's own 4 MiB default for a client
// is too small for some hundred pods with many devices.
const maxListBytes = 16 << 20

func dialPodResources(socket string) (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient("unix://"+socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()), // a unix socket of root
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxListBytes)),
		// A kubelet that restarts is back in seconds: do not wait two minutes.
		// One that is busy may take longer to answer than the first backoff,
		// which would be the limit without another one.
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: podResourcesTimeout, Backoff: backoff.Config{
			BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second,
		}}))
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", socket, err)
	}
	return conn, nil
}

// Allocatable is what the kubelet says it may give away, taken or not.
type Allocatable struct {
	CPUs    topology.CPUSet           // empty unless the CPU manager is static and has started
	Memory  map[int][]topology.Memory // by NUMA id; system-reserved is not told
	Devices []HeldDevice              // healthy ones, of no pod
}

func allocatableOf(r *podresources.AllocatableResourcesResponse) Allocatable {
	a := Allocatable{CPUs: cpusOf(r.GetCpuIds()), Devices: devicesOf("", "", r.GetDevices())}
	for _, m := range r.GetMemory() {
		for _, n := range m.GetTopology().GetNodes() {
			id := int(n.GetID())
			put(&a.Memory, id, append(a.Memory[id], topology.Memory{Type: m.GetMemoryType(), Allocatable: m.GetSize()}))
		}
	}
	return a
}

// ActivePod is a pod that the kubelet counts as running, as PodResources lists
// it: by name, for the API tells no UID, and without what init containers hold.
type ActivePod struct {
	Namespace, Name string
	held            holding
}

func activePodsOf(r *podresources.ListPodResourcesResponse) []ActivePod {
	pods := make([]ActivePod, 0, len(r.GetPodResources()))
	for _, p := range r.GetPodResources() {
		a := ActivePod{Namespace: p.GetNamespace(), Name: p.GetName(), held: holding{}}
		for _, c := range p.GetContainers() {
			*a.held.of(c.GetName()) = share{
				cpus:    cpusOf(c.GetCpuIds()),
				memory:  memoryOf(c.GetMemory()),
				devices: devicesOf("", c.GetName(), c.GetDevices()),
			}
		}
		a.held.asWhole(cpusOf(p.GetCpuIds()), memoryOf(p.GetMemory()))
		pods = append(pods, a)
	}
	return pods
}

func cpusOf(ids []int64) topology.CPUSet {
	cpus := make([]int, len(ids))
	for i, id := range ids {
		cpus[i] = int(id)
	}
	return topology.NewCPUSet(cpus...)
}

func memoryOf(ms []*podresources.ContainerMemory) []topology.MemoryAllocation {
	var out []topology.MemoryAllocation
	for _, m := range ms {
		if m.GetSize() > 0 {
			out = append(out, topology.MemoryAllocation{Type: m.GetMemoryType(), NUMANodes: nodesOf(m.GetTopology()), Size: m.GetSize()})
		}
	}
	return out
}

// devicesOf joins the entries that PodResources has one of for each device and
// NUMA node (cm, containerDevicesFromResourceDeviceInstances).
func devicesOf(uid, container string, ds []*podresources.ContainerDevices) []HeldDevice {
	var out []HeldDevice
	for _, d := range ds {
		for _, id := range d.GetDeviceIds() {
			out = append(out, HeldDevice{PodUID: uid, Container: container, Resource: d.GetResourceName(), ID: id, NUMANodes: nodesOf(d.GetTopology())})
		}
	}
	return mergeDevices(out)
}

func nodesOf(t *podresources.TopologyInfo) []int {
	var nodes []int
	for _, n := range t.GetNodes() {
		if n.GetID() >= 0 {
			nodes = append(nodes, int(n.GetID()))
		}
	}
	slices.Sort(nodes)
	return nodes
}

func askAllocatable(ctx context.Context, kubelet PodResources) (Allocatable, error) {
	ctx, cancel := context.WithTimeout(ctx, podResourcesTimeout)
	defer cancel()
	resp, err := kubelet.GetAllocatableResources(ctx, &podresources.AllocatableResourcesRequest{})
	if err != nil {
		return Allocatable{}, fmt.Errorf("ask PodResources for the allocatable: %w", err)
	}
	return allocatableOf(resp), nil
}

func askActive(ctx context.Context, kubelet PodResources) ([]ActivePod, error) {
	ctx, cancel := context.WithTimeout(ctx, podResourcesTimeout)
	defer cancel()
	resp, err := kubelet.List(ctx, &podresources.ListPodResourcesRequest{})
	if err != nil {
		return nil, fmt.Errorf("ask PodResources for the pods: %w", err)
	}
	return activePodsOf(resp), nil
}
