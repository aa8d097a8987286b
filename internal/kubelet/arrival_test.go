package kubelet_test

import (
	"testing"
	"time"

	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"

	"github.com/numalane/numalane/internal/kubelet"
)

// TestAway: a kubelet that has started is away until it lists every live pod that
// the API has on the node.
func TestAway(t *testing.T) {
	list := func(names ...string) *podresources.ListPodResourcesResponse {
		out := &podresources.ListPodResourcesResponse{}
		for _, name := range names {
			out.PodResources = append(out.PodResources, &podresources.PodResources{Namespace: "lane", Name: name})
		}
		return out
	}
	in := input()
	in.Pods = append(in.Pods[:3:3], kubelet.Pod{UID: "over", Namespace: "lane", Name: "over", Ended: true})
	n := newNode(t, "v1.37", func(o *kubelet.Options) { o.Steady = time.Millisecond })
	set := func(l *podresources.ListPodResourcesResponse) {
		n.kubelet.mu.Lock()
		defer n.kubelet.mu.Unlock()
		n.kubelet.list = l
	}
	set(list("cnf", "gpu"))
	if !n.read(t, in).Topology.Away {
		t.Error("one pod is not listed, and the kubelet counts as there")
	}
	set(list("cnf", "gpu", "whole"))
	if n.read(t, in).Topology.Away {
		t.Error("all are listed by a kubelet that nobody saw starting, and it counts as away")
	}
	n.reader.Lost()
	changed := n.reader.Changed()
	if !n.read(t, in).Topology.Away {
		t.Error("all are listed for the first time by a kubelet that has just started, and it counts as there")
	}
	for n.read(t, in).Topology.Away {
		<-changed // it looks again by itself
	}
	set(nil)
	n.reader.Lost()
	if !n.read(t, in).Topology.Away {
		t.Error("nothing is listed, and the kubelet counts as there")
	}
}
