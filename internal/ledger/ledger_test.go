package ledger_test

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/numalane/numalane/internal/ledger"
	"github.com/numalane/numalane/pkg/allocator"
	"github.com/numalane/numalane/pkg/topology"
)

// TestNodeStates holds the states of what a node publishes, each with its
// reason and its setting.
func TestNodeStates(t *testing.T) {
	tests := []struct {
		name string
		edit func(*v1.Node)
		open ledger.Policy
		want allocator.Reason
	}{
		{"known", func(*v1.Node) {}, ledger.Policy{}, allocator.Admitted},
		{"nothing", func(n *v1.Node) { n.Annotations = nil }, ledger.Policy{AdmitAbsent: true}, allocator.NoState},
		{"no pools", func(n *v1.Node) { delete(n.Annotations, topology.PoolsAnnotation) }, ledger.Policy{AdmitAbsent: true}, allocator.NoState},
		{"not JSON", func(n *v1.Node) { n.Annotations[topology.PoolsAnnotation] = "{" }, ledger.Policy{AdmitUnreadable: true}, allocator.UnreadableState},
		{"newer", func(n *v1.Node) { n.Annotations[topology.TopologyAnnotation] = `{"version":2}` }, ledger.Policy{AdmitNewer: true}, allocator.NewerState},
		{"contradicts itself", func(n *v1.Node) {
			n.Annotations[topology.TopologyAnnotation] = strings.Replace(n.Annotations[topology.TopologyAnnotation], "single-numa-node", "double-numa-node", 1)
		}, ledger.Policy{AdmitUnreadable: true}, allocator.Unknown},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := two.node(t, "n1")
			tt.edit(n)
			inCluster(t, ledger.Policy{}, []runtime.Object{n}, func(t *testing.T, c *cluster) {
				c.want("n1", pod("a", "2", 2), tt.want)
				// What the node publishes next replaces it.
				c.put(two.node(t, "n1"))
				c.want("n1", pod("a", "2", 2), allocator.Admitted)
				if err := c.client.CoreV1().Nodes().Delete(t.Context(), "n1", metav1.DeleteOptions{}); err != nil {
					t.Fatal(err)
				}
				c.put(two.node(t, "n2")) // later on the same watch
				c.want("n1", pod("a", "2", 2), allocator.NoState)
			})
			inCluster(t, tt.open, []runtime.Object{n}, func(t *testing.T, c *cluster) {
				c.want("n1", pod("a", "2", 2), allocator.Admitted)
			})
		})
	}
}

// TestHolders holds when a pod counts, and where.
func TestHolders(t *testing.T) {
	// The rest of the node tells: only one NUMA node has 3 VFs.
	wide, narrow := pod("w", "2", 3), pod("n", "2", 2)
	ends := metav1.NewTime(born.Add(time.Hour))
	tests := []struct {
		name         string
		pod          *v1.Pod
		wide, narrow allocator.Reason
	}{
		{"a bound pod counts where Admit puts it", pod("p", "2", 2), allocator.NUMAUnaligned, allocator.Admitted},
		{"one that is acknowledged, where it is", acknowledged(t, pod("p", "2", 2), 1, []int{4, 5}, 2), allocator.Admitted, allocator.Admitted},
		{"one that is being deleted still holds", func() *v1.Pod {
			p := acknowledged(t, pod("p", "2", 2), 0, []int{0, 1}, 2)
			p.DeletionTimestamp, p.Finalizers = &ends, []string{"example.com/hold"}
			return p
		}(), allocator.NUMAUnaligned, allocator.Admitted},
		{"one that has failed holds nothing", func() *v1.Pod {
			p := acknowledged(t, pod("p", "2", 2), 0, []int{0, 1}, 2)
			p.Status.Phase = v1.PodFailed
			return p
		}(), allocator.Admitted, allocator.Admitted},
		{"one that the kubelet would refuse, were it not there already, shows that not all is known", pod("p", "2", 5), allocator.InFlux, allocator.InFlux},
		{"one without exclusive CPUs or devices takes nothing", pod("p", "2500m", 0), allocator.Admitted, allocator.Admitted},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inCluster(t, ledger.Policy{}, []runtime.Object{two.node(t, "n1"), on("n1", tt.pod)}, func(t *testing.T, c *cluster) {
				c.want("n1", wide, tt.wide)
				c.want("n1", narrow, tt.narrow)
				c.deletePod("p")
				c.want("n1", wide, allocator.Admitted)
			})
		})
	}
}

// TestForeignPodWithoutPlace: one that comes past the extender and that its kubelet
// will refuse takes nothing.
func TestForeignPodWithoutPlace(t *testing.T) {
	inCluster(t, ledger.Policy{}, []runtime.Object{two.node(t, "n1")}, func(t *testing.T, c *cluster) {
		c.put(on("n1", pod("p", "2", 5)))
		c.want("n1", pod("w", "2", 3), allocator.Admitted)
	})
}

// TestUnownedIsOurs: what a node publishes as held by nobody may be a pod's whose
// binding its plugin has not seen yet. It counts once.
func TestUnownedIsOurs(t *testing.T) {
	m := two
	m.edit = func(_ *topology.NodeTopology, p *topology.NodePools) {
		p.Unowned = []topology.Allocation{{UID: "uid-p", Containers: []topology.ContainerAllocation{{
			Name: "app", CPUs: map[int]topology.CPUSet{0: topology.NewCPUSet(0, 1)},
			Devices: []topology.DeviceAllocation{{Resource: vfs, NUMANodes: []int{0}, PF: pf(0), IDs: []string{"a", "b", "c"}}},
		}}}}
	}
	inCluster(t, ledger.Policy{}, []runtime.Object{m.node(t, "n1")}, func(t *testing.T, c *cluster) {
		c.want("n1", pod("w", "1", 3), allocator.NUMAUnaligned)
		c.put(on("n1", pod("p", "2", 3))) // on NUMA node 0, and not twice
		c.want("n1", pod("q", "2", 1), allocator.Admitted)
		c.want("n1", pod("w", "1", 3), allocator.NUMAUnaligned)
	})
}

// TestAcknowledgement follows one pod from bound to acknowledged to gone.
func TestAcknowledgement(t *testing.T) {
	inCluster(t, ledger.Policy{}, []runtime.Object{two.node(t, "n1")}, func(t *testing.T, c *cluster) {
		p := on("n1", pod("p", "2", 2))
		c.put(p)
		c.want("n1", pod("w", "2", 3), allocator.NUMAUnaligned)
		if got := c.metric("numalane_ledger_pods", "unacknowledged"); got != 1 {
			t.Errorf("unacknowledged pods: %v, want 1", got)
		}
		c.put(acknowledged(t, p, 1, []int{6, 7}, 2))
		c.want("n1", pod("w", "2", 3), allocator.Admitted)
		if got := c.metric("numalane_ledger_pods", "acknowledged"); got != 1 {
			t.Errorf("acknowledged pods: %v, want 1", got)
		}
		ended := acknowledged(t, p, 1, []int{6, 7}, 2)
		ended.Status.Phase = v1.PodSucceeded
		c.put(ended)
		c.want("n1", pod("l", "4", 4), allocator.Admitted)
	})
}

// TestDisbelief: an annotation that disagrees with the pod's requests or the
// node's inventory counts as none, and is counted, once.
func TestDisbelief(t *testing.T) {
	p := on("n1", pod("p", "2", 2))
	edit := func(f func(*topology.Allocation)) *v1.Pod {
		a, err := topology.Decode[topology.Allocation](acknowledged(t, p, 1, []int{4, 5}, 2).Annotations[topology.AllocationAnnotation])
		if err != nil {
			t.Fatal(err)
		}
		f(&a)
		return says(t, p, a)
	}
	text := func(s string) *v1.Pod {
		out := p.DeepCopy()
		out.Annotations = map[string]string{topology.AllocationAnnotation: s}
		return out
	}
	tests := []struct {
		name  string
		pod   *v1.Pod
		cause string
	}{
		{"not JSON", text("yes"), "unreadable"},
		{"newer", text(`{"version":2,"uid":"uid-p"}`), "unreadable"},
		{"of another UID", edit(func(a *topology.Allocation) { a.UID = "uid-q" }), "unreadable"},
		{"no container", edit(func(a *topology.Allocation) { a.Containers = nil }), "disagrees"},
		{"another container", edit(func(a *topology.Allocation) { a.Containers[0].Name = "other" }), "disagrees"},
		{"fewer CPUs", edit(func(a *topology.Allocation) { a.Containers[0].CPUs[1] = topology.NewCPUSet(4) }), "disagrees"},
		{"no CPUs", edit(func(a *topology.Allocation) { a.Containers[0].CPUs = nil }), "disagrees"},
		{"CPUs of another NUMA node", edit(func(a *topology.Allocation) { a.Containers[0].CPUs[1] = topology.NewCPUSet(0, 1) }), "disagrees"},
		{"CPUs of a NUMA node that is not", edit(func(a *topology.Allocation) {
			a.Containers[0].CPUs = map[int]topology.CPUSet{7: topology.NewCPUSet(4, 5)}
		}), "disagrees"},
		{"fewer VFs", edit(func(a *topology.Allocation) { a.Containers[0].Devices[0].IDs = a.Containers[0].Devices[0].IDs[:1] }), "disagrees"},
		{"the same VF twice", edit(func(a *topology.Allocation) {
			ids := a.Containers[0].Devices[0].IDs
			ids[1] = ids[0]
		}), "disagrees"},
		{"VFs of a PF that is not", edit(func(a *topology.Allocation) { a.Containers[0].Devices[0].PF = "0000:ff:00.0" }), "disagrees"},
		{"devices that it does not ask for", edit(func(a *topology.Allocation) { a.Containers[0].Devices[0].Resource = "example.com/gpu" }), "disagrees"},
		{"memory that it cannot hold", edit(func(a *topology.Allocation) {
			a.Containers[0].Memory = []topology.MemoryAllocation{{Type: "memory", NUMANodes: []int{1}, Size: 64 << 20}}
		}), "disagrees"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inCluster(t, ledger.Policy{}, []runtime.Object{two.node(t, "n1"), tt.pod}, func(t *testing.T, c *cluster) {
				c.want("n1", pod("w", "2", 3), allocator.NUMAUnaligned) // so it counts on NUMA node 0
				again := tt.pod.DeepCopy()
				again.Status.Phase = v1.PodRunning
				c.put(again)
				if got := c.metric("numalane_ledger_disbelieved_allocations_total", tt.cause); got != 1 {
					t.Errorf("counted %v times, want once", got)
				}
			})
		})
	}
}

// TestMemoryAcknowledged: under the memory manager a pod's memory is a part of
// what it must be said to hold.
func TestMemoryAcknowledged(t *testing.T) {
	m := machine{cores: []int{4, 4}, vfs: []int{4, 4}, edit: func(t *topology.NodeTopology, _ *topology.NodePools) {
		t.Kubelet.MemoryPolicy = topology.MemoryManagerStatic
		for i := range t.NUMANodes {
			t.NUMANodes[i].Memory = []topology.Memory{{Type: "memory", Allocatable: 100 << 20}}
		}
	}}
	inCluster(t, ledger.Policy{}, []runtime.Object{m.node(t, "n1")}, func(t *testing.T, c *cluster) {
		p := on("n1", pod("p", "1", 1))
		c.put(acknowledged(t, p, 1, []int{4}, 1)) // without its memory
		if got := c.metric("numalane_ledger_pods", "unacknowledged"); got != 1 {
			t.Errorf("unacknowledged pods: %v, want 1", got)
		}
		a := topology.Allocation{UID: "uid-p", Containers: []topology.ContainerAllocation{{
			Name:    "app",
			CPUs:    map[int]topology.CPUSet{1: topology.NewCPUSet(4)},
			Memory:  []topology.MemoryAllocation{{Type: "memory", NUMANodes: []int{1}, Size: 64 << 20}},
			Devices: []topology.DeviceAllocation{{Resource: vfs, NUMANodes: []int{1}, PF: pf(1), IDs: []string{"0000:20:02.0"}}},
		}}}
		c.put(says(t, p, a))
		if got := c.metric("numalane_ledger_pods", "acknowledged"); got != 1 {
			t.Errorf("acknowledged pods: %v, want 1", got)
		}
		c.want("n1", pod("q", "4", 4), allocator.Admitted) // on NUMA node 0
		c.put(on("n1", pod("r", "1", 1)))
		c.want("n1", pod("q", "1", 1), allocator.NUMAUnaligned) // 36 MiB are left on each
	})
}

// TestInitContainers: what a regular init container held passes to the others,
// so that its node may list less of it, or nothing.
func TestInitContainers(t *testing.T) {
	p := on("n1", pod("p", "2", 2))
	setup := *p.Spec.Containers[0].DeepCopy()
	setup.Name = "setup"
	p.Spec.InitContainers = []v1.Container{setup}
	inCluster(t, ledger.Policy{}, []runtime.Object{two.node(t, "n1"), acknowledged(t, p, 1, []int{4, 5}, 2)}, func(t *testing.T, c *cluster) {
		c.want("n1", pod("w", "4", 4), allocator.Admitted) // on NUMA node 0, which is empty
		always := v1.ContainerRestartPolicyAlways
		sidecar := p.DeepCopy()
		sidecar.Spec.InitContainers[0].RestartPolicy = &always
		c.put(acknowledged(t, sidecar, 1, []int{4, 5}, 2)) // a sidecar keeps what it has: 4 VFs in all
		c.want("n1", pod("w", "4", 4), allocator.InsufficientDevices)
	})
}

// TestNobodyToWaitFor: pods that hold nothing on a node will never be
// acknowledged there. However many there are, of however many shapes, they
// must not keep the node in flux.
func TestNobodyToWaitFor(t *testing.T) {
	objects := []runtime.Object{two.node(t, "n1")}
	for _, cpu := range []string{"100m", "200m", "300m", "400m", "500m", "600m", "700m", "800m", "900m", "1100m", "1200m"} {
		objects = append(objects, on("n1", pod("p"+cpu, cpu, 0)))
	}
	inCluster(t, ledger.Policy{}, objects, func(t *testing.T, c *cluster) {
		c.want("n1", pod("w", "4", 4), allocator.Admitted)
	})
}

// TestAnyOrder: a pod on its way may reach the kubelet after the one that is
// asked for. Here it takes the CPUs beside the only VF if it comes first.
func TestAnyOrder(t *testing.T) {
	m := machine{cores: []int{4, 3}, vfs: []int{1, 0}}
	inCluster(t, ledger.Policy{}, []runtime.Object{m.node(t, "n1"), on("n1", pod("b", "2", 1))}, func(t *testing.T, c *cluster) {
		wide := pod("a", "3", 0)
		c.want("n1", wide, allocator.NUMAUnaligned)
		c.put(acknowledged(t, on("n1", pod("b", "2", 1)), 0, []int{0, 1}, 1))
		c.want("n1", wide, allocator.Admitted)
	})
}

func TestScore(t *testing.T) {
	objects := []runtime.Object{two.node(t, "n1"), two.node(t, "n2"), on("n2", pod("p", "2", 2)), &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "bare"}}}
	inCluster(t, ledger.Policy{}, objects, func(t *testing.T, c *cluster) {
		p := pod("q", "2", 2)
		r := allocator.NewRequest(p)
		empty, half := c.Score("n1", p.UID, r, 100), c.Score("n2", p.UID, r, 100)
		if empty >= half || half != 100 {
			t.Errorf("an empty node scores %d and one that is filled up %d, want less and 100", empty, half)
		}
		if bare := c.Score("bare", p.UID, r, 100); bare != 0 {
			t.Errorf("a node that publishes nothing scores %d, want 0", bare)
		}
		// Its own promise is not counted against a pod.
		if own := c.Score("n2", "uid-p", r, 100); own != empty {
			t.Errorf("the pod on n2 scores %d there, want %d", own, empty)
		}
	})
}

func TestMetricsLint(t *testing.T) {
	inCluster(t, ledger.Policy{}, []runtime.Object{two.node(t, "n1")}, func(t *testing.T, c *cluster) {
		problems, err := testutil.GatherAndLint(c.reg)
		if err != nil || len(problems) > 0 {
			t.Errorf("lint: %v %v", problems, err)
		}
		if got := c.metric("numalane_ledger_nodes", "known"); got != 1 {
			t.Errorf("known nodes: %v, want 1", got)
		}
	})
}

// TestKubeletAway: a node whose kubelet does not listen gets no pods; those that it
// has count.
func TestKubeletAway(t *testing.T) {
	m := two
	m.edit = func(t *topology.NodeTopology, _ *topology.NodePools) { t.Away = true }
	inCluster(t, ledger.Policy{AdmitAbsent: true, AdmitUnreadable: true}, []runtime.Object{m.node(t, "n1"), on("n1", pod("p", "2", 3))}, func(t *testing.T, c *cluster) {
		c.want("n1", pod("q", "1", 1), allocator.KubeletAway)
		c.want("n1", pod("w", "1", 3), allocator.NUMAUnaligned)
		c.put(two.node(t, "n1"))
		c.want("n1", pod("q", "1", 1), allocator.Admitted)
	})
}

// TestStale: a node that does not say what a pod holds is refused after a while,
// where that is the policy.
func TestStale(t *testing.T) {
	for _, refuse := range []bool{false, true} {
		inCluster(t, ledger.Policy{RefuseStale: refuse}, []runtime.Object{two.node(t, "n1"), on("n1", pod("p", "1", 1))}, func(t *testing.T, c *cluster) {
			q := pod("q", "1", 1)
			c.want("n1", q, allocator.Admitted)
			time.Sleep(time.Minute)
			want := allocator.Admitted
			if refuse {
				want = allocator.StaleState
			}
			c.want("n1", q, want)
			c.put(acknowledged(t, on("n1", pod("p", "1", 1)), 0, []int{0}, 1))
			c.want("n1", q, allocator.Admitted)
		})
	}
}
