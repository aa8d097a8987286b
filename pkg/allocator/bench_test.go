package allocator

import (
	"fmt"
	"testing"

	v1 "k8s.io/api/core/v1"

	"github.com/numalane/numalane/pkg/topology"
)

// BenchmarkAdmit: the design allows 1 µs on 2 NUMA nodes under
// single-numa-node with nothing on the heap, and 50 µs on 8 NUMA nodes with 6
// resources under restricted.
func BenchmarkAdmit(b *testing.B) {
	for _, policy := range []string{topology.PolicySingleNUMANode, topology.PolicyRestricted, topology.PolicyBestEffort} {
		for _, numa := range []int{2, 4, 8} {
			for _, resources := range []int{2, 6} {
				b.Run(fmt.Sprintf("policy=%s/numa=%d/resources=%d", policy, numa, resources), func(b *testing.B) {
					n, r := benchCase(b, policy, numa, resources, "4")
					b.ReportAllocs()
					for b.Loop() {
						if !n.Admit(r).OK() {
							b.Fatal("refused")
						}
					}
				})
			}
		}
	}
}

// BenchmarkAdmitWide asks for more CPUs than a NUMA node has, which makes
// best-effort look for the intersections of all hints.
func BenchmarkAdmitWide(b *testing.B) {
	n, r := benchCase(b, topology.PolicyBestEffort, 8, 6, "40")
	b.ReportAllocs()
	for b.Loop() {
		if !n.Admit(r).OK() {
			b.Fatal("refused")
		}
	}
}

// BenchmarkOutcomes places a pod of an init container and two others, thread by thread.
func BenchmarkOutcomes(b *testing.B) {
	for _, numa := range []int{2, 8} {
		b.Run(fmt.Sprintf("numa=%d", numa), func(b *testing.B) {
			m := machine{threads: 2}
			for range numa {
				m.cores, m.vfs = append(m.cores, 32), append(m.vfs, 8)
			}
			n := compile(b, m.state())
			r := NewRequest(podOf(asks{cpu: "2", init: true}, asks{cpu: "4", vf: 2}, asks{cpu: "6", vf: 1}))
			b.ReportAllocs()
			for b.Loop() {
				if o, _ := n.Outcomes(r, 1); !o[0].Verdict.OK() {
					b.Fatal("refused")
				}
			}
		})
	}
}

// BenchmarkPrefer chooses 8 of 256 VFs of 8 PFs, on all NUMA nodes or one: the
// kubelet waits for it.
func BenchmarkPrefer(b *testing.B) {
	for _, policy := range []Policy{PolicyPacked, PolicySpread, PolicyPaired} {
		for _, numa := range []int{1, 8} {
			b.Run(fmt.Sprintf("policy=%s/numa=%d", policy, numa), func(b *testing.B) {
				told := map[int]map[int]int{}
				var pool []Device
				for i := range 8 {
					told[i] = map[int]int{}
					for j := range 8 {
						told[i][j] = 10 + 11*min(1, i^j)
					}
					pf := fmt.Sprint("pf", i)
					for vf := range 32 {
						pool = append(pool, Device{ID: fmt.Sprint(pf, ".", vf), NUMANodes: []int{i % numa}, PF: pf, Upstream: []string{"port" + pf, "root"}})
					}
				}
				distances := NewDistances(told)
				b.ReportAllocs()
				for b.Loop() {
					if got := Prefer(policy, distances, pool, nil, 8); len(got) != 8 {
						b.Fatal(got)
					}
				}
			})
		}
	}
}

// BenchmarkAdmitPreferred admits a pod of two containers, so that devices of the
// first are chosen one by one.
func BenchmarkAdmitPreferred(b *testing.B) {
	for _, topologyPolicy := range []string{topology.PolicySingleNUMANode, topology.PolicyRestricted, topology.PolicyNone} {
		for _, policy := range []Policy{PolicyPacked, PolicySpread, PolicyPaired} {
			b.Run(fmt.Sprintf("policy=%s/devices=%s", topologyPolicy, policy), func(b *testing.B) {
				m := machine{policy: topologyPolicy}
				for range 2 {
					m.cores, m.vfs = append(m.cores, 32), append(m.vfs, 8)
				}
				s := m.state()
				s.Pools.Pools[0].AllocationPolicy = string(policy)
				n, r := compile(b, s), NewRequest(podOf(asks{vf: 4}, asks{vf: 1}))
				b.ReportAllocs()
				for b.Loop() {
					if !n.Admit(r).OK() {
						b.Fatal("refused")
					}
				}
			})
		}
	}
}

// benchCase is a node with a pool for each resource beyond the CPUs, and a pod
// that asks for all of them.
func benchCase(b *testing.B, policy string, numa, resources int, cpus string) (*Node, *Request) {
	m := machine{policy: policy}
	for range numa {
		m.cores, m.vfs = append(m.cores, 32), append(m.vfs, 8)
	}
	s := m.state()
	pod := podOf(asks{cpu: cpus, vf: 2})
	for i := 2; i < resources; i++ {
		p := s.Pools.Pools[0]
		p.Resource = fmt.Sprint("numalane.io/vf", i)
		s.Pools.Pools = append(s.Pools.Pools, p)
		limits := pod.Spec.Containers[0].Resources.Limits
		limits[v1.ResourceName(p.Resource)] = limits["numalane.io/vf"]
	}
	return compile(b, s), NewRequest(pod)
}
