package registration_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
	podresourcesapi "k8s.io/kubelet/pkg/apis/podresources/v1"

	"github.com/numalane/numalane/internal/kubelet"
)

func (n *node) checkpoint() []byte {
	n.t.Helper()
	b, err := os.ReadFile(filepath.Join(n.socketDir(), "kubelet_internal_checkpoint"))
	if err != nil {
		n.t.Fatal(err)
	}
	return b
}

// held are the devices that a pod holds by the kubelet's checkpoint, sorted.
func (n *node) held(pod string) (ids []string) {
	n.t.Helper()
	state, err := kubelet.ParseDeviceState(n.checkpoint())
	if err != nil {
		n.t.Fatal(err)
	}
	for _, d := range state.Held {
		if d.PodUID == pod+"-uid" {
			ids = append(ids, d.ID)
		}
	}
	slices.Sort(ids)
	return ids
}

// answer is what the kubelet has kept of the plugin's answer for the first
// container of a pod: what its runtime gets at each start of it.
func (n *node) answer(pod string) *pluginapi.ContainerAllocateResponse {
	n.t.Helper()
	var file struct {
		Data struct {
			PodDeviceEntries []struct {
				PodUID        string
				ContainerName string
				AllocResp     []byte
			}
		}
	}
	if err := json.Unmarshal(n.checkpoint(), &file); err != nil {
		n.t.Fatal(err)
	}
	for _, e := range file.Data.PodDeviceEntries {
		if e.PodUID != pod+"-uid" || e.ContainerName != "c0" {
			continue
		}
		r := &pluginapi.ContainerAllocateResponse{}
		if err := proto.Unmarshal(e.AllocResp, r); err != nil {
			n.t.Fatal(err)
		}
		return r
	}
	n.t.Fatalf("the checkpoint has no answer for pod %s", pod)
	return nil
}

// allocatable are the healthy devices as the kubelet's PodResources API tells
// them, each with its NUMA nodes: "0000:3b:02.0 [0]".
func (n *node) allocatable() (devices []string) {
	n.t.Helper()
	conn, err := grpc.NewClient("unix://"+filepath.Join(n.root, "pod-resources", "kubelet.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		n.t.Fatal(err)
	}
	defer conn.Close()
	list, err := podresourcesapi.NewPodResourcesListerClient(conn).GetAllocatableResources(n.t.Context(), &podresourcesapi.AllocatableResourcesRequest{})
	if err != nil {
		n.t.Fatal(err)
	}
	for _, d := range list.Devices {
		nodes := []int64{}
		for _, numa := range d.GetTopology().GetNodes() {
			nodes = append(nodes, numa.ID)
		}
		for _, id := range d.DeviceIds {
			devices = append(devices, fmt.Sprint(id, " ", nodes))
		}
	}
	slices.Sort(devices)
	return devices
}
