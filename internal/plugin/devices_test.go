package plugin_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"

	"github.com/numalane/numalane/internal/handout"
	"github.com/numalane/numalane/internal/plugin"
	"github.com/numalane/numalane/pkg/allocator"
)

func TestTopology(t *testing.T) {
	exclude := pool(vf("0000:3b:02.0", 0))
	exclude.ExcludeTopology = true
	cases := map[string]struct {
		pool plugin.Pool
		want []string
	}{
		"one node":   {pool(vf("0000:3b:02.0", 3)), []string{"0000:3b:02.0 Healthy [3]"}},
		"two nodes":  {pool(vf("0000:3b:02.0", 1, 0)), []string{"0000:3b:02.0 Healthy [0 1]"}},
		"unknown":    {pool(vf("0000:3b:02.0")), []string{"0000:3b:02.0 Healthy"}},
		"excluded":   {exclude, []string{"0000:3b:02.0 Healthy"}},
		"by address": {pool(vf("0000:3b:02.1", 0), vf("0000:3b:0a.0", 0), vf("0000:3b:02.0", 0)), []string{"0000:3b:02.0 Healthy [0]", "0000:3b:02.1 Healthy [0]", "0000:3b:0a.0 Healthy [0]"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			n := liveNode(t, 37, c.pool)
			n.waitList(resource, c.want...)
		})
	}
}

func TestMixedTopologyIsWarnedOf(t *testing.T) {
	var log syncBuffer
	n := newNode(t, 37, func(o *plugin.Options) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	n.start()
	for range 3 {
		n.updates <- []plugin.Pool{pool(vf("0000:3b:02.0", 0), vf("0000:5e:02.0"))}
	}
	n.waitLive(1)
	n.end()
	if got := strings.Count(log.String(), "devices [0000:5e:02.0] have no NUMA node"); got != 1 {
		t.Errorf("warned %d times, want once:\n%s", got, log.String())
	}
}

func TestUpdatesArePushedOnChange(t *testing.T) {
	n := liveNode(t, 37, pool(vf("0000:3b:02.0", 0)))
	n.waitList(resource, "0000:3b:02.0 Healthy [0]")

	sick := vf("0000:3b:02.0", 0)
	sick.Healthy, sick.Problem = false, "link of its PF is down"
	n.updates <- []plugin.Pool{pool(sick)}
	n.waitList(resource, "0000:3b:02.0 Unhealthy [0]")
	if s := n.Status()[0]; s.Healthy != 0 || s.Devices != 1 {
		t.Errorf("status %+v, want 0 of 1 healthy", s)
	}

	// Neither the same again nor what ListAndWatch does not tell is sent. The
	// call in between leaves the stream time for a message too many.
	for i := range 20 {
		n.updates <- []plugin.Pool{pool(sick)}
		sick.Problem = fmt.Sprint("its driver changes, ", i)
		sick.Handout.Nodes = []handout.Node{{Host: "/dev/vfio/vfio", Container: "/dev/vfio/vfio"}}
		n.updates <- []plugin.Pool{pool(sick)}
		if _, err := n.api(resource).GetDevicePluginOptions(t.Context(), &pluginapi.Empty{}); err != nil {
			t.Fatal(err)
		}
	}
	n.updates <- []plugin.Pool{pool(vf("0000:3b:02.0", 0), vf("0000:3b:02.1", 0))}
	n.waitList(resource, "0000:3b:02.0 Healthy [0]", "0000:3b:02.1 Healthy [0]")
	if got := n.messageCount(resource); got != 3 {
		t.Errorf("%d messages, want 3", got)
	}
	if got := n.registrations(); len(got) != 1 {
		t.Errorf("registrations %v, want one", got)
	}
}

func TestEmptyPool(t *testing.T) {
	n := newNode(t, 37)
	n.start()
	n.updates <- []plugin.Pool{pool(), {Resource: "intel.com/other", Devices: []plugin.Device{vf("0000:5e:02.0", 1)}}}
	eventually(t, "the other pool to be live", func() error {
		if s := n.Status(); len(s) != 2 || s[0].Phase != plugin.Live {
			return errors.New("it is not")
		}
		return nil
	})
	if s := n.Status()[1]; s.Resource != resource || s.Phase != plugin.Idle {
		t.Errorf("status %+v, want %s idle", s, resource)
	}
	if got := n.registrations(); len(got) != 1 || !strings.HasPrefix(got[0], "intel.com/other ") {
		t.Errorf("registrations %v, want intel.com/other alone", got)
	}

	n.updates <- []plugin.Pool{pool(vf("0000:3b:02.0", 0))}
	n.waitList(resource, "0000:3b:02.0 Healthy [0]")
	// Empty once registered: the kubelet must be told, and the pool stays.
	n.updates <- []plugin.Pool{pool()}
	eventually(t, "the empty list", func() error {
		if n.list(resource) != nil || n.allocatable(resource) != 0 || n.messageCount(resource) != 2 {
			return errors.New("it did not come")
		}
		return nil
	})
	if s := n.Status(); len(s) != 1 || s[0].Phase != plugin.Live {
		t.Errorf("status %+v, want the empty pool live", s)
	}
}

func TestPoolLeavesConfiguration(t *testing.T) {
	n := liveNode(t, 37, pool(vf("0000:3b:02.0", 0)))
	n.setHeld(map[string][]string{resource: {"0000:3b:02.0"}})
	n.updates <- nil
	n.waitList(resource, "0000:3b:02.0 Unhealthy [0]")
	n.setHeld(nil)
	eventually(t, "the pool to be gone", func() error {
		if s := n.Status(); len(s) != 0 {
			return errors.New("it is still shown")
		}
		if got := ownSockets(t, n.dir); len(got) != 0 {
			return errors.New("its socket is still there")
		}
		return nil
	})
	n.updates <- []plugin.Pool{pool(vf("0000:3b:02.0", 0))}
	n.waitLive(2)
	n.waitList(resource, "0000:3b:02.0 Healthy [0]")
}

func TestVanishedWhileHeld(t *testing.T) {
	n := liveNode(t, 37, pool(vf("0000:3b:02.0", 0), vf("0000:3b:02.1", 1)))
	n.setHeld(map[string][]string{resource: {"0000:3b:02.1"}})
	n.updates <- []plugin.Pool{pool(vf("0000:3b:02.0", 0))}
	n.waitList(resource, "0000:3b:02.0 Healthy [0]", "0000:3b:02.1 Unhealthy [1]")
	n.updates <- []plugin.Pool{pool(vf("0000:3b:02.0", 0), vf("0000:3b:02.2", 0))}
	n.waitList(resource, "0000:3b:02.0 Healthy [0]", "0000:3b:02.1 Unhealthy [1]", "0000:3b:02.2 Healthy [0]")
	n.setHeld(nil)
	n.waitList(resource, "0000:3b:02.0 Healthy [0]", "0000:3b:02.2 Healthy [0]")

	// Held and unknown, as after a restart of the plugin: where it sat is lost.
	n.setHeld(map[string][]string{resource: {"0000:3b:02.7"}})
	n.waitList(resource, "0000:3b:02.0 Healthy [0]", "0000:3b:02.2 Healthy [0]", "0000:3b:02.7 Unhealthy")
	n.updates <- []plugin.Pool{pool(vf("0000:3b:02.7", 1))}
	n.waitList(resource, "0000:3b:02.7 Healthy [1]")
}

// TestSameHoldersAreNoNews: the kubelet's files are looked at also when nothing
// has changed.
func TestSameHoldersAreNoNews(t *testing.T) {
	var looks, told, live atomic.Int32
	var servers atomic.Pointer[plugin.Servers]
	var held atomic.Pointer[map[string][]string]
	held.Store(&map[string][]string{resource: {"0000:3b:02.0"}})
	n := newNode(t, 37, func(o *plugin.Options) {
		o.Held = func() (map[string][]string, error) {
			looks.Add(1)
			return *held.Load(), nil
		}
		o.OnStatus = func() {
			told.Add(1)
			if s := servers.Load(); s != nil && slices.ContainsFunc(s.Status(), func(p plugin.PoolStatus) bool { return p.Phase == plugin.Live }) {
				live.Add(1)
			}
		}
	})
	servers.Store(n.Servers)
	n.start()
	n.updates <- []plugin.Pool{pool(vf("0000:3b:02.0", 0), vf("0000:3b:02.1", 0))}
	n.waitLive(1)
	eventually(t, "the servers to tell that they are live", func() error {
		if live.Load() == 0 {
			return errors.New("not yet")
		}
		return nil
	})
	// A look is over when the next one has begun.
	look := func() {
		t.Helper()
		for range 2 {
			before := looks.Load()
			n.HeldChanged()
			eventually(t, "another look", func() error {
				if looks.Load() == before {
					return errors.New("none yet")
				}
				return nil
			})
		}
	}
	look()
	before := told.Load()
	look()
	if now := told.Load(); now != before {
		t.Errorf("told of another status %d times, and nothing was other", now-before)
	}
	held.Store(&map[string][]string{resource: {"0000:3b:02.1"}})
	look()
	if now := told.Load(); now != before+1 {
		t.Errorf("told of another status %d times, want once", now-before)
	}
}

// A device that moves to another pool while a pod holds it is in both, healthy
// in neither, until it is free.
func TestHeldUnderAnotherResource(t *testing.T) {
	const other = "intel.com/other"
	n := liveNode(t, 37, pool(vf("0000:3b:02.0", 0)))
	n.setHeld(map[string][]string{resource: {"0000:3b:02.0"}})
	n.updates <- []plugin.Pool{pool(), {Resource: other, Devices: []plugin.Device{vf("0000:3b:02.0", 0)}}}
	n.waitList(resource, "0000:3b:02.0 Unhealthy [0]")
	n.waitList(other, "0000:3b:02.0 Unhealthy [0]")
	n.setHeld(nil)
	n.waitList(other, "0000:3b:02.0 Healthy [0]")
	eventually(t, "the first pool to be empty", func() error {
		if n.Status()[1].Devices != 0 {
			return errors.New("it is not")
		}
		return nil
	})
}

func TestContradictionChangesNothing(t *testing.T) {
	good := pool(vf("0000:3b:02.0", 0))
	cases := map[string]struct {
		update []plugin.Pool
		want   string
	}{
		"no prefix":          {[]plugin.Pool{{Resource: "sriov"}}, "want a resource of the form prefix/name"},
		"pool twice":         {[]plugin.Pool{good, {Resource: resource}}, "pool intel.com/sriov-net is given twice"},
		"device twice":       {[]plugin.Pool{pool(vf("0000:3b:02.0"), vf("0000:3b:02.0"))}, "device 0000:3b:02.0 is given twice"},
		"device in two":      {[]plugin.Pool{good, {Resource: "intel.com/b", Devices: good.Devices}}, "in pools intel.com/sriov-net and intel.com/b"},
		"NUMA node -1":       {[]plugin.Pool{pool(vf("0000:3b:02.1", -1))}, "NUMA nodes [-1]"},
		"device without id":  {[]plugin.Pool{pool(vf(""))}, "want 1 to 63 characters"},
		"device id too long": {[]plugin.Pool{pool(vf(strings.Repeat("x", 64)))}, "want 1 to 63 characters"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var log syncBuffer
			n := newNode(t, 37, func(o *plugin.Options) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
			n.start()
			n.updates <- []plugin.Pool{good}
			n.waitLive(1)
			n.updates <- c.update
			n.updates <- []plugin.Pool{pool(vf("0000:3b:02.0", 0), vf("0000:3b:02.1", 0))}
			n.waitList(resource, "0000:3b:02.0 Healthy [0]", "0000:3b:02.1 Healthy [0]")
			if got := n.messageCount(resource); got != 2 {
				t.Errorf("%d messages, want 2", got)
			}
			if !strings.Contains(log.String(), c.want) {
				t.Errorf("log lacks %q:\n%s", c.want, log.String())
			}
		})
	}
}

func TestPreferredAllocation(t *testing.T) {
	n := liveNode(t, 37, pool(vf("0000:3b:02.0", 0), vf("0000:3b:02.1", 0), vf("0000:5e:02.0", 1), vf("0000:5e:02.1", 1)))
	got, err := n.api(resource).GetPreferredAllocation(t.Context(), &pluginapi.PreferredAllocationRequest{
		ContainerRequests: []*pluginapi.ContainerPreferredAllocationRequest{
			{AvailableDeviceIDs: []string{"0000:5e:02.1", "0000:3b:02.1", "0000:5e:02.0", "0000:ff:1f.7"}, AllocationSize: 2},
			{AvailableDeviceIDs: []string{"0000:3b:02.0", "0000:3b:02.1", "0000:5e:02.0", "0000:5e:02.1"}, MustIncludeDeviceIDs: []string{"0000:5e:02.1"}, AllocationSize: 2},
			{AvailableDeviceIDs: []string{"0000:ff:1f.7"}, AllocationSize: 1},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := &pluginapi.PreferredAllocationResponse{ContainerResponses: []*pluginapi.ContainerPreferredAllocationResponse{
		{DeviceIDs: []string{"0000:5e:02.0", "0000:5e:02.1"}},
		{DeviceIDs: []string{"0000:5e:02.0", "0000:5e:02.1"}},
		{},
	}}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("preferred (-want +got):\n%s", diff)
	}
}

// TestPreferredAllocationByPolicy: what the pool is told of the machine decides.
func TestPreferredAllocationByPolicy(t *testing.T) {
	of := func(pf string, numa int, upstream ...string) []plugin.Device {
		var all []plugin.Device
		for _, i := range []string{"0", "1"} {
			d := vf(pf+"."+i, numa)
			d.PF, d.Upstream = pf, upstream
			all = append(all, d)
		}
		return all
	}
	distances := allocator.NewDistances(map[int]map[int]int{0: {0: 10, 1: 31, 2: 12}, 1: {0: 31, 1: 10, 2: 31}, 2: {0: 12, 1: 31, 2: 10}})
	devices := slices.Concat(of("a", 0, "root1"), of("b", 0, "root1"), of("c", 0, "root2"), of("d", 1, "root3"), of("e", 2, "root4"))
	cases := map[string]struct {
		policy  allocator.Policy
		exclude bool
		must    []string
		size    int32
		want    []string
	}{
		"packed":                       {allocator.PolicyPacked, false, []string{"b.0"}, 4, []string{"a.0", "a.1", "b.0", "b.1"}},
		"spread, over cards":           {allocator.PolicySpread, false, []string{"b.0"}, 2, []string{"b.0", "c.0"}},
		"paired, on two cards":         {allocator.PolicyPaired, false, []string{"b.0"}, 4, []string{"b.0", "b.1", "c.0", "c.1"}},
		"the near NUMA node":           {allocator.PolicyPacked, false, []string{"e.0"}, 8, []string{"a.0", "a.1", "b.0", "b.1", "c.0", "c.1", "e.0", "e.1"}},
		"NUMA nodes that are excluded": {allocator.PolicyPaired, true, []string{"d.1"}, 2, []string{"a.0", "d.1"}},
	}
	var available []string
	for _, d := range devices {
		available = append(available, d.ID)
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			n := liveNode(t, 37, plugin.Pool{Resource: resource, Policy: c.policy, Distances: distances, ExcludeTopology: c.exclude, Devices: devices})
			got, err := n.api(resource).GetPreferredAllocation(t.Context(), &pluginapi.PreferredAllocationRequest{
				ContainerRequests: []*pluginapi.ContainerPreferredAllocationRequest{
					{AvailableDeviceIDs: available, MustIncludeDeviceIDs: c.must, AllocationSize: c.size},
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got.ContainerResponses[0].DeviceIDs); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// Whatever the kubelet asks, the answer is no error, and names only devices
// that are available, each once and no more than asked.
func FuzzPreferredAllocation(f *testing.F) {
	n := liveNode(f, 37, pool(vf("a", 0), vf("b", 0), vf("c", 1), vf("d"), vf("e", 0, 1)))
	api := n.api(resource)
	f.Add("abcde", "b", int32(2))
	f.Add("aaxyz", "z", int32(5))
	f.Add("", "abc", int32(-1))
	f.Fuzz(func(t *testing.T, available, must string, size int32) {
		if len(available) > 64 || len(must) > 64 {
			return
		}
		// The kubelet asks for at least what must be in the answer.
		if n := int32(len(must)); size >= 0 && size < n {
			size = n
		}
		got, err := api.GetPreferredAllocation(context.Background(), &pluginapi.PreferredAllocationRequest{
			ContainerRequests: []*pluginapi.ContainerPreferredAllocationRequest{
				{AvailableDeviceIDs: ids(available), MustIncludeDeviceIDs: ids(must), AllocationSize: size},
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		chosen := got.ContainerResponses[0].DeviceIDs
		if len(chosen) > max(0, int(size)) {
			t.Errorf("%d devices for %d", len(chosen), size)
		}
		seen := map[string]bool{}
		for _, id := range chosen {
			if seen[id] || !strings.Contains(available, id) {
				t.Errorf("%q is chosen twice or not available, in %v", id, chosen)
			}
			seen[id] = true
		}
	})
}

// ids makes one id of each letter, which protobuf wants to be valid UTF-8.
func ids(s string) []string {
	var all []string
	for _, r := range strings.ToValidUTF8(s, "?") {
		all = append(all, string(r))
	}
	return all
}

type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
