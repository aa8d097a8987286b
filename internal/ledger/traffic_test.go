package ledger_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"github.com/numalane/numalane/internal/ledger"
	"github.com/numalane/numalane/pkg/allocator"
	"github.com/numalane/numalane/pkg/topology"
)

// lopsided has 4 and 3 CPUs to give, and one VF beside the 4.
var lopsided = machine{cores: []int{4, 4}, vfs: []int{1, 0}, edit: func(t *topology.NodeTopology, _ *topology.NodePools) {
	t.NUMANodes[1].Reserved = topology.NewCPUSet(7)
}}

// TestEndedMayHaveBeenMet: a pod on its way may have met one that has ended
// since, and sits elsewhere than it would now. That counts until it is acknowledged.
func TestEndedMayHaveBeenMet(t *testing.T) {
	for _, how := range []string{"deleted", "succeeded"} {
		t.Run(how, func(t *testing.T) {
			old := acknowledged(t, on("n1", pod("old", "2", 0)), 0, []int{0, 1}, 0)
			inCluster(t, ledger.Policy{}, []runtime.Object{lopsided.node(t, "n1"), old}, func(t *testing.T, c *cluster) {
				wide := on("n1", pod("wide", "3", 0))
				c.put(wide) // with old there, on NUMA node 1
				lane := pod("lane", "2", 1)
				c.want("n1", lane, allocator.Admitted)
				if how == "deleted" {
					c.deletePod("old")
				} else {
					old.Status.Phase = v1.PodSucceeded
					c.put(old)
				}
				c.want("n1", lane, allocator.NUMAUnaligned) // wide may have come after old
				c.put(acknowledged(t, wide, 1, []int{4, 5, 6}, 0))
				c.want("n1", lane, allocator.Admitted)
				if got := c.total("numalane_ledger_mispredictions_total"); got != 0 {
					t.Errorf("%v mispredictions, want none", got)
				}
			})
		})
	}
}

// TestLeavingMayHaveLeft: a pod that is being deleted may be gone before one that
// was promised the node comes.
func TestLeavingMayHaveLeft(t *testing.T) {
	old := acknowledged(t, on("n1", pod("old", "2", 0)), 0, []int{0, 1}, 0)
	inCluster(t, ledger.Policy{}, []runtime.Object{lopsided.node(t, "n1"), old, on("n1", pod("wide", "3", 0))}, func(t *testing.T, c *cluster) {
		lane := pod("lane", "2", 1)
		c.want("n1", lane, allocator.Admitted)
		now := metav1.NewTime(born.Add(time.Hour))
		old.DeletionTimestamp, old.Finalizers = &now, []string{"example.com/hold"}
		c.put(old)
		c.want("n1", lane, allocator.NUMAUnaligned)
	})
}

// TestMisprediction: a pod that holds what no order of events explains is counted.
func TestMisprediction(t *testing.T) {
	tests := []struct {
		name  string
		numa  int
		cpus  []int
		wrong float64
	}{
		{"as foretold", 0, []int{0, 1, 2}, 0},
		{"on another NUMA node", 1, []int{4, 5, 6}, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := pod("p", "3", 0)
			inCluster(t, ledger.Policy{}, []runtime.Object{lopsided.node(t, "n1"), p}, func(t *testing.T, c *cluster) {
				if err := c.bind(p, "n1"); err != nil {
					t.Fatal(err)
				}
				c.put(acknowledged(t, on("n1", p), tt.numa, tt.cpus, 0))
				if got := c.total("numalane_ledger_mispredictions_total"); got != tt.wrong {
					t.Errorf("%v mispredictions, want %v", got, tt.wrong)
				}
				if got := c.total("numalane_ledger_bind_to_acknowledged_seconds"); got != 1 {
					t.Errorf("%v acknowledgements timed, want 1", got)
				}
			})
		})
	}
}

// TestOvertaken: the kubelet knows of an end before the API. A pod that took the
// ended one's place is told from a misprediction.
func TestOvertaken(t *testing.T) {
	old := acknowledged(t, on("n1", pod("old", "2", 0)), 0, []int{0, 1}, 0)
	p := pod("p", "3", 0)
	inCluster(t, ledger.Policy{}, []runtime.Object{lopsided.node(t, "n1"), old, p}, func(t *testing.T, c *cluster) {
		if err := c.bind(p, "n1"); err != nil {
			t.Fatal(err)
		}
		c.put(acknowledged(t, on("n1", p), 0, []int{0, 1, 2}, 0))
		if got := c.total("numalane_ledger_mispredictions_total"); got != 0 {
			t.Errorf("%v mispredictions, want none", got)
		}
		if got := c.total("numalane_ledger_overtaken_total"); got != 1 {
			t.Errorf("%v overtaken, want 1", got)
		}
		// What the two hold at once, the older one no longer holds.
		c.want("n1", pod("q", "1", 1), allocator.Admitted)
		c.want("n1", pod("q", "2", 1), allocator.NUMAUnaligned)
	})
}

// TestBindCountsTotals: pods that ask for nothing exclusive share what a node has
// in all, and so does what others have bound meanwhile.
func TestBindCountsTotals(t *testing.T) {
	n := two.node(t, "n1")
	n.Status.Allocatable = v1.ResourceList{v1.ResourceCPU: resource.MustParse("8"), v1.ResourceMemory: resource.MustParse("1Gi"), v1.ResourcePods: resource.MustParse("3"), vfs: resource.MustParse("6")}
	shared := func(name, cpu string) *v1.Pod {
		p := pod(name, cpu, 0)
		p.Spec.Containers[0].Resources.Limits = nil
		p.Status.QOSClass = v1.PodQOSBurstable
		return p
	}
	tests := []struct {
		name   string
		others []*v1.Pod
		pod    *v1.Pod
		want   string
	}{
		{"enough", []*v1.Pod{shared("a", "4500m")}, pod("p", "3", 1), ""},
		{"CPUs", []*v1.Pod{shared("a", "5500m")}, pod("p", "3", 1), "too little left"},
		{"CPUs for a pod that shares", []*v1.Pod{shared("a", "5500m")}, shared("p", "3"), "too little left"},
		{"pods", []*v1.Pod{shared("a", "1"), shared("b", "1"), shared("c", "1")}, shared("p", "1"), "too little left"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			objects := []runtime.Object{n, tt.pod}
			for _, o := range tt.others {
				objects = append(objects, on("n1", o.DeepCopy()))
			}
			inCluster(t, ledger.Policy{}, objects, func(t *testing.T, c *cluster) {
				checkError(t, c.bind(tt.pod, "n1"), tt.want)
				// One that has ended counts no more.
				c.deletePod("a")
				if tt.want != "" {
					checkError(t, c.bind(tt.pod, "n1"), "")
				}
			})
		})
	}
}

// TestCatchUp: bindings that the watch has not shown count once they were looked up.
func TestCatchUp(t *testing.T) {
	inCluster(t, ledger.Policy{}, []runtime.Object{two.node(t, "n1")}, func(t *testing.T, c *cluster) {
		c.client.PrependReactor("list", "pods", func(a clienttesting.Action) (bool, runtime.Object, error) {
			if a.(clienttesting.ListAction).GetListRestrictions().Fields.String() != "status.phase!=Failed,status.phase!=Succeeded" {
				t.Errorf("lists pods of %s", a.(clienttesting.ListAction).GetListRestrictions().Fields)
			}
			return true, &v1.PodList{Items: []v1.Pod{*on("n1", pod("late", "2", 3))}}, nil
		})
		q := pod("q", "2", 3)
		c.want("n1", q, allocator.Admitted)
		if err := c.CatchUp(t.Context()); err != nil {
			t.Fatal(err)
		}
		c.want("n1", q, allocator.NUMAUnaligned)
		c.put(acknowledged(t, on("n1", pod("late", "2", 3)), 0, []int{0, 1}, 3))
		c.deletePod("late")
		c.want("n1", q, allocator.Admitted)
	})
}

// TestCatchUpBringsNobodyBack: a pod that the watch shows to have ended while the
// list with it is on its way stays gone; and one that no watch ever shows is
// looked up.
func TestCatchUpBringsNobodyBack(t *testing.T) {
	p := acknowledged(t, on("n1", pod("p", "2", 3)), 0, []int{0, 1}, 3)
	tests := []struct {
		name  string
		while func(c *cluster)
		then  allocator.Reason // at once
	}{
		{"it ends meanwhile", func(c *cluster) {
			// Past the client, which is answering.
			if err := c.client.Tracker().Delete(podsResource, "ns", "p"); err != nil {
				c.t.Fatal(err)
			}
			synctest.Wait()
		}, allocator.Admitted},
		{"it is never seen again", func(*cluster) {}, allocator.NUMAUnaligned},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			objects := []runtime.Object{two.node(t, "n1")}
			if tt.then == allocator.Admitted {
				objects = append(objects, p)
			}
			inCluster(t, ledger.Policy{}, objects, func(t *testing.T, c *cluster) {
				c.client.PrependReactor("list", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
					tt.while(c)
					return true, &v1.PodList{Items: []v1.Pod{*p}}, nil
				})
				if err := c.CatchUp(t.Context()); err != nil {
					t.Fatal(err)
				}
				q := pod("q", "2", 3)
				c.want("n1", q, tt.then)
				time.Sleep(time.Minute)
				synctest.Wait()
				c.want("n1", q, allocator.Admitted)
			})
		})
	}
}

// TestPromiseOutlivesItsPod: a pod that is deleted while its binding's outcome is
// unknown may have been met by its kubelet.
func TestPromiseOutlivesItsPod(t *testing.T) {
	p, wide := pod("p", "2", 0), pod("wide", "3", 0)
	inCluster(t, ledger.Policy{}, []runtime.Object{lopsided.node(t, "n1"), p, wide}, func(t *testing.T, c *cluster) {
		c.client.PrependReactor("create", "pods", func(a clienttesting.Action) (bool, runtime.Object, error) {
			lost := a.GetSubresource() == "binding" && a.(clienttesting.CreateAction).GetObject().(*v1.Binding).Name == "p"
			return lost, nil, context.DeadlineExceeded
		})
		if err := c.bind(p, "n1"); err == nil {
			t.Fatal("the binding seems to have come through")
		}
		if err := c.bind(wide, "n1"); err != nil {
			t.Fatal(err)
		}
		c.deletePod("p")
		synctest.Wait()
		lane := pod("lane", "2", 1)
		c.want("n1", lane, allocator.NUMAUnaligned) // wide sits on NUMA node 0 unless it met p
		c.put(acknowledged(t, on("n1", wide), 1, []int{4, 5, 6}, 0))
		c.want("n1", lane, allocator.Admitted)
	})
}
