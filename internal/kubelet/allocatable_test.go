package kubelet_test

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func (k *fakeKubelet) times() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.asked
}

// While a kubelet admits pods it is read many times a second, and PodResources
// is not asked as often; but a device that came or went is seen at once.
func TestAllocatableIsNotAskedForEachReading(t *testing.T) {
	n := newNode(t, "v1.37")
	n.read(t, input())
	began := n.kubelet.times()
	for range 5 {
		n.read(t, input())
	}
	if got := n.kubelet.times() - began; got > 1 {
		t.Errorf("asked %d times for 5 readings at once", got)
	}

	n.kubelet.mu.Lock()
	n.kubelet.allocatable.Devices = n.kubelet.allocatable.Devices[:1]
	n.kubelet.mu.Unlock()
	file := fixture(t, "v1.37", "kubelet_internal_checkpoint")
	n.write(t, "device-plugins/kubelet_internal_checkpoint", bytes.Replace(file, []byte(`"vendor.example/fuse":["fuse-0"]`), []byte(`"vendor.example/fuse":[]`), 1))
	var resources []string
	for _, p := range n.read(t, input()).Pools.Pools {
		for _, g := range p.Groups {
			if p.Foreign && g.Free > 0 {
				resources = append(resources, p.Resource)
			}
		}
	}
	if d := cmp.Diff([]string(nil), resources); d != "" {
		t.Errorf("other vendors' devices, which have gone: %s", d)
	}
}

// BenchmarkRead is one reading of a kubelet that admits pods.
func BenchmarkRead(b *testing.B) {
	n := newNode(b, "v1.37")
	in := input()
	for b.Loop() {
		if _, err := n.reader.Read(b.Context(), in); err != nil {
			b.Fatal(err)
		}
	}
}
