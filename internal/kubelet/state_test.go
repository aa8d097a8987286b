package kubelet_test

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/proto"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"

	"github.com/numalane/numalane/internal/kubelet"
	"github.com/numalane/numalane/pkg/topology"
)

// The pods of the files in testdata: cnf holds everything, from an init
// container on; gpu holds other vendors' devices; static is a static pod; gone
// is one that the API no longer has; whole has pod-level resources.
const (
	cnfUID    = "0f9b7c52-6d3e-4f0c-9a55-3c1f5f2f8a01"
	gpuUID    = "b8d4b1d8-7c43-4a55-8f2f-97c0c2f6de02"
	staticUID = "8c1d6c4b1f0e9f3a5d7b2e4c6a8f0b1d"
	goneUID   = "c3c3c3c3-0000-4000-8000-000000000003"
	wholeUID  = "d4d4d4d4-0000-4000-8000-000000000004"
)

const gi = 1 << 30

var versions = []string{"v1.34", "v1.35", "v1.36", "v1.37"}

func fixture(t testing.TB, version, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", version, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func cpus(t testing.TB, list string) topology.CPUSet {
	t.Helper()
	s, err := topology.ParseCPUSet(list)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestParseCPUState(t *testing.T) {
	for _, version := range versions {
		t.Run(version, func(t *testing.T) {
			got, err := kubelet.ParseCPUState(fixture(t, version, "cpu_manager_state"))
			if err != nil {
				t.Fatal(err)
			}
			want := kubelet.CPUState{
				Policy: "static",
				Containers: map[string]map[string]topology.CPUSet{
					cnfUID:    {"init": cpus(t, "2-3"), "cnf": cpus(t, "2-5")},
					gpuUID:    {"app": cpus(t, "10-11")},
					staticUID: {"static": cpus(t, "12")},
					goneUID:   {"gone": cpus(t, "13")},
				},
				Default: cpus(t, "0-1,6-9,14-15"),
			}
			if version >= "v1.36" {
				want.Containers[wholeUID] = map[string]topology.CPUSet{"one": cpus(t, "6"), "two": cpus(t, "7-9")}
				want.Pods = map[string]topology.CPUSet{wholeUID: cpus(t, "6-9")}
				want.Default = cpus(t, "0-1,14-15")
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestParseMemoryState(t *testing.T) {
	block := func(kind string, size uint64) topology.MemoryAllocation {
		return topology.MemoryAllocation{Type: kind, NUMANodes: []int{0}, Size: size}
	}
	for _, version := range versions {
		t.Run(version, func(t *testing.T) {
			got, err := kubelet.ParseMemoryState(fixture(t, version, "memory_manager_state"))
			if err != nil {
				t.Fatal(err)
			}
			want := kubelet.MemoryState{
				Policy: "Static",
				Machine: map[int][]topology.Memory{
					0: {{Type: "hugepages-1Gi", Allocatable: 4 * gi}, {Type: "memory", Allocatable: 63 * gi, Reserved: gi}},
					1: {{Type: "hugepages-1Gi", Allocatable: 4 * gi}, {Type: "memory", Allocatable: 64 * gi}},
				},
				Containers: map[string]map[string][]topology.MemoryAllocation{
					cnfUID: {"cnf": {block("hugepages-1Gi", 2*gi), block("memory", 4*gi)}},
				},
			}
			if version >= "v1.36" {
				want.Containers[wholeUID] = map[string][]topology.MemoryAllocation{"one": {block("memory", gi)}, "two": {block("memory", gi)}}
				want.Pods = map[string][]topology.MemoryAllocation{wholeUID: {block("memory", gi)}}
			}
			if d := cmp.Diff(want, got, cmpopts.IgnoreUnexported(got)); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestParseDeviceState(t *testing.T) {
	for _, version := range versions {
		t.Run(version, func(t *testing.T) {
			got, err := kubelet.ParseDeviceState(fixture(t, version, "kubelet_internal_checkpoint"))
			if err != nil {
				t.Fatal(err)
			}
			want := kubelet.DeviceState{Held: []kubelet.HeldDevice{
				{PodUID: cnfUID, Container: "cnf", Resource: "numalane.io/sriov", ID: "0000:3b:02.0", NUMANodes: []int{0}},
				{PodUID: cnfUID, Container: "cnf", Resource: "numalane.io/sriov", ID: "0000:3b:02.1", NUMANodes: []int{0}},
				{PodUID: cnfUID, Container: "init", Resource: "numalane.io/sriov", ID: "0000:3b:02.0", NUMANodes: []int{0}},
				{PodUID: gpuUID, Container: "app", Resource: "vendor.example/fuse", ID: "fuse-0"},
				{PodUID: gpuUID, Container: "app", Resource: "vendor.example/gpu", ID: "gpu-7", NUMANodes: []int{0, 1}},
				{PodUID: gpuUID, Container: "app", Resource: "vendor.example/gpu", ID: "gpu-8", NUMANodes: []int{1}},
				{PodUID: goneUID, Container: "gone", Resource: "numalane.io/sriov", ID: "0000:af:02.0", NUMANodes: []int{1}},
			}, Registered: []string{"numalane.io/sriov", "vendor.example/fuse", "vendor.example/gpu"}}
			if d := cmp.Diff(want, got, cmpopts.IgnoreFields(got, "Healthy")); d != "" {
				t.Error(d)
			}
			if healthy := got.Healthy["numalane.io/sriov"]; len(healthy) == 0 || !slices.IsSorted(healthy) {
				t.Errorf("healthy %v", got.Healthy)
			}
		})
	}
}

func TestParseEmptyState(t *testing.T) {
	cpu, err := kubelet.ParseCPUState([]byte(`{"policyName":"none","defaultCpuSet":"","checksum":1353318690}`))
	if d := cmp.Diff(kubelet.CPUState{Policy: "none"}, cpu); d != "" || err != nil {
		t.Error(d, err)
	}
	memory, err := kubelet.ParseMemoryState([]byte(`{"policyName":"None","machineState":{},"checksum":4236770233}`))
	if d := cmp.Diff(kubelet.MemoryState{Policy: "None"}, memory, cmpopts.IgnoreUnexported(memory)); d != "" || err != nil {
		t.Error(d, err)
	}
	devices, err := kubelet.ParseDeviceState([]byte(`{"Data":{"PodDeviceEntries":null,"RegisteredDevices":{}},"Checksum":1}`))
	if d := cmp.Diff(kubelet.DeviceState{}, devices, cmpopts.EquateEmpty()); d != "" || err != nil {
		t.Error(d, err)
	}
}

func TestParseRefuses(t *testing.T) {
	parsers := map[string]func([]byte) error{
		"cpu_manager_state":           func(b []byte) error { _, err := kubelet.ParseCPUState(b); return err },
		"memory_manager_state":        func(b []byte) error { _, err := kubelet.ParseMemoryState(b); return err },
		"kubelet_internal_checkpoint": func(b []byte) error { _, err := kubelet.ParseDeviceState(b); return err },
	}
	for name, parse := range parsers {
		whole := fixture(t, "v1.37", name)
		for what, b := range map[string][]byte{
			"empty file":       nil,
			"torn file":        whole[:len(whole)/2],
			"two writes mixed": append(append([]byte{}, whole[:len(whole)/3]...), whole...),
			"a list":           []byte("[]"),
			"another format":   []byte(`{"version":5,"state":{}}`),
		} {
			if err := parse(b); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("%s of %s: error %v, want one that names the file", name, what, err)
			}
		}
	}
	for what, b := range map[string]string{
		"CPU list":           `{"policyName":"static","defaultCpuSet":"0-","checksum":1}`,
		"container ids (V1)": `{"policyName":"static","defaultCpuSet":"0","entries":{"abc":"1"},"checksum":1}`,
		"torn data":          `{"policyName":"static","defaultCpuSet":"0","checksum":1,"data":"{\"policyName\":\"sta","dataChecksum":1}`,
		"field twice":        `{"policyName":"static","policyName":"none","checksum":1}`,
	} {
		if _, err := kubelet.ParseCPUState([]byte(b)); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}

func TestParseNamesUnknownFields(t *testing.T) {
	s, err := kubelet.ParseCPUState([]byte(`{"policyName":"static","data":"{\"policyName\":\"static\",\"splitEntries\":{},\"defaultCpuSet\":\"0\"}"}`))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"splitEntries"}, s.Unknown); d != "" {
		t.Error(d)
	}
}

func FuzzParseCPUState(f *testing.F) {
	for _, v := range versions {
		f.Add(fixture(f, v, "cpu_manager_state"))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := kubelet.ParseCPUState(b); err == nil && s.Policy == "" {
			t.Error("a state without a policy is no error")
		}
	})
}

func FuzzParseMemoryState(f *testing.F) {
	for _, v := range versions {
		f.Add(fixture(f, v, "memory_manager_state"))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := kubelet.ParseMemoryState(b)
		if err == nil && s.Policy == "" {
			t.Error("a state without a policy is no error")
		}
		for _, containers := range s.Containers {
			for _, blocks := range containers {
				for _, m := range blocks {
					if m.Size == 0 {
						t.Error("a block of no size is held")
					}
				}
			}
		}
	})
}

func TestParseGivenNodes(t *testing.T) {
	answer := func(nodes ...string) string {
		a := &pluginapi.ContainerAllocateResponse{Envs: map[string]string{"PCIDEVICE_X": "y"}}
		for _, n := range nodes {
			a.Devices = append(a.Devices, &pluginapi.DeviceSpec{HostPath: n, ContainerPath: "/dev/elsewhere", Permissions: "rw"})
		}
		b, err := proto.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		return base64.StdEncoding.EncodeToString(b)
	}
	entry := func(container, ids, answer string) string {
		return fmt.Sprintf(`{"PodUID":"u","ContainerName":%q,"ResourceName":"numalane.io/vf","DeviceIDs":%s,"AllocResp":%q}`, container, ids, answer)
	}
	checkpoint := fmt.Sprintf(`{"Data":{"PodDeviceEntries":[%s,%s,%s],"RegisteredDevices":{}},"Checksum":1}`,
		entry("a", `{"0":["0000:3b:02.1","0000:3b:02.0"]}`, answer("/dev/vfio/vfio", "/dev/vfio/13", "/dev/vfio/12")),
		entry("init", `{"0":["0000:3b:02.0"],"1":["0000:3b:02.0"]}`, answer("/dev/vfio/vfio", "/dev/vfio/12")),
		entry("b", `{"-1":["0000:00:05.0"]}`, answer()))
	got, err := kubelet.ParseGivenNodes([]byte(checkpoint))
	if err != nil {
		t.Fatal(err)
	}
	both := []string{"/dev/vfio/12", "/dev/vfio/13", "/dev/vfio/vfio"}
	if d := cmp.Diff(map[string][]string{"0000:3b:02.0": both, "0000:3b:02.1": both}, got); d != "" {
		t.Errorf("given (-want +got):\n%s", d)
	}
	torn := strings.Replace(checkpoint, answer("/dev/vfio/vfio", "/dev/vfio/12"), base64.StdEncoding.EncodeToString([]byte{0x12, 0x7f}), 1)
	if _, err := kubelet.ParseGivenNodes([]byte(torn)); err == nil || !strings.Contains(err.Error(), "container init of pod u") {
		t.Errorf("an answer that cannot be read: %v", err)
	}
}

func FuzzParseDeviceState(f *testing.F) {
	for _, v := range versions {
		f.Add(fixture(f, v, "kubelet_internal_checkpoint"))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, _ := kubelet.ParseDeviceState(b)
		_, _ = kubelet.ParseGivenNodes(b)
		for i, d := range s.Held {
			for _, n := range d.NUMANodes {
				if n < 0 {
					t.Errorf("device %v has NUMA node %d", d, n)
				}
			}
			if i > 0 && d.PodUID == s.Held[i-1].PodUID && d.Container == s.Held[i-1].Container &&
				d.Resource == s.Held[i-1].Resource && d.ID == s.Held[i-1].ID {
				t.Errorf("device %v is listed twice", d)
			}
		}
	})
}
