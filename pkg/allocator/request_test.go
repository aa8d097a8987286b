package allocator

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// TestShape: pods of one shape are answered alike by every node, so whatever an
// admission depends on is in it, and nothing else.
func TestShape(t *testing.T) {
	base := func() *v1.Pod { return podOf(asks{cpu: "2", vf: 1, gpu: 1, mem: "1Gi"}, asks{cpu: "1"}) }
	tests := []struct {
		name   string
		change func(*v1.Pod)
		same   bool
	}{
		{"names", func(p *v1.Pod) { p.Name, p.UID, p.Spec.Containers[0].Name = "other", "other", "other" }, true},
		{"image", func(p *v1.Pod) { p.Spec.Containers[0].Image = "other" }, true},
		{"another number of CPUs", func(p *v1.Pod) { *p = *podOf(asks{cpu: "3", vf: 1, gpu: 1, mem: "1Gi"}, asks{cpu: "1"}) }, false},
		{"the same CPUs in other containers", func(p *v1.Pod) { *p = *podOf(asks{cpu: "1", vf: 1, gpu: 1, mem: "1Gi"}, asks{cpu: "2"}) }, false},
		{"another number of VFs", func(p *v1.Pod) { *p = *podOf(asks{cpu: "2", vf: 2, gpu: 1, mem: "1Gi"}, asks{cpu: "1"}) }, false},
		{"more memory", func(p *v1.Pod) { *p = *podOf(asks{cpu: "2", vf: 1, gpu: 1, mem: "2Gi"}, asks{cpu: "1"}) }, false},
		{"an init container", func(p *v1.Pod) { *p = *podOf(asks{cpu: "2", vf: 1, gpu: 1, mem: "1Gi", init: true}, asks{cpu: "1"}) }, false},
		{"a sidecar", func(p *v1.Pod) { *p = *podOf(asks{cpu: "2", vf: 1, gpu: 1, mem: "1Gi", side: true}, asks{cpu: "1"}) }, false},
		{"only the totals", func(p *v1.Pod) {
			p.Spec.Overhead = v1.ResourceList{v1.ResourceCPU: resource.MustParse("100m")}
		}, false},
	}
	for _, tt := range tests {
		p := base()
		tt.change(p)
		for range 20 { // maps have no order
			if same := NewRequest(p).Shape() == NewRequest(base()).Shape(); same != tt.same {
				t.Fatalf("%s: the same shape is %t, want %t", tt.name, same, tt.same)
			}
		}
	}
}
