package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// fakeKubelet is the kubelet's side of the device plugin API: it keeps the last
// list of each resource and its plugin, and notes what pods hold as the device manager does.
// internal/plugin is tested with one that keeps to the rules of registration.
type fakeKubelet struct {
	pluginapi.UnimplementedRegistrationServer
	t    *testing.T
	root string // the kubelet's folder

	mu      sync.Mutex
	lists   map[string][]*pluginapi.Device          // by resource
	plugins map[string]pluginapi.DevicePluginClient // by resource
	sockets map[string]string                       // by resource
	got     chan struct{}                           // has a token after a list came
}

func newKubelet(t *testing.T) *fakeKubelet {
	t.Helper()
	// Socket paths are short.
	root, err := os.MkdirTemp("", "nl")
	must(t, err)
	k := &fakeKubelet{
		t: t, root: root, got: make(chan struct{}, 1),
		lists: map[string][]*pluginapi.Device{}, plugins: map[string]pluginapi.DevicePluginClient{}, sockets: map[string]string{},
	}
	must(t, os.Mkdir(k.pluginDir(), 0o750))
	l, err := net.Listen("unix", filepath.Join(k.pluginDir(), "kubelet.sock"))
	must(t, err)
	s := grpc.NewServer()
	pluginapi.RegisterRegistrationServer(s, k)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
		os.RemoveAll(root)
	})
	return k
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (k *fakeKubelet) pluginDir() string { return filepath.Join(k.root, "device-plugins") }

func (k *fakeKubelet) Register(_ context.Context, req *pluginapi.RegisterRequest) (*pluginapi.Empty, error) {
	conn, err := grpc.NewClient("unix://"+filepath.Join(k.pluginDir(), req.Endpoint), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	plugin := pluginapi.NewDevicePluginClient(conn)
	stream, err := plugin.ListAndWatch(context.Background(), &pluginapi.Empty{})
	if err != nil {
		conn.Close()
		return nil, err
	}
	k.mu.Lock()
	k.plugins[req.ResourceName], k.sockets[req.ResourceName] = plugin, req.Endpoint
	k.mu.Unlock()
	go func() {
		defer conn.Close()
		for {
			list, err := stream.Recv()
			if err != nil {
				return // the plugin ended it
			}
			k.note(req.ResourceName, list.Devices)
		}
	}()
	return &pluginapi.Empty{}, nil
}

func (k *fakeKubelet) note(resource string, devices []*pluginapi.Device) {
	k.mu.Lock()
	k.lists[resource] = devices
	k.mu.Unlock()
	select {
	case k.got <- struct{}{}:
	default:
	}
}

func (k *fakeKubelet) list(resource string) []*pluginapi.Device {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.lists[resource]
}

// expect waits for the resource's list to be the wanted one, each device with
// its health: "0000:3b:02.0 Healthy".
func (k *fakeKubelet) expect(resource string, want ...string) {
	k.t.Helper()
	k.await(resource, func(d *pluginapi.Device) string { return d.ID + " " + d.Health }, want)
}

// expectIDs waits for it without a look at health.
func (k *fakeKubelet) expectIDs(resource string, want ...string) {
	k.t.Helper()
	k.await(resource, (*pluginapi.Device).GetID, want)
}

// expectNodes waits for it with the NUMA nodes: "0000:3b:02.0 [1]".
func (k *fakeKubelet) expectNodes(resource string, want ...string) {
	k.t.Helper()
	k.await(resource, func(d *pluginapi.Device) string {
		if d.Topology == nil {
			return d.ID + " without"
		}
		nodes := []int64{}
		for _, n := range d.Topology.Nodes {
			nodes = append(nodes, n.ID)
		}
		return fmt.Sprint(d.ID, " ", nodes)
	}, want)
}

func (k *fakeKubelet) await(resource string, line func(*pluginapi.Device) string, want []string) {
	k.t.Helper()
	lines := func() string {
		var all []string
		for _, d := range k.list(resource) {
			all = append(all, line(d))
		}
		return strings.Join(all, "; ")
	}
	deadline := time.After(20 * time.Second)
	for lines() != strings.Join(want, "; ") {
		select {
		case <-k.got:
		case <-deadline:
			k.t.Fatalf("%s lists %q, want %q", resource, lines(), want)
		}
	}
}

// plugin is the client of a resource that has been registered.
func (k *fakeKubelet) plugin(resource string) pluginapi.DevicePluginClient {
	k.t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.plugins[resource] == nil {
		k.t.Fatalf("%s is not registered", resource)
	}
	return k.plugins[resource]
}

// socket is the name of the one that serves a resource.
func (k *fakeKubelet) socket(resource string) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.sockets[resource]
}

// allocate asks for one container.
func (k *fakeKubelet) allocate(resource string, ids ...string) (*pluginapi.ContainerAllocateResponse, error) {
	k.t.Helper()
	got, err := k.plugin(resource).Allocate(k.t.Context(), &pluginapi.AllocateRequest{
		ContainerRequests: []*pluginapi.ContainerAllocateRequest{{DevicesIds: ids}},
	})
	if err != nil {
		return nil, err
	}
	if len(got.ContainerResponses) != 1 {
		k.t.Fatalf("answers %v, want one", got)
	}
	return got.ContainerResponses[0], nil
}

// hold writes down that a pod holds devices, in all.
func (k *fakeKubelet) hold(resource string, ids ...string) {
	k.t.Helper()
	type entry struct {
		PodUID, ContainerName, ResourceName string
		DeviceIDs                           map[int64][]string
		AllocResp                           string
	}
	entries := []entry{}
	for i, id := range ids {
		entries = append(entries, entry{PodUID: fmt.Sprint("pod", i), ContainerName: "c", ResourceName: resource, DeviceIDs: map[int64][]string{0: {id}}})
	}
	data, err := json.Marshal(map[string]any{
		"Data": map[string]any{"PodDeviceEntries": entries, "RegisteredDevices": map[string][]string{}}, "Checksum": 0,
	})
	must(k.t, err)
	path := filepath.Join(k.pluginDir(), "kubelet_internal_checkpoint")
	must(k.t, os.WriteFile(path+".tmp", data, 0o600))
	must(k.t, os.Rename(path+".tmp", path))
}
