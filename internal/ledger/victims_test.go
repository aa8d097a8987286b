package ledger_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/numalane/numalane/internal/ledger"
	"github.com/numalane/numalane/pkg/allocator"
)

func ofPriority(prio int32, p *v1.Pod) *v1.Pod {
	p.Spec.Priority = &prio
	return p
}

// TestEvictable: of a node's pods those that hold something, are not static and
// are less important; with what an eviction depends on.
func TestEvictable(t *testing.T) {
	static := on("n1", ofPriority(1, pod("static", "1", 1)))
	static.Annotations = map[string]string{v1.MirrorPodAnnotationKey: "x"}
	aloof := on("n1", ofPriority(1, pod("aloof", "1", 1)))
	aloof.Spec.Overhead = v1.ResourceList{v1.ResourceCPU: resource.MustParse("100m")}
	aloof.Spec.Affinity = &v1.Affinity{
		NodeAffinity:    &v1.NodeAffinity{},
		PodAntiAffinity: &v1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []v1.PodAffinityTerm{{TopologyKey: "k"}}},
	}
	web := on("n1", ofPriority(1, pod("web", "500m", 0)))
	web.Status.QOSClass, web.Spec.Containers[0].Resources.Limits = v1.PodQOSBurstable, nil
	objects := []runtime.Object{
		two.node(t, "n1"), static, aloof, web,
		on("n1", pod("none", "1", 1)), on("n1", ofPriority(9, pod("nine", "1", 1))), on("n1", ofPriority(10, pod("ten", "1", 1))),
		on("n2", ofPriority(1, pod("elsewhere", "1", 1))),
	}
	inCluster(t, ledger.Policy{}, objects, func(t *testing.T, c *cluster) {
		got := map[string]*v1.Pod{}
		var names []string
		for _, p := range c.Evictable("n1", 10) {
			got[p.Name] = p
			names = append(names, p.Name)
		}
		slices.Sort(names)
		if d := cmp.Diff([]string{"aloof", "nine", "none"}, names); d != "" {
			t.Fatalf("below 10, -want +got:\n%s", d)
		}
		if p := got["aloof"]; !p.Spec.Overhead.Cpu().Equal(resource.MustParse("100m")) || p.Spec.Affinity == nil || p.Spec.Affinity.PodAntiAffinity == nil {
			t.Errorf("of aloof is known %+v", p.Spec)
		}
		if pods := c.Evictable("nowhere", 10); len(pods) > 0 {
			t.Errorf("on a node that nobody knows: %v", pods)
		}
	})
}

// TestAdmitWithout: the room of those that leave counts as free, and nothing
// else changes.
func TestAdmitWithout(t *testing.T) {
	a, b := on("n1", pod("a", "2", 2)), on("n1", pod("b", "2", 2))
	objects := []runtime.Object{two.node(t, "n1"), acknowledged(t, a, 0, []int{0, 1}, 2), acknowledged(t, b, 1, []int{4, 5}, 2)}
	inCluster(t, ledger.Policy{}, objects, func(t *testing.T, c *cluster) {
		p := pod("p", "3", 1)
		r := allocator.NewRequest(p)
		for _, tt := range []struct {
			leaving []types.UID
			want    allocator.Reason
		}{
			{nil, allocator.NUMAUnaligned},
			{[]types.UID{a.UID}, allocator.Admitted},
			{[]types.UID{b.UID}, allocator.Admitted},
			{[]types.UID{"uid-other"}, allocator.NUMAUnaligned},
		} {
			if got := c.AdmitWithout("n1", p.UID, r, tt.leaving).Reason; got != tt.want {
				t.Errorf("without %v: %s, want %s", tt.leaving, got.Code(), tt.want.Code())
			}
		}
		if got := c.AdmitWithout("nowhere", p.UID, r, nil).Reason; got != allocator.NoState {
			t.Errorf("on a node that nobody knows: %s", got.Code())
		}
		c.want("n1", p, allocator.NUMAUnaligned)
	})
}
