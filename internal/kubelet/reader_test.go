package kubelet_test

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"

	"github.com/numalane/numalane/internal/kubelet"
	"github.com/numalane/numalane/pkg/topology"
)

// host has two NUMA nodes of 8 CPUs, two threads a core.
func host() *topology.Host {
	h := &topology.Host{NUMANodes: []topology.NUMANode{
		{ID: 0, CPUs: topology.NewCPUSet(0, 1, 2, 3, 4, 5, 6, 7), Distances: map[int]int{0: 10, 1: 21}, Memory: 64 * gi},
		{ID: 1, CPUs: topology.NewCPUSet(8, 9, 10, 11, 12, 13, 14, 15), Distances: map[int]int{0: 21, 1: 10}, Memory: 64 * gi},
	}}
	for id := range 16 {
		first := id &^ 1
		h.CPUs = append(h.CPUs, topology.CPU{
			ID: id, Online: true, NUMANode: id / 8, Socket: id / 8, Core: first, CacheID: id / 8, Threads: topology.NewCPUSet(first, first+1),
		})
	}
	return h
}

// offline takes a CPU away, as the kernel shows it then.
func offline(h *topology.Host, id int) *topology.Host {
	h.CPUs[id] = topology.CPU{ID: id, NUMANode: topology.NoNUMANode, Socket: -1, Core: -1, CacheID: -1}
	if sibling := id ^ 1; h.CPUs[sibling].Online {
		h.CPUs[sibling].Core, h.CPUs[sibling].Threads = sibling, topology.NewCPUSet(sibling)
	}
	return h
}

// fakeKubelet serves PodResources on a unix socket, as the kubelet does.
type fakeKubelet struct {
	podresources.UnimplementedPodResourcesListerServer
	mu          sync.Mutex
	allocatable *podresources.AllocatableResourcesResponse
	list        *podresources.ListPodResourcesResponse
	lists       int
	asked       int // GetAllocatableResources
}

func (k *fakeKubelet) GetAllocatableResources(context.Context, *podresources.AllocatableResourcesRequest) (*podresources.AllocatableResourcesResponse, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asked++
	return k.allocatable, nil
}

func (k *fakeKubelet) List(context.Context, *podresources.ListPodResourcesRequest) (*podresources.ListPodResourcesResponse, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.lists++
	if k.list == nil {
		return nil, errors.New("no list")
	}
	return k.list, nil
}

func nodes(ids ...int64) *podresources.TopologyInfo {
	t := &podresources.TopologyInfo{}
	for _, id := range ids {
		t.Nodes = append(t.Nodes, &podresources.NUMANode{ID: id})
	}
	return t
}

func device(resource, id string, t *podresources.TopologyInfo) *podresources.ContainerDevices {
	return &podresources.ContainerDevices{ResourceName: resource, DeviceIds: []string{id}, Topology: t}
}

// newFakeKubelet has CPUs 1 and 8 reserved, and other vendors' devices.
func newFakeKubelet() *fakeKubelet {
	a := &podresources.AllocatableResourcesResponse{
		Devices: []*podresources.ContainerDevices{
			device("numalane.io/sriov", "0000:3b:02.0", nodes(0)),
			device("vendor.example/gpu", "gpu-7", nodes(0)), // one entry a NUMA node
			device("vendor.example/gpu", "gpu-7", nodes(1)),
			device("vendor.example/gpu", "gpu-9", nodes(1)),
			device("vendor.example/fuse", "fuse-0", nil),
			device("vendor.example/fuse", "fuse-1", nil),
		},
		Memory: []*podresources.ContainerMemory{
			{MemoryType: "memory", Size: 63 * gi, Topology: nodes(0)},
			{MemoryType: "memory", Size: 64 * gi, Topology: nodes(1)},
		},
	}
	for id := range int64(16) {
		if id != 1 && id != 8 {
			a.CpuIds = append(a.CpuIds, id)
		}
	}
	return &fakeKubelet{allocatable: a, list: &podresources.ListPodResourcesResponse{}}
}

// node is a kubelet's folder and what answers beside it.
type node struct {
	dir     string
	kubelet *fakeKubelet
	reader  *kubelet.Reader
}

const staticConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
cpuManagerPolicy: static
memoryManagerPolicy: Static
topologyManagerPolicy: single-numa-node
`

// newNode has the state files of a version; "" has none.
func newNode(t testing.TB, version string, change ...func(*kubelet.Options)) *node {
	t.Helper()
	dir, err := os.MkdirTemp("", "nl") // short: it holds a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	n := &node{dir: dir, kubelet: newFakeKubelet()}
	for _, d := range []string{"device-plugins", "pod-resources"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	n.write(t, "config.yaml", []byte(staticConfig))
	if version != "" {
		n.write(t, "cpu_manager_state", fixture(t, version, "cpu_manager_state"))
		n.write(t, "memory_manager_state", fixture(t, version, "memory_manager_state"))
		n.write(t, "device-plugins/kubelet_internal_checkpoint", fixture(t, version, "kubelet_internal_checkpoint"))
	}
	l, err := net.Listen("unix", filepath.Join(dir, "pod-resources", "kubelet.sock"))
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	podresources.RegisterPodResourcesListerServer(server, n.kubelet)
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	o := kubelet.Options{Dir: dir, Logger: slog.New(slog.DiscardHandler)}
	for _, f := range change {
		f(&o)
	}
	n.reader, err = kubelet.NewReader(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.reader.Close() })
	return n
}

// write replaces a file as the kubelet does (util/store, writeFile).
func (n *node) write(t testing.TB, name string, b []byte) {
	t.Helper()
	path := filepath.Join(n.dir, name)
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tmp, path); err != nil {
		t.Fatal(err)
	}
}

func (n *node) read(t *testing.T, in kubelet.Input) topology.NodeState {
	t.Helper()
	s, err := n.reader.Read(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func input() kubelet.Input {
	vf := func(id, pf string, numa int, healthy bool) kubelet.Device {
		return kubelet.Device{ID: id, NUMANodes: []int{numa}, PF: pf, PFName: "ens1", Speed: 25000, Link: "up", Healthy: healthy}
	}
	return kubelet.Input{
		Host: host(), Minor: 37,
		Pools: []kubelet.Pool{{Resource: "numalane.io/sriov", AllocationPolicy: "packed", Devices: []kubelet.Device{
			vf("0000:af:02.1", "0000:af:00.0", 1, false), vf("0000:af:02.0", "0000:af:00.0", 1, true),
			vf("0000:3b:02.0", "0000:3b:00.0", 0, true), vf("0000:3b:02.1", "0000:3b:00.0", 0, true), vf("0000:3b:02.2", "0000:3b:00.0", 0, true),
		}}},
		Pods: []kubelet.Pod{
			{UID: cnfUID, Namespace: "lane", Name: "cnf"},
			{UID: gpuUID, Namespace: "lane", Name: "gpu"},
			{UID: wholeUID, Namespace: "lane", Name: "whole"},
			{UID: staticUID, Namespace: "kube-system", Name: "static"},
		},
	}
}

func block(kind string, size uint64) topology.MemoryAllocation {
	return topology.MemoryAllocation{Type: kind, NUMANodes: []int{0}, Size: size}
}

func cnfAllocation() topology.Allocation {
	sriov := func(ids ...string) []topology.DeviceAllocation {
		return []topology.DeviceAllocation{{Resource: "numalane.io/sriov", NUMANodes: []int{0}, PF: "0000:3b:00.0", IDs: ids}}
	}
	return topology.Allocation{Version: 1, UID: cnfUID, Containers: []topology.ContainerAllocation{
		{
			Name:    "cnf",
			CPUs:    map[int]topology.CPUSet{0: topology.NewCPUSet(2, 3, 4, 5)},
			Memory:  []topology.MemoryAllocation{block("hugepages-1Gi", 2*gi), block("memory", 4*gi)},
			Devices: sriov("0000:3b:02.0", "0000:3b:02.1"),
		},
		{Name: "init", CPUs: map[int]topology.CPUSet{0: topology.NewCPUSet(2, 3)}, Devices: sriov("0000:3b:02.0")},
	}}
}

func TestReadState(t *testing.T) {
	n := newNode(t, "v1.37")
	got := n.read(t, input())

	want := topology.NodeState{
		Topology: topology.NodeTopology{
			Version: 1,
			Kubelet: topology.Kubelet{
				Minor: 37, FeatureGates: []string{"DRAExtendedResource"},
				TopologyPolicy: "single-numa-node", TopologyScope: "container", CPUPolicy: "static", MemoryPolicy: "Static",
			},
			NUMANodes: []topology.NodeNUMA{
				{
					ID: 0, Reserved: topology.NewCPUSet(1), Distances: map[int]int{0: 10, 1: 21},
					Cores:  []topology.CoreGroup{{CPUs: []topology.CPUSet{topology.NewCPUSet(0, 1), topology.NewCPUSet(2, 3), topology.NewCPUSet(4, 5), topology.NewCPUSet(6, 7)}}},
					Memory: []topology.Memory{{Type: "hugepages-1Gi", Allocatable: 4 * gi}, {Type: "memory", Allocatable: 63 * gi, Reserved: gi}},
				},
				{
					ID: 1, Reserved: topology.NewCPUSet(8), Distances: map[int]int{0: 21, 1: 10},
					Cores: []topology.CoreGroup{{Socket: 1, Cache: 1, CPUs: []topology.CPUSet{
						topology.NewCPUSet(8, 9), topology.NewCPUSet(10, 11), topology.NewCPUSet(12, 13), topology.NewCPUSet(14, 15),
					}}},
					Memory: []topology.Memory{{Type: "hugepages-1Gi", Allocatable: 4 * gi}, {Type: "memory", Allocatable: 64 * gi}},
				},
			},
		},
		// The file's account knows nothing of the pod that holds memory as a whole, and the kubelet goes by its account.
		Pools: topology.NodePools{Version: 1, Memory: []topology.MemoryAccount{
			{NUMANode: 0, With: []int{0}, Free: map[string]uint64{"hugepages-1Gi": 2 << 30, "memory": 59 << 30}},
		}, Pools: []topology.Pool{
			{Resource: "numalane.io/sriov", AllocationPolicy: "packed", Groups: []topology.Group{
				{NUMANodes: []int{0}, PF: "0000:3b:00.0", PFName: "ens1", Speed: 25000, Link: "up", Total: 3, Healthy: 3, Free: 1},
				// What the deleted pod held is free, though the file still has it.
				{NUMANodes: []int{1}, PF: "0000:af:00.0", PFName: "ens1", Speed: 25000, Link: "up", Total: 2, Healthy: 1, Free: 1, Unhealthy: []string{"0000:af:02.1"}},
			}},
			{Resource: "vendor.example/fuse", Foreign: true, Groups: []topology.Group{{Total: 2, Healthy: 2, Free: 1}}},
			{Resource: "vendor.example/gpu", Foreign: true, Groups: []topology.Group{
				{NUMANodes: []int{0, 1}, Total: 1, Healthy: 1},
				// gpu-8 is held and not allocatable: unhealthy, and known all the same.
				{NUMANodes: []int{1}, Total: 2, Healthy: 1, Free: 1, Unhealthy: []string{"gpu-8"}},
			}},
		}},
		Held: []topology.Allocation{
			cnfAllocation(),
			{Version: 1, UID: staticUID, Containers: []topology.ContainerAllocation{{Name: "static", CPUs: map[int]topology.CPUSet{1: topology.NewCPUSet(12)}}}},
			{Version: 1, UID: gpuUID, Containers: []topology.ContainerAllocation{{
				Name: "app", CPUs: map[int]topology.CPUSet{1: topology.NewCPUSet(10, 11)},
				Devices: []topology.DeviceAllocation{
					{Resource: "vendor.example/fuse", IDs: []string{"fuse-0"}},
					{Resource: "vendor.example/gpu", NUMANodes: []int{0, 1}, IDs: []string{"gpu-7"}},
					{Resource: "vendor.example/gpu", NUMANodes: []int{1}, IDs: []string{"gpu-8"}},
				},
			}}},
			// Pod-level: once, not once a container that shares it.
			{Version: 1, UID: wholeUID, Containers: []topology.ContainerAllocation{{
				Name: topology.WholePod, CPUs: map[int]topology.CPUSet{0: topology.NewCPUSet(6, 7), 1: topology.NewCPUSet(8, 9)},
				Memory: []topology.MemoryAllocation{block("memory", gi)},
			}}},
		},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for _, doc := range []func() error{
		func() error {
			s, err := topology.Encode(got.Topology)
			if err == nil {
				_, err = topology.Decode[topology.NodeTopology](s)
			}
			return err
		},
		func() error {
			s, err := topology.Encode(got.Pools)
			if err == nil {
				_, err = topology.Decode[topology.NodePools](s)
			}
			return err
		},
	} {
		if err := doc(); err != nil {
			t.Errorf("the contract refuses what was read: %v", err)
		}
	}
}

// uids tells a state's pods apart.
func uids(as []topology.Allocation) []string {
	var out []string
	for _, a := range as {
		out = append(out, a.UID)
	}
	return out
}

func TestReadTellsWhoHolds(t *testing.T) {
	n := newNode(t, "v1.34")
	in := input()

	t.Run("every pod is the API's", func(t *testing.T) {
		all := in
		all.Pods = append(slices.Clone(in.Pods), kubelet.Pod{UID: goneUID, Namespace: "lane", Name: "gone"})
		got := n.read(t, all)
		if d := cmp.Diff([]string{cnfUID, staticUID, gpuUID, goneUID}, uids(got.Held)); d != "" {
			t.Error(d)
		}
		if n.kubelet.lists != 0 {
			t.Errorf("PodResources was asked for its pods %d times and had nothing to add", n.kubelet.lists)
		}
	})
	t.Run("an ended pod holds nothing", func(t *testing.T) {
		ended := in
		ended.Pods = slices.Clone(in.Pods)
		ended.Pods[0].Ended = true
		got := n.read(t, ended)
		if d := cmp.Diff([]string{staticUID, gpuUID}, uids(got.Held)); d != "" {
			t.Error(d)
		}
		if free := got.Pools.Pools[0].Groups[0].Free; free != 3 {
			t.Errorf("%d VFs free on NUMA node 0, want 3", free)
		}
	})
	t.Run("a deleted pod holds nothing, even if its name is taken again", func(t *testing.T) {
		again := in
		again.Pods = append(slices.Clone(in.Pods), kubelet.Pod{UID: "new", Namespace: "lane", Name: "gone"})
		n.kubelet.list = &podresources.ListPodResourcesResponse{PodResources: []*podresources.PodResources{{
			Namespace: "lane", Name: "gone", Containers: []*podresources.ContainerResources{{Name: "gone", CpuIds: []int64{13}}},
		}}}
		got := n.read(t, again)
		if d := cmp.Diff([]string{cnfUID, staticUID, gpuUID}, uids(got.Held)); d != "" {
			t.Error(d)
		}
		if len(got.Pools.Unowned) != 0 {
			t.Errorf("unowned: %v", got.Pools.Unowned)
		}
	})
	t.Run("a pod of the kubelet alone", func(t *testing.T) {
		n.kubelet.list = &podresources.ListPodResourcesResponse{PodResources: []*podresources.PodResources{{
			Namespace: "kube-system", Name: "manifest", Containers: []*podresources.ContainerResources{{
				Name: "gone", Devices: []*podresources.ContainerDevices{device("numalane.io/sriov", "0000:af:02.0", nodes(1))},
			}},
		}}}
		got := n.read(t, in)
		if d := cmp.Diff([]string{goneUID}, uids(got.Pools.Unowned)); d != "" {
			t.Error(d)
		}
		if free := got.Pools.Pools[0].Groups[1].Free; free != 0 {
			t.Errorf("%d VFs free on NUMA node 1, want 0", free)
		}
	})
	t.Run("nobody to ask", func(t *testing.T) {
		n.kubelet.list = nil
		got := n.read(t, in)
		if d := cmp.Diff([]string{goneUID}, uids(got.Pools.Unowned)); d != "" {
			t.Error(d)
		}
	})
}

// TestReadTellsTwinsApart: of pods that the API does not have and that hold the
// like, as many count as PodResources lists.
func TestReadTellsTwinsApart(t *testing.T) {
	const state = `{"policyName":"Static","machineState":{},"entries":{` +
		`"a-dead":{"one":[{"numaAffinity":[0],"type":"memory","size":1073741824}]},` +
		`"b-live":{"two":[{"numaAffinity":[0],"type":"memory","size":1073741824}]},` +
		`"c-dead":{"two":[{"numaAffinity":[0],"type":"memory","size":1073741824}]},` +
		`"whole":{"one":[{"numaAffinity":[1],"type":"memory","size":1}]}},` +
		`"podEntries":{"whole":{"memoryBlocks":[{"numaAffinity":[1],"type":"memory","size":1073741824}]}},"checksum":0}`
	n := newNode(t, "v1.36")
	n.write(t, "memory_manager_state", []byte(state))
	in := input()
	in.Pods = append(in.Pods, kubelet.Pod{UID: goneUID, Namespace: "lane", Name: "gone"})
	listed := func(pod, container string, node, size int64) *podresources.PodResources {
		return &podresources.PodResources{Namespace: "kube-system", Name: pod, Containers: []*podresources.ContainerResources{
			{Name: container, Memory: []*podresources.ContainerMemory{{MemoryType: "memory", Size: uint64(size), Topology: nodes(node)}}},
		}}
	}
	n.kubelet.list = &podresources.ListPodResourcesResponse{PodResources: []*podresources.PodResources{
		listed("manifest", "two", 0, gi), listed("part", "one", 1, 1),
	}}
	got := n.read(t, in)
	if d := cmp.Diff([]string{"b-live", "whole"}, uids(got.Pools.Unowned)); d != "" {
		t.Error(d)
	}
}

func TestReadStandsIn(t *testing.T) {
	list := &podresources.ListPodResourcesResponse{PodResources: []*podresources.PodResources{
		{Namespace: "lane", Name: "cnf", Containers: []*podresources.ContainerResources{{
			Name: "cnf", CpuIds: []int64{2, 3, 4, 5},
			Memory: []*podresources.ContainerMemory{
				{MemoryType: "hugepages-1Gi", Size: 2 * gi, Topology: nodes(0)}, {MemoryType: "memory", Size: 4 * gi, Topology: nodes(0)},
			},
			Devices: []*podresources.ContainerDevices{
				device("numalane.io/sriov", "0000:3b:02.0", nodes(0)), device("numalane.io/sriov", "0000:3b:02.1", nodes(0)),
			},
		}}},
		{Namespace: "kube-system", Name: "manifest", Containers: []*podresources.ContainerResources{{Name: "one", CpuIds: []int64{14}}}},
	}}
	files := map[string]string{
		"cpu_manager_state":                          "cpu_manager_state",
		"memory_manager_state":                       "memory_manager_state",
		"device-plugins/kubelet_internal_checkpoint": "kubelet_internal_checkpoint",
	}
	faults := map[string]struct {
		make func(t *testing.T, n *node, file string)
		text string
	}{
		"torn": {func(t *testing.T, n *node, file string) {
			n.write(t, file, fixture(t, "v1.37", filepath.Base(file))[:40])
		}, " has an unknown format"},
		"unknown format": {func(t *testing.T, n *node, file string) { n.write(t, file, []byte(`{"v":9}`)) }, " has an unknown format"},
		"missing": {func(t *testing.T, n *node, file string) {
			if err := os.Remove(filepath.Join(n.dir, file)); err != nil {
				t.Fatal(err)
			}
		}, " does not exist"},
		"unreadable": {func(t *testing.T, n *node, file string) {
			path := filepath.Join(n.dir, file)
			if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o755)); err != nil {
				t.Fatal(err)
			}
		}, " cannot be read"},
	}
	for _, file := range slices.Sorted(maps.Keys(files)) {
		for _, what := range slices.Sorted(maps.Keys(faults)) {
			t.Run(what+" "+files[file], func(t *testing.T) {
				n := newNode(t, "v1.37")
				n.kubelet.list = list
				faults[what].make(t, n, file)
				got := n.read(t, input())
				if want := files[file] + faults[what].text; got.Topology.Inexact != want {
					t.Errorf("inexact %q, want %q", got.Topology.Inexact, want)
				}
				if d := cmp.Diff(got.Held[0].Containers[0], cnfAllocation().Containers[0]); d != "" {
					t.Error("what the app container holds is lost:", d)
				}
				if len(got.Topology.NUMANodes[0].Memory) == 0 {
					t.Error("the memory of NUMA node 0 is lost")
				}
				if file == "cpu_manager_state" {
					if d := cmp.Diff([]string{"kube-system/manifest"}, uids(got.Pools.Unowned)); d != "" {
						t.Error(d)
					}
				}
			})
		}
	}
	t.Run("PodResources down too", func(t *testing.T) {
		n := newNode(t, "v1.37")
		n.write(t, "cpu_manager_state", nil)
		n.kubelet.list = nil
		if s, err := n.reader.Read(t.Context(), input()); err == nil {
			t.Errorf("no error, and state %v", s)
		}
	})
	t.Run("unknown fields", func(t *testing.T) {
		n := newNode(t, "v1.37")
		n.write(t, "cpu_manager_state", []byte(`{"policyName":"static","data":"{\"policyName\":\"static\",\"extra\":1}"}`))
		if got := n.read(t, input()); got.Topology.Inexact != "cpu_manager_state has fields that this version does not know" {
			t.Errorf("inexact %q", got.Topology.Inexact)
		}
	})
}

func TestReadFreshNode(t *testing.T) {
	n := newNode(t, "")
	n.write(t, "config.yaml", []byte("apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n"))
	n.kubelet.allocatable = &podresources.AllocatableResourcesResponse{}
	in := input()
	in.Host = offline(host(), 5)
	got := n.read(t, in)
	if got.Topology.Inexact != "" || len(got.Held) != 0 {
		t.Errorf("inexact %q, held %v", got.Topology.Inexact, got.Held)
	}
	if k := got.Topology.Kubelet; k.TopologyPolicy != "none" || k.TopologyScope != "container" || k.CPUPolicy != "none" || k.MemoryPolicy != "None" {
		t.Errorf("defaults: %+v", k)
	}
	node0 := got.Topology.NUMANodes[0]
	if want := topology.NewCPUSet(0, 1, 2, 3, 4, 6, 7); !node0.CPUs().Equal(want) {
		t.Errorf("NUMA node 0 has CPUs %s, want the online ones, %s", node0.CPUs(), want)
	}
	if !node0.Reserved.IsEmpty() || len(node0.Memory) != 0 {
		t.Errorf("policies none reserve %s and give away %v", node0.Reserved, node0.Memory)
	}
}

func TestReadWaitsForTheCPUManager(t *testing.T) {
	n := newNode(t, "v1.37")
	n.kubelet.allocatable.CpuIds = nil
	if _, err := n.reader.Read(t.Context(), input()); err == nil || !strings.Contains(err.Error(), "has not started its CPU manager") {
		t.Fatalf("error %v", err)
	}
	n.write(t, "config.yaml", []byte(staticConfig+"reservedSystemCPUs: 0-1\n"))
	again, err := kubelet.NewReader(kubelet.Options{Dir: n.dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	s, err := again.Read(t.Context(), input())
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Topology.NUMANodes[0].Reserved; !got.Equal(topology.NewCPUSet(0, 1)) {
		t.Errorf("reserved %s, want 0-1 of reservedSystemCPUs", got)
	}
}

func TestHeldDevices(t *testing.T) {
	n := newNode(t, "v1.35")
	got, err := n.reader.HeldDevices()
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(map[string][]string{
		"numalane.io/sriov":   {"0000:3b:02.0", "0000:3b:02.1", "0000:af:02.0"},
		"vendor.example/fuse": {"fuse-0"},
		"vendor.example/gpu":  {"gpu-7", "gpu-8"},
	}, got); d != "" {
		t.Error(d)
	}
	fresh := newNode(t, "")
	if got, err := fresh.reader.HeldDevices(); err != nil || got != nil {
		t.Errorf("on a fresh node: %v, %v", got, err)
	}
}
