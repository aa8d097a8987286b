package plugin_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"

	"github.com/numalane/numalane/internal/handout"
	"github.com/numalane/numalane/internal/plugin"
)

// withNodes is a VF that is handed out with device nodes, each a path or
// "host container".
func withNodes(id string, paths ...string) plugin.Device {
	d := vf(id, 0)
	for _, p := range paths {
		host, container, two := strings.Cut(p, " ")
		if !two {
			container = host
		}
		d.Handout.Nodes = append(d.Handout.Nodes, handout.Node{Host: host, Container: container})
	}
	return d
}

func spec(host, container string) *pluginapi.DeviceSpec {
	return &pluginapi.DeviceSpec{HostPath: host, ContainerPath: container, Permissions: "rw"}
}

func (n *node) allocate(t testing.TB, ids ...string) (*pluginapi.ContainerAllocateResponse, error) {
	t.Helper()
	return allocate(t, n.api(resource), ids...)
}

// allocate is the kubelet's call for one container.
func allocate(t testing.TB, api pluginapi.DevicePluginClient, ids ...string) (*pluginapi.ContainerAllocateResponse, error) {
	t.Helper()
	got, err := api.Allocate(context.Background(), &pluginapi.AllocateRequest{
		ContainerRequests: []*pluginapi.ContainerAllocateRequest{{DevicesIds: ids}},
	})
	if err != nil {
		return nil, err
	}
	if len(got.GetContainerResponses()) != 1 {
		t.Fatalf("answers %v, want one", got)
	}
	return got.GetContainerResponses()[0], nil
}

func TestAllocate(t *testing.T) {
	sick := vf("0000:3b:02.6", 0)
	sick.Healthy, sick.Problem = false, "link of its PF is down"
	away := vf("0000:3b:02.7", 0)
	away.Handout.Withheld = "its RDMA device is not on the host"
	words := vf("0000:3b:03.0", 0)
	words.Handout.Info["vfio"] = map[string]string{"mount": "/dev/vfio/vfio", "dev-mount": "/dev/vfio/9"}
	words.Handout.Info["extra"] = map[string]string{"token": `"<a&b>"`}
	var calls atomic.Int32
	n := newNode(t, 37, func(o *plugin.Options) { o.OnAllocate = func() { calls.Add(1) } })
	n.start()
	n.updates <- []plugin.Pool{pool(
		vf("0000:3b:02.0", 0), vf("0000:3b:02.1", 1),
		withNodes("0000:3b:02.2", "/dev/vfio/vfio", "/dev/vfio/42"), withNodes("0000:3b:02.3", "/dev/vfio/vfio", "/dev/vfio/42"),
		withNodes("0000:3b:02.4", "/dev/vfio/vfio", "/dev/vfio/noiommu-3 /dev/vfio/3"), withNodes("0000:3b:02.5", "/dev/uio3 /dev/vfio/3"),
		sick, away, words,
	)}
	n.waitLive(1)
	const key = "PCIDEVICE_INTEL_COM_SRIOV-NET"
	envs := func(ids ...string) map[string]string {
		var info []string
		for _, id := range ids {
			info = append(info, fmt.Sprintf(`%q:{"generic":{"deviceID":%q}}`, id, id))
		}
		return map[string]string{key: strings.Join(ids, ","), key + "_INFO": "{" + strings.Join(info, ",") + "}"}
	}
	cases := map[string]struct {
		ids  []string
		want *pluginapi.ContainerAllocateResponse
		code codes.Code
		err  string
	}{
		"kernel driver, any order": {
			ids:  []string{"0000:3b:02.1", "0000:3b:02.0"},
			want: &pluginapi.ContainerAllocateResponse{Envs: envs("0000:3b:02.0", "0000:3b:02.1")},
		},
		"words": {
			ids: []string{"0000:3b:03.0"},
			want: &pluginapi.ContainerAllocateResponse{Envs: map[string]string{
				key: "0000:3b:03.0",
				key + "_INFO": `{"0000:3b:03.0":{"extra":{"token":"\"\u003ca\u0026b\u003e\""},"generic":{"deviceID":"0000:3b:03.0"},` +
					`"vfio":{"dev-mount":"/dev/vfio/9","mount":"/dev/vfio/vfio"}}}`,
			}},
		},
		"another name in the container": {
			ids: []string{"0000:3b:02.4"},
			want: &pluginapi.ContainerAllocateResponse{
				Envs:    envs("0000:3b:02.4"),
				Devices: []*pluginapi.DeviceSpec{spec("/dev/vfio/vfio", "/dev/vfio/vfio"), spec("/dev/vfio/noiommu-3", "/dev/vfio/3")},
			},
		},
		"shared nodes": {
			ids: []string{"0000:3b:02.2", "0000:3b:02.3"},
			want: &pluginapi.ContainerAllocateResponse{
				Envs:    envs("0000:3b:02.2", "0000:3b:02.3"),
				Devices: []*pluginapi.DeviceSpec{spec("/dev/vfio/vfio", "/dev/vfio/vfio"), spec("/dev/vfio/42", "/dev/vfio/42")},
			},
		},
		"a device given twice": {
			ids:  []string{"0000:3b:02.0", "0000:3b:02.0"},
			want: &pluginapi.ContainerAllocateResponse{Envs: envs("0000:3b:02.0")},
		},
		"unknown": {
			ids: []string{"0000:3b:02.0", "0000:ff:1f.7"}, code: codes.NotFound,
			err: "device 0000:ff:1f.7 is not in pool intel.com/sriov-net",
		},
		"unhealthy": {
			ids: []string{"0000:3b:02.6"}, code: codes.FailedPrecondition,
			err: "device 0000:3b:02.6 of pool intel.com/sriov-net is unhealthy (link of its PF is down)",
		},
		"withheld": {
			ids: []string{"0000:3b:02.0", "0000:3b:02.7"}, code: codes.FailedPrecondition,
			err: "device 0000:3b:02.7 of pool intel.com/sriov-net cannot be handed over whole: its RDMA device is not on the host",
		},
		"two nodes of one name": {
			ids: []string{"0000:3b:02.4", "0000:3b:02.5"}, code: codes.FailedPrecondition,
			err: "both /dev/vfio/noiommu-3 and /dev/uio3 would be /dev/vfio/3",
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			before := calls.Load()
			got, err := n.allocate(t, c.ids...)
			if calls.Load() != before+1 {
				t.Errorf("OnAllocate was called %d times, want once", calls.Load()-before)
			}
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) || status.Code(err) != c.code {
					t.Fatalf("error %v, want %v: %q", err, c.code, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got, protocmp.Transform()); diff != "" {
				t.Errorf("answer (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAllocateKey(t *testing.T) {
	for resource, key := range map[string]string{
		"intel.com/sriov":           "PCIDEVICE_INTEL_COM_SRIOV",
		"intel.com/sriov-net":       "PCIDEVICE_INTEL_COM_SRIOV-NET",
		"my-org.example.io/dpdk_10": "PCIDEVICE_MY-ORG_EXAMPLE_IO_DPDK_10",
	} {
		t.Run(resource, func(t *testing.T) {
			n := liveNode(t, 37, plugin.Pool{Resource: resource, Devices: []plugin.Device{vf("10000:01:00.1", 0)}})
			got, err := n.api(resource).Allocate(t.Context(), &pluginapi.AllocateRequest{
				ContainerRequests: []*pluginapi.ContainerAllocateRequest{{DevicesIds: []string{"10000:01:00.1"}}},
			})
			if err != nil {
				t.Fatal(err)
			}
			if v := got.ContainerResponses[0].Envs[key]; v != "10000:01:00.1" {
				t.Errorf("%s=%q in %v", key, v, got.ContainerResponses[0].Envs)
			}
		})
	}
}

// Whatever devices there are and are asked for: the answer gives no node twice,
// neither by its name here nor in the container, and all nodes of all of them;
// or it is an error.
func FuzzAllocate(f *testing.F) {
	n := newNode(f, 37)
	n.start()
	n.updates <- []plugin.Pool{pool(vf("start", 0))}
	n.waitLive(1)
	api := n.api(resource)
	f.Add("ab|abc|d>a|", "0123")
	f.Add("v1|v1|v2", "210")
	f.Add("a>x|b>x", "01")
	f.Add("", "05")
	f.Fuzz(func(t *testing.T, nodes, asked string) {
		if len(nodes) > 200 || len(asked) > 20 {
			return
		}
		// Devices by |; of each a node for each letter, and after > one that has
		// the next letter's name in the container.
		devices := map[string]plugin.Device{}
		for i, letters := range strings.Split(strings.ToValidUTF8(nodes, "?"), "|") {
			var paths []string
			renamed := ""
			for _, r := range letters {
				switch {
				case r == '>' && len(paths) > 0:
					renamed = paths[len(paths)-1]
					paths = paths[:len(paths)-1]
				case renamed != "":
					paths = append(paths, fmt.Sprintf("%s /dev/%x", renamed, r))
					renamed = ""
				default:
					paths = append(paths, fmt.Sprintf("/dev/%x", r))
				}
			}
			id := fmt.Sprint(i)
			devices[id] = withNodes(id, paths...)
		}
		n.updates <- []plugin.Pool{pool(slices.Collect(maps.Values(devices))...)}
		n.updates <- []plugin.Pool{pool(slices.Collect(maps.Values(devices))...)} // the first one is through when this is taken
		got, err := allocate(t, api, ids(asked)...)
		if err != nil {
			if c := status.Code(err); c != codes.NotFound && c != codes.FailedPrecondition {
				t.Errorf("error %v", err)
			}
			return
		}
		given := map[handout.Node]bool{}
		containers := map[string]bool{}
		for _, d := range got.Devices {
			if given[handout.Node{Host: d.HostPath, Container: d.ContainerPath}] || containers[d.ContainerPath] {
				t.Errorf("%v is given twice in %v", d, got.Devices)
			}
			given[handout.Node{Host: d.HostPath, Container: d.ContainerPath}] = true
			containers[d.ContainerPath] = true
		}
		var info map[string]any
		if err := json.Unmarshal([]byte(got.Envs["PCIDEVICE_INTEL_COM_SRIOV-NET_INFO"]), &info); err != nil {
			t.Fatal(err)
		}
		for _, id := range ids(asked) {
			if info[id] == nil {
				t.Errorf("no words about %s in %v", id, info)
			}
			for _, node := range devices[id].Handout.Nodes {
				if !given[node] {
					t.Errorf("device %s lacks %v in %v", id, node, got.Devices)
				}
			}
		}
	})
}
