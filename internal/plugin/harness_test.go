package plugin_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"

	"github.com/numalane/numalane/internal/handout"
	"github.com/numalane/numalane/internal/plugin"
)

const resource = "intel.com/sriov-net"

// node is a running Servers beside a fake kubelet.
type node struct {
	*fakeKubelet
	*plugin.Servers
	t       testing.TB
	updates chan []plugin.Pool
	end     func() // stops Servers and checks what is left
	stopOwn func() // stops Servers alone

	mu   sync.Mutex
	held map[string][]string
	dark error // why Held cannot tell
}

func (n *node) setHeld(held map[string][]string) { n.setHeldErr(held, nil) }

func (n *node) setHeldErr(held map[string][]string, err error) {
	n.mu.Lock()
	n.held, n.dark = held, err
	n.mu.Unlock()
	n.HeldChanged()
}

func socketDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "nl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "dp")
}

// newNode has its servers running and its kubelet not started.
func newNode(t testing.TB, minor int, change ...func(*plugin.Options)) *node {
	t.Helper()
	dir := socketDir(t)
	n := &node{fakeKubelet: newKubelet(t, dir, minor), t: t, updates: make(chan []plugin.Pool)}
	opts := plugin.Options{SocketDir: dir, Held: func() (map[string][]string, error) {
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.held, n.dark
	}}
	for _, c := range change {
		c(&opts)
	}
	n.Servers = plugin.New(opts)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx, n.updates) }()
	n.stopOwn = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run returned %v, want nil", err)
		}
	})
	n.end = sync.OnceFunc(func() {
		n.stopOwn()
		for _, rule := range n.rulesBroken() {
			t.Errorf("registration rule broken: %s", rule)
		}
		if left := ownSockets(t, dir); len(left) > 0 {
			t.Errorf("sockets left behind: %v", left)
		}
		eventually(t, "no goroutine of the plugin to be left", func() error {
			stacks := make([]byte, 1<<20)
			stacks = stacks[:runtime.Stack(stacks, true)]
			for _, g := range strings.Split(string(stacks), "\n\n") {
				if strings.Contains(g, "numalane/internal/plugin.") {
					return fmt.Errorf("still there:\n%s", g)
				}
			}
			return nil
		})
	})
	t.Cleanup(n.end)
	return n
}

// liveNode has registered the pools.
func liveNode(t testing.TB, minor int, pools ...plugin.Pool) *node {
	t.Helper()
	n := newNode(t, minor)
	n.start()
	n.updates <- pools
	n.waitLive(1)
	return n
}

// waitLive waits until every pool is live and the kubelet has opened the given
// number of streams in all, refused registrations included.
func (n *node) waitLive(registrations int) {
	n.t.Helper()
	eventually(n.t, fmt.Sprintf("all pools to be live after %d registrations", registrations), func() error {
		if got := len(n.registrations()); got < registrations {
			return fmt.Errorf("%d registrations", got)
		}
		for _, s := range n.Status() {
			if s.Phase != plugin.Live {
				return fmt.Errorf("%s is %s: %w", s.Resource, s.Phase, s.Err)
			}
			if n.list(s.Resource) == nil && s.Devices > 0 {
				return fmt.Errorf("%s: no list", s.Resource)
			}
		}
		return nil
	})
}

// waitList waits until the kubelet's last list of the resource is the wanted one.
func (n *node) waitList(resource string, want ...string) {
	n.t.Helper()
	eventually(n.t, fmt.Sprintf("%s to list %v", resource, want), func() error {
		if got := lines(n.list(resource)); strings.Join(got, "; ") != strings.Join(want, "; ") {
			return fmt.Errorf("it lists %v", got)
		}
		return nil
	})
}

// lines is a list for people: "0000:3b:02.0 Healthy [0]".
func lines(devices []*pluginapi.Device) []string {
	var all []string
	for _, d := range devices {
		line := d.ID + " " + d.Health
		if d.Topology != nil {
			var nodes []int64
			for _, n := range d.Topology.Nodes {
				nodes = append(nodes, n.ID)
			}
			line += fmt.Sprint(" ", nodes)
		}
		all = append(all, line)
	}
	return all
}

func ownSockets(t testing.TB, dir string) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(dir, "numalane-*"))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// eventually polls until the condition holds.
func eventually(t testing.TB, what string, check func() error) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited for %s: %v", what, err)
		}
	}
}

func vf(id string, numa ...int) plugin.Device {
	return plugin.Device{
		ID: id, NUMANodes: numa, PF: "0000:3b:00.0", Healthy: true,
		Handout: handout.Handout{Info: map[string]map[string]string{"generic": {"deviceID": id}}},
	}
}

func pool(devices ...plugin.Device) plugin.Pool {
	return plugin.Pool{Resource: resource, Policy: "packed", Devices: devices}
}
