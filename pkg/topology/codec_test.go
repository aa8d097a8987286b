package topology_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/numalane/numalane/pkg/topology"
)

// full are the documents of a node of the size that the contract limits: 512
// CPUs on 8 NUMA nodes, 8 PFs with 256 VFs.
func full() (topology.NodeTopology, topology.NodePools) {
	t := topology.NodeTopology{
		Version: topology.ContractVersion,
		Kubelet: topology.Kubelet{
			Minor: 37, FeatureGates: []string{"InPlacePodVerticalScalingExclusiveCPUs", "PodLevelResourceManagers"},
			TopologyPolicy: topology.PolicySingleNUMANode, TopologyScope: topology.ScopePod,
			TopologyOpts: map[string]string{"max-allowable-numa-nodes": "8", "prefer-closest-numa-nodes": "true"},
			CPUPolicy:    topology.CPUManagerStatic, CPUOpts: map[string]string{"full-pcpus-only": "true", "prefer-align-cpus-by-uncorecache": "true"},
			MemoryPolicy: topology.MemoryManagerStatic,
		},
	}
	p := topology.NodePools{Version: topology.ContractVersion, Pools: []topology.Pool{{Resource: "numalane.io/sriov_netdevice", AllocationPolicy: "packed"}}}
	const nodes, cores = 8, 32
	for n := range nodes {
		node := topology.NodeNUMA{
			ID: n, Reserved: topology.NewCPUSet(n*cores, n*cores+nodes*cores), Distances: map[int]int{},
			Memory: []topology.Memory{
				{Type: "hugepages-1Gi", Allocatable: 16 << 30},
				{Type: "hugepages-2Mi", Allocatable: 1 << 30},
				{Type: "memory", Allocatable: 135288770560, Reserved: 1181116006},
			},
		}
		for d := range nodes {
			node.Distances[d] = 32 - 22*map[bool]int{true: 1}[d == n]
		}
		for g := range 4 { // L3 caches
			group := topology.CoreGroup{Socket: n / 4, Cache: n*4 + g}
			for c := range cores / 4 {
				first := n*cores + g*cores/4 + c
				group.CPUs = append(group.CPUs, topology.NewCPUSet(first, first+nodes*cores))
			}
			node.Cores = append(node.Cores, group)
		}
		t.NUMANodes = append(t.NUMANodes, node)
		pf := topology.Address{Bus: uint8(0x11 + 2*n)}
		group := topology.Group{
			NUMANodes: []int{n}, PF: pf.String(), PFName: fmt.Sprintf("enp%ds0f0np0", pf.Bus), Speed: 100000, Link: "up",
			Upstream: []string{fmt.Sprintf("0000:%02x:00.0", pf.Bus-1), fmt.Sprintf("0000:%02x:01.0", 0x10*n), fmt.Sprintf("0000:%02x:00.0", 0x10*n)},
			Total:    32, Healthy: 0, Free: 0,
		}
		for vf := range 32 { // the longest form: all are unhealthy
			group.Unhealthy = append(group.Unhealthy, topology.Address{Bus: pf.Bus, Device: uint8(1 + vf/8), Function: uint8(vf % 8)}.String())
		}
		p.Pools[0].Groups = append(p.Pools[0].Groups, group)
	}
	return t, p
}

func pod() topology.Allocation {
	return topology.Allocation{Version: topology.ContractVersion, UID: "3f1c0f0e-7d4b-4c55-9d0a-0b8f8b6f2f11", Containers: []topology.ContainerAllocation{
		{
			Name: "cnf", CPUs: map[int]topology.CPUSet{1: topology.NewCPUSet(4, 5, 6, 7, 36, 37, 38, 39)},
			Memory: []topology.MemoryAllocation{
				{Type: "hugepages-1Gi", NUMANodes: []int{1}, Size: 4 << 30}, {Type: "memory", NUMANodes: []int{1}, Size: 8 << 30},
			},
			Devices: []topology.DeviceAllocation{
				{Resource: "numalane.io/sriov_netdevice", NUMANodes: []int{1}, PF: "0000:3b:00.0", IDs: []string{"0000:3b:02.1", "0000:3b:02.2"}},
				{Resource: "numalane.io/sriov_vfio", NUMANodes: []int{1}, PF: "0000:3b:00.1", IDs: []string{"0000:3b:0a.1", "0000:3b:0a.2"}},
			},
		},
		{Name: "istio-proxy", CPUs: map[int]topology.CPUSet{1: topology.NewCPUSet(8, 40)}},
	}}
}

func TestRoundTrip(t *testing.T) {
	nodeTopology, pools := full()
	pools.Unowned = []topology.Allocation{pod()}
	roundTrip(t, nodeTopology)
	roundTrip(t, pools)
	roundTrip(t, pod())
	roundTrip(t, topology.NodeTopology{Version: 1, Inexact: "cpu_manager_state has an unknown format"})
}

func roundTrip[T topology.Document](t *testing.T, want T) {
	t.Helper()
	s, err := topology.Encode(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := topology.Decode[T](s)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if again, err := topology.Encode(got); err != nil || again != s {
		t.Errorf("other bytes the second time: %v\n%s\n%s", err, s, again)
	}
}

// TestSameStateSameBytes shuffles every list that has no order of its own.
func TestSameStateSameBytes(t *testing.T) {
	wantTopology, wantPools, wantPod := encodeAll(t, func(int, func(int, int)) {})
	for seed := range uint64(50) {
		gotTopology, gotPools, gotPod := encodeAll(t, rand.New(rand.NewPCG(seed, 1)).Shuffle)
		for _, diff := range []string{cmp.Diff(wantTopology, gotTopology), cmp.Diff(wantPools, gotPools), cmp.Diff(wantPod, gotPod)} {
			if diff != "" {
				t.Fatalf("seed %d:\n%s", seed, diff)
			}
		}
	}
}

func encodeAll(t *testing.T, shuffle func(int, func(int, int))) (string, string, string) {
	t.Helper()
	nodeTopology, pools := full()
	other := pools.Pools[0]
	other.Resource = "example.com/gpu"
	pools.Pools = append(pools.Pools, other)
	one, two := pod(), pod()
	two.UID = "another"
	pools.Unowned = []topology.Allocation{one, two}
	mix(shuffle, nodeTopology.Kubelet.FeatureGates)
	mix(shuffle, nodeTopology.NUMANodes)
	for _, n := range nodeTopology.NUMANodes {
		mix(shuffle, n.Memory)
	}
	mix(shuffle, pools.Pools)
	mix(shuffle, pools.Unowned)
	for _, p := range pools.Pools {
		mix(shuffle, p.Groups)
		for _, g := range p.Groups {
			mix(shuffle, g.Unhealthy)
		}
	}
	allocation := pod()
	mix(shuffle, allocation.Containers)
	for _, c := range allocation.Containers {
		mix(shuffle, c.Memory)
		mix(shuffle, c.Devices)
		for _, d := range c.Devices {
			mix(shuffle, d.IDs)
		}
	}
	var out []string
	for _, encode := range []func() (string, error){
		func() (string, error) { return topology.Encode(nodeTopology) },
		func() (string, error) { return topology.Encode(pools) },
		func() (string, error) { return topology.Encode(allocation) },
	} {
		s, err := encode()
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, s)
	}
	return out[0], out[1], out[2]
}

func mix[E any](shuffle func(int, func(int, int)), s []E) {
	shuffle(len(s), func(i, j int) { s[i], s[j] = s[j], s[i] })
}

// TestEncodeLeavesItsArgument holds that canonical order is that of a copy.
func TestEncodeLeavesItsArgument(t *testing.T) {
	a := pod()
	mix(rand.New(rand.NewPCG(3, 1)).Shuffle, a.Containers)
	a.Containers[0].Devices = []topology.DeviceAllocation{{Resource: "b", IDs: []string{"2", "1"}}, {Resource: "a"}}
	if _, err := topology.Encode(a); err != nil {
		t.Fatal(err)
	}
	want := []topology.DeviceAllocation{{Resource: "b", IDs: []string{"2", "1"}}, {Resource: "a"}}
	if diff := cmp.Diff(want, a.Containers[0].Devices); diff != "" {
		t.Errorf("(-before +after):\n%s", diff)
	}
}

// TestSizes holds the limits that DESIGN sets: 32 KiB on a Node, 1 KiB on a pod.
func TestSizes(t *testing.T) {
	nodeTopology, pools := full()
	a, err := topology.Encode(nodeTopology)
	if err != nil {
		t.Fatal(err)
	}
	b, err := topology.Encode(pools)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(a) + len(b); n > 32<<10 {
		t.Errorf("a Node's annotations are %d + %d bytes, more than 32 KiB", len(a), len(b))
	}
	c, err := topology.Encode(pod())
	if err != nil {
		t.Fatal(err)
	}
	if len(c) > 1<<10 {
		t.Errorf("a pod's annotation is %d bytes, more than 1 KiB", len(c))
	}
}

func TestNewerVersion(t *testing.T) {
	// A newer format may hold anything else, and is not read.
	_, err := topology.Decode[topology.NodePools](`{"version":2,"pools":"gone","extra":{}}`)
	if !errors.Is(err, topology.ErrNewerVersion) || !strings.Contains(err.Error(), "version 2") {
		t.Errorf("version 2: %v", err)
	}
	// Within a version, fields are added.
	p, err := topology.Decode[topology.NodePools](`{"version":1,"pools":[{"resource":"a/b","groups":null,"colour":"red"}],"more":1}`)
	if err != nil || len(p.Pools) != 1 || p.Pools[0].Resource != "a/b" {
		t.Errorf("with unknown fields: %+v, %v", p, err)
	}
}

func TestDecodeRefuses(t *testing.T) {
	tests := []struct {
		doc  string
		want []string
		as   func(string) error
	}{
		{"", []string{"decode"}, asTopology},
		{"null", []string{"no version"}, asTopology},
		{"[]", []string{"decode"}, asTopology},
		{`{}`, []string{"no version"}, asTopology},
		{`{"version":-1}`, []string{"no version"}, asTopology},
		{`{"version":"1"}`, []string{"decode"}, asTopology},
		{`{"version":1} trailing`, []string{"decode"}, asTopology},
		{`{"version":1,"numaNodes":[{"id":0,"reserved":"0-99999999"}]}`, []string{"more than 65536 CPUs"}, asTopology},
		{
			`{"version":1,"numaNodes":[{"id":-1},{"id":2},{"id":2}]}`,
			[]string{"NUMA node -1 is negative", "NUMA node 2 is negative or listed twice"},
			asTopology,
		},
		{
			`{"version":1,"numaNodes":[{"id":0,"reserved":"0-1","cores":[{"socket":0,"cache":0,"cpus":["0,2"]}]}]}`,
			[]string{"NUMA node 0 reserves CPUs 1 that it does not have"},
			asTopology,
		},
		{
			`{"version":1,"numaNodes":[{"id":0,"cores":[{"cpus":["0","0"]}]},{"id":1,"cores":[{"cpus":["0"]}]}]}`,
			[]string{"CPU 0 is listed twice, in NUMA nodes 0 and 0", "CPU 0 is listed twice, in NUMA nodes 0 and 1"},
			asTopology,
		},
		{
			`{"version":1,"pools":[{"resource":""},{"resource":"a"},{"resource":"a"}]}`,
			[]string{`pool "" has no name`, `pool "a" has no name or is listed twice`},
			asPools,
		},
		{
			`{"version":1,"pools":[{"resource":"a","groups":[{"numaNodes":[-1],"total":4,"healthy":5,"free":6,"unhealthy":["x"]}]}]}`,
			[]string{"6 free, 5 healthy, 4 in all", "1 unhealthy ids", "NUMA node -1"},
			asPools,
		},
		{`{"version":1,"pools":[],"unowned":[{"version":1,"uid":"","containers":null}]}`, []string{"no pod UID"}, asPools},
		{
			`{"version":1,"containers":[{"name":"a"},{"name":"a"},{"name":""}]}`,
			[]string{"no pod UID", `container "a" has no name or is listed twice`, `container "" has no name`},
			asAllocation,
		},
	}
	for _, tt := range tests {
		err := tt.as(tt.doc)
		if err == nil {
			t.Errorf("%s: no error", tt.doc)
			continue
		}
		for _, want := range tt.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v\nwant %q in it", tt.doc, err, want)
			}
		}
	}
}

func asTopology(s string) error   { return second(topology.Decode[topology.NodeTopology](s)) }
func asPools(s string) error      { return second(topology.Decode[topology.NodePools](s)) }
func asAllocation(s string) error { return second(topology.Decode[topology.Allocation](s)) }

func second[T any](_ T, err error) error { return err }

// FuzzDecode: whatever an annotation holds, it is refused or it is a document
// that survives its own encoding.
func FuzzDecode(f *testing.F) {
	nodeTopology, pools := full()
	nodeTopology.NUMANodes = nodeTopology.NUMANodes[:1]
	pools.Pools[0].Groups = pools.Pools[0].Groups[:1]
	for _, encode := range []func() (string, error){
		func() (string, error) { return topology.Encode(nodeTopology) },
		func() (string, error) { return topology.Encode(pools) },
		func() (string, error) { return topology.Encode(pod()) },
	} {
		s, err := encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(s)
	}
	f.Add(`{"version":1,"numaNodes":[{"id":0,"cores":null,"reserved":"0-2000000000"}]}`)
	f.Add(`{"version":2}`)
	f.Fuzz(func(t *testing.T, s string) {
		survives[topology.NodeTopology](t, s)
		survives[topology.NodePools](t, s)
		survives[topology.Allocation](t, s)
	})
}

func survives[T topology.Document](t *testing.T, s string) {
	doc, err := topology.Decode[T](s)
	if err != nil {
		return
	}
	once, err := topology.Encode(doc)
	if err != nil {
		t.Fatalf("%q decodes and does not encode: %v", s, err)
	}
	again, err := topology.Decode[T](once)
	if err != nil {
		t.Fatalf("%q decodes, its encoding %q does not: %v", s, once, err)
	}
	if twice, err := topology.Encode(again); err != nil || twice != once {
		t.Fatalf("%q then %q (%v)", once, twice, err)
	}
}
