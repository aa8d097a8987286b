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
// list of each resource, and notes what pods hold as the device manager does.
// internal/plugin is tested with one that keeps to the rules of registration.
type fakeKubelet struct {
	pluginapi.UnimplementedRegistrationServer
	t    *testing.T
	root string // the kubelet's folder

	mu    sync.Mutex
	lists map[string][]string // by resource: "0000:3b:02.0 Healthy"
	got   chan struct{}       // has a token after a list came
	when  time.Time           // of the last one
}

func newKubelet(t *testing.T) *fakeKubelet {
	t.Helper()
	// Socket paths are short.
	root, err := os.MkdirTemp("", "nl")
	must(t, err)
	k := &fakeKubelet{t: t, root: root, lists: map[string][]string{}, got: make(chan struct{}, 1)}
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
	stream, err := pluginapi.NewDevicePluginClient(conn).ListAndWatch(context.Background(), &pluginapi.Empty{})
	if err != nil {
		conn.Close()
		return nil, err
	}
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
	lines := []string{}
	for _, d := range devices {
		lines = append(lines, d.ID+" "+d.Health)
	}
	k.mu.Lock()
	k.lists[resource], k.when = lines, time.Now()
	k.mu.Unlock()
	select {
	case k.got <- struct{}{}:
	default:
	}
}

func (k *fakeKubelet) list(resource string) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return strings.Join(k.lists[resource], "; ")
}

// expect waits for the resource's list to be the wanted one.
func (k *fakeKubelet) expect(resource string, want ...string) {
	k.t.Helper()
	deadline := time.After(20 * time.Second)
	for k.list(resource) != strings.Join(want, "; ") {
		select {
		case <-k.got:
		case <-deadline:
			k.t.Fatalf("%s lists %q, want %q", resource, k.list(resource), want)
		}
	}
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
