package registration_test

import (
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/numalane/numalane/internal/sysfstest"
)

// TestHints: each device is told with its NUMA node, and the kubelet aligns by
// it: what is free on each NUMA node counts, not the sum.
func TestHints(t *testing.T) {
	onEach(t, func(t *testing.T, minor int) {
		n := prepareNode(t, minor)
		n.policy = "single-numa-node"
		n.startKubelet()
		n.startPlugin()
		n.count(8, 8)
		if diff := cmp.Diff([]string{
			"0000:3b:02.0 [0]", "0000:3b:02.1 [0]", "0000:3b:02.2 [0]", "0000:3b:02.3 [0]",
			"0000:af:02.0 [1]", "0000:af:02.1 [1]", "0000:af:02.2 [1]", "0000:af:02.3 [1]",
		}, n.allocatable()); diff != "" {
			t.Errorf("allocatable (-want +got):\n%s", diff)
		}
		first, second := n.run("first", 3), n.run("second", 3)
		if first[0][5:7] == second[0][5:7] {
			t.Errorf("two pods of three hold %v and %v, want a NUMA node each", first, second)
		}
		n.refuse("split", "TopologyAffinityError", 2)
		n.end("first")
		n.run("third", 4)
	})
}

// TestNoNUMANode: a device whose numa_node is -1 is told without topology: a
// kubelet takes -1 for a node that no mask has (devicemanager nodeWithoutTopology).
// Where none of a pool has any, nothing is aligned and nothing refused.
func TestNoNUMANode(t *testing.T) {
	onEach(t, func(t *testing.T, minor int) {
		for name, test := range map[string]struct {
			numa  int
			pools string
		}{
			"numa_node is -1": {-1, pools},
			"excludeTopology": {1, `{"resourceList": [{"resourcePrefix": "numalane.io", "resourceName": "vf", "excludeTopology": true, "selectors": {"devices": ["154c"]}}]}`},
		} {
			t.Run(name, func(t *testing.T) {
				n := prepareNode(t, minor, sysfstest.X710("0000:3b:00.0", test.numa, 2))
				if err := n.configure(test.pools); err != nil {
					t.Fatal(err)
				}
				n.policy = "single-numa-node"
				n.startKubelet()
				p := n.startPlugin()
				n.count(2, 2)
				if diff := cmp.Diff([]string{"0000:3b:02.0 []", "0000:3b:02.1 []"}, n.allocatable()); diff != "" {
					t.Errorf("allocatable (-want +got):\n%s", diff)
				}
				n.run("pod", 2)
				if said := p.logged(noNUMANode); len(said) > 0 {
					t.Errorf("the plugin warns of a pool that is of one kind: %v", said)
				}
			})
		}
	})
}

// TestTopologyForAllOrNone: in a pool where some devices have a NUMA node and
// others none, the kubelet never counts the others when it aligns. The plugin
// warns of that.
func TestTopologyForAllOrNone(t *testing.T) {
	onEach(t, func(t *testing.T, minor int) {
		n := prepareNode(t, minor, sysfstest.X710("0000:3b:00.0", 0, 1), sysfstest.X710("0000:af:00.0", -1, 2))
		n.policy = "single-numa-node"
		n.startKubelet()
		p := n.startPlugin()
		n.count(3, 3)
		if diff := cmp.Diff([]string{"0000:3b:02.0 [0]", "0000:af:02.0 []", "0000:af:02.1 []"}, n.allocatable()); diff != "" {
			t.Errorf("allocatable (-want +got):\n%s", diff)
		}
		p.says("devices [0000:af:02.0 0000:af:02.1] "+noNUMANode, 1)
		if held := n.run("one", 1); held[0] != "0000:3b:02.0" {
			t.Errorf("a pod holds %v, want the device that has a NUMA node", held)
		}
		n.refuse("two", "TopologyAffinityError", 2)
	})
}

// TestPreferredAllocation: with policy none the kubelet aligns nothing and asks
// the plugin with all that is free, whose choice it takes: each pod on one NUMA
// node as long as one has enough, and as few devices left alone as can be.
func TestPreferredAllocation(t *testing.T) {
	onEach(t, func(t *testing.T, minor int) {
		n := newNode(t, minor)
		n.startPlugin()
		n.count(8, 8)
		for _, want := range []struct {
			pod string
			ids []string
		}{
			{"first", []string{"0000:3b:02.0", "0000:3b:02.1", "0000:3b:02.2"}},
			{"second", []string{"0000:af:02.0", "0000:af:02.1", "0000:af:02.2"}},
			{"rest", []string{"0000:3b:02.3", "0000:af:02.3"}},
		} {
			if held := n.run(want.pod, int64(len(want.ids))); !slices.Equal(held, want.ids) {
				t.Errorf("pod %s holds %v, want %v", want.pod, held, want.ids)
			}
		}
		// Two of two are left to the last, and still it asks: with policy none
		// nothing is aligned. It takes no error for an answer.
		if asked := n.logged(0, asksPreferred); len(asked) != 3 {
			t.Errorf("the kubelet asked %d times, want 3", len(asked))
		}
	})
}

// TestNoDevicesAtFirst: a pool without devices is not registered, or the node
// would have the resource for ever. It is once VFs come.
func TestNoDevicesAtFirst(t *testing.T) {
	onEach(t, func(t *testing.T, minor int) {
		n := newNode(t, minor, sysfstest.X710("0000:3b:00.0", 0, 0))
		p := n.startPlugin()
		p.says(notRegistered, 1)
		n.never(0, gotRegistration)
		var err error
		if n.machine, err = n.machine.SetVFs(n.sysfs(), "0000:3b:00.0", 2); err != nil {
			t.Fatal(err)
		}
		n.count(2, 2)
		n.run("pod", 2)
		if got := n.logged(0, gotRegistration); len(got) != 1 {
			t.Errorf("%d registrations, want one", len(got))
		}
	})
}

// TestUnhealthy: a device that lost its driver is one less to allocate, and
// counts as capacity; with a driver it is back.
func TestUnhealthy(t *testing.T) {
	onEach(t, func(t *testing.T, minor int) {
		n := newNode(t, minor)
		p := n.startPlugin()
		n.count(8, 8)
		n.unbind("0000:3b:02.0")
		n.count(8, 7)
		held := n.run("pod", 7)
		if slices.Contains(held, "0000:3b:02.0") {
			t.Errorf("a pod holds %v, one of them unhealthy", held)
		}
		n.refuse("more", "Requested: 1, Available: 0", 1)
		if err := sysfstest.Bind(n.sysfs(), "0000:3b:02.0", "iavf"); err != nil {
			t.Fatal(err)
		}
		n.count(8, 8)
		if held := n.run("more", 1); held[0] != "0000:3b:02.0" {
			t.Errorf("a pod holds %v, want the one that is free", held)
		}
		if got := p.live(1); len(got) != 1 {
			t.Errorf("streams on %v, want one for all that changed", got)
		}
	})
}

// TestVanishedWhileHeld: a device that is gone while a pod holds it stays
// listed as unhealthy, or the kubelet took it for healthy and the node's capacity
// shrank under its pods. It goes when it is free, which no kubelet tells: it
// shows in its checkpoint, at the next admission.
func TestVanishedWhileHeld(t *testing.T) {
	onEach(t, func(t *testing.T, minor int) {
		n := newNode(t, minor)
		n.startPlugin()
		n.count(8, 8)
		if held := n.run("holder", 4); held[3] != "0000:3b:02.3" {
			t.Fatalf("the pod holds %v", held)
		}
		var err error
		if n.machine, err = n.machine.SetVFs(n.sysfs(), "0000:3b:00.0", 2); err != nil {
			t.Fatal(err)
		}
		n.count(8, 6)
		n.kubelet.Kill() // and what is listed does not hang on the plugin's memory of the stream
		n.startKubelet()
		n.count(8, 6)
		if held := n.held("holder"); len(held) != 4 {
			t.Errorf("the pod holds %v, want the four that it was given", held)
		}
		n.end("holder")
		n.run("next", 1)
		n.count(6, 6)
	})
}

// TestAnotherRootFolder: a kubelet whose root is not /var/lib/kubelet, met by its
// path alone, and by a link to it, as where a plugin's pod mounts it elsewhere.
func TestAnotherRootFolder(t *testing.T) {
	onEach(t, func(t *testing.T, minor int) {
		n := newNode(t, minor)
		link := n.dir + "/link"
		if err := os.Symlink(n.root, link); err != nil {
			t.Fatal(err)
		}
		// Another kubelet on the same machine, whose plugin has nothing to say here.
		other := newNode(t, minor, sysfstest.X710("0000:5e:00.0", 0, 3))
		other.startPlugin()
		other.count(3, 3)
		for name, flags := range map[string][]string{
			"by its root":       {"--kubelet-dir", n.root},
			"through a link":    {"--kubelet-dir", link},
			"by its sockets":    {"--kubelet-dir", n.root, "--device-plugin-dir", link + "/device-plugins"},
			"with a last slash": {"--kubelet-dir", n.root + "/"},
		} {
			t.Run(name, func(t *testing.T) {
				n.t = t
				p := n.startPluginAt(flags...)
				p.live(1)
				n.count(8, 8)
				held := n.run("pod", 2)
				// A device that is gone and held is known from the kubelet's own files.
				n.unbind(held[0])
				n.count(8, 7)
				if err := sysfstest.Bind(n.sysfs(), held[0], "iavf"); err != nil {
					t.Fatal(err)
				}
				n.count(8, 8)
				n.end("pod")
				p.stop()
				n.count(8, 0)
			})
		}
		other.count(3, 3)
		if got := len(other.logged(0, gotRegistration)); got != 1 {
			t.Errorf("%d registrations with the other kubelet, want its own plugin's", got)
		}
	})
}
