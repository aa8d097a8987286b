package plugin_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// fakeKubelet is the kubelet's side of the device plugin API, with the
// bookkeeping of the given minor version: up to 36 clients are keyed by
// resource, from 37 on by resource and socket.
type fakeKubelet struct {
	pluginapi.UnimplementedRegistrationServer
	t     testing.TB
	dir   string
	minor int

	// answer, when set, decides what happens to the nth registration, from 1 on.
	answer func(n int, resource string) answer

	mu        sync.Mutex
	server    *grpc.Server
	clients   map[string]map[string]*fakeClient // by resource and socket
	messages  map[string][][]*pluginapi.Device  // by resource, all there were
	healthy   map[string]int                    // by resource: allocatable
	endpoints []string                          // one a registration
	broken    []string                          // rules that the plugin broke
	losses    int                               // times that a resource lost all its devices
}

// answer is what a fake kubelet does with a registration.
type answer struct {
	connect bool  // dial back and open the stream
	err     error // what Register returns
	hang    bool  // Register returns only when the caller gives up
}

type fakeClient struct {
	resource, endpoint string
	conn               *grpc.ClientConn
	api                pluginapi.DevicePluginClient
	cancel             context.CancelFunc
}

func newKubelet(t testing.TB, dir string, minor int) *fakeKubelet {
	k := &fakeKubelet{t: t, dir: dir, minor: minor, messages: map[string][][]*pluginapi.Device{}}
	t.Cleanup(k.stop)
	return k
}

// start does what the kubelet's registration server does: make the folder,
// remove the sockets in it, listen.
func (k *fakeKubelet) start() {
	k.t.Helper()
	if err := os.MkdirAll(k.dir, 0o750); err != nil {
		k.t.Fatal(err)
	}
	entries, err := os.ReadDir(k.dir)
	if err != nil {
		k.t.Fatal(err)
	}
	for _, e := range entries {
		if e.Type() == os.ModeSocket {
			os.Remove(filepath.Join(k.dir, e.Name()))
		}
	}
	l, err := net.Listen("unix", filepath.Join(k.dir, "kubelet.sock"))
	if err != nil {
		k.t.Fatal(err)
	}
	// A killed kubelet leaves its socket file.
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.server = grpc.NewServer()
	k.clients = map[string]map[string]*fakeClient{}
	k.healthy = map[string]int{}
	pluginapi.RegisterRegistrationServer(k.server, k)
	go k.server.Serve(l)
}

// stop is the end of the kubelet's process: every connection is gone.
func (k *fakeKubelet) stop() {
	k.mu.Lock()
	server := k.server
	k.server = nil
	k.mu.Unlock()
	if server != nil {
		server.Stop()
	}
	k.cut()
}

// cut ends all streams; the sockets stay.
func (k *fakeKubelet) cut() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, byEndpoint := range k.clients {
		for _, c := range byEndpoint {
			c.cancel()
			c.conn.Close()
		}
	}
}

func (k *fakeKubelet) Register(ctx context.Context, req *pluginapi.RegisterRequest) (*pluginapi.Empty, error) {
	n := k.note(req)
	a := answer{connect: true}
	if k.answer != nil {
		a = k.answer(n, req.ResourceName)
	}
	if a.connect {
		if err := k.connect(ctx, req.ResourceName, req.Endpoint); err != nil {
			return nil, err
		}
	}
	if a.hang {
		<-ctx.Done()
	}
	return &pluginapi.Empty{}, a.err
}

// note checks the rules of registration and counts.
func (k *fakeKubelet) note(req *pluginapi.RegisterRequest) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	if req.Version != pluginapi.Version {
		k.broken = append(k.broken, fmt.Sprintf("registered with version %q", req.Version))
	}
	for _, e := range k.endpoints {
		if e == req.ResourceName+" "+req.Endpoint {
			k.broken = append(k.broken, "socket name used again: "+e)
		}
	}
	for _, c := range k.clients[req.ResourceName] {
		if conn, err := net.Dial("unix", filepath.Join(k.dir, c.endpoint)); err == nil {
			conn.Close()
			k.broken = append(k.broken, fmt.Sprintf("%s registered while %s is still served", req.Endpoint, c.endpoint))
		}
	}
	k.endpoints = append(k.endpoints, req.ResourceName+" "+req.Endpoint)
	return len(k.endpoints)
}

func (k *fakeKubelet) connect(ctx context.Context, resource, endpoint string) error {
	// Blocking on the dial for up to 10 s, as the kubelet does: the first
	// call must find a server.
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	conn, err := grpc.NewClient("unix://"+filepath.Join(k.dir, endpoint), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	c := &fakeClient{resource: resource, endpoint: endpoint, conn: conn, api: pluginapi.NewDevicePluginClient(conn)}
	opts, err := c.api.GetDevicePluginOptions(ctx, &pluginapi.Empty{})
	if err != nil {
		conn.Close()
		return fmt.Errorf("failed to get device plugin options: %w", err)
	}
	streamCtx, cancelStream := context.WithCancel(context.Background())
	c.cancel = cancelStream

	k.mu.Lock()
	defer k.mu.Unlock()
	if !opts.GetPreferredAllocationAvailable || opts.PreStartRequired {
		k.broken = append(k.broken, fmt.Sprintf("options %v", opts))
	}
	if k.minor >= 37 && k.clients[resource][endpoint] != nil {
		delete(k.clients[resource], endpoint)
		cancelStream()
		return fmt.Errorf("device plugin already connected: %s", endpoint)
	}
	if k.minor < 37 || k.clients[resource] == nil {
		k.clients[resource] = map[string]*fakeClient{}
	}
	k.clients[resource][endpoint] = c
	go k.run(streamCtx, c)
	return nil
}

func (k *fakeKubelet) run(ctx context.Context, c *fakeClient) {
	if stream, err := c.api.ListAndWatch(ctx, &pluginapi.Empty{}); err == nil {
		for {
			msg, err := stream.Recv()
			if err != nil {
				break
			}
			k.mu.Lock()
			k.messages[c.resource] = append(k.messages[c.resource], msg.Devices)
			k.healthy[c.resource] = len(slices.DeleteFunc(slices.Clone(msg.Devices), func(d *pluginapi.Device) bool { return d.Health != pluginapi.Healthy }))
			k.mu.Unlock()
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	// Up to 1.36 whoever is the resource's client now is thrown out.
	for endpoint, o := range k.clients[c.resource] {
		if k.minor < 37 || endpoint == c.endpoint {
			o.cancel()
			o.conn.Close()
			delete(k.clients[c.resource], endpoint)
		}
	}
	if len(k.clients[c.resource]) == 0 {
		k.healthy[c.resource] = 0
		k.losses++
	}
}

// list is the last message for a resource; nil when no stream is live.
func (k *fakeKubelet) list(resource string) []*pluginapi.Device {
	k.mu.Lock()
	defer k.mu.Unlock()
	m := k.messages[resource]
	if len(k.clients[resource]) == 0 || len(m) == 0 {
		return nil
	}
	return m[len(m)-1]
}

func (k *fakeKubelet) allocatable(resource string) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.healthy[resource]
}

func (k *fakeKubelet) messageCount(resource string) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.messages[resource])
}

func (k *fakeKubelet) registrations() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.endpoints)
}

func (k *fakeKubelet) rulesBroken() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.broken)
}

// api is the client of the resource's live stream.
func (k *fakeKubelet) api(resource string) pluginapi.DevicePluginClient {
	k.t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range k.clients[resource] {
		return c.api
	}
	k.t.Fatalf("%s is not registered", resource)
	return nil
}
