package managers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	_ "unsafe" // go:linkname

	"google.golang.org/grpc"
	podresourcesapi "k8s.io/kubelet/pkg/apis/podresources/v1"
	"k8s.io/kubernetes/pkg/kubelet/cm/devicemanager"
	"k8s.io/kubernetes/pkg/kubelet/cm/memorymanager/state"
	"k8s.io/utils/cpuset"
)

// servePodResources serves the API until the server is stopped. Other than
// server.ListenAndServePodResources it limits no rate.
func servePodResources(ctx context.Context, dir string, api podresourcesapi.PodResourcesListerServer) (*grpc.Server, error) {
	socket := filepath.Join(dir, "pod-resources", "kubelet.sock")
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		return nil, err
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "unix", socket)
	if err != nil {
		return nil, fmt.Errorf("serve the PodResources API: %w", err)
	}
	server := grpc.NewServer(grpc.WaitForHandlers(true))
	podresourcesapi.RegisterPodResourcesListerServer(server, api)
	go func() { _ = server.Serve(listener) }() // ends without error when it is stopped
	return server, nil
}

// Int64s are the CPUs as the API has them.
func Int64s(cpus cpuset.CPUSet) []int64 {
	list := make([]int64, 0, cpus.Size())
	for _, cpu := range cpus.UnsortedList() {
		list = append(list, int64(cpu))
	}
	return list
}

// ContainerDevices are devices as the API has them.
//
//go:linkname ContainerDevices k8s.io/kubernetes/pkg/kubelet/cm.containerDevicesFromResourceDeviceInstances
func ContainerDevices(devicemanager.ResourceDeviceInstances) []*podresourcesapi.ContainerDevices

// ContainerMemory are blocks of memory as the API has them.
//
//go:linkname ContainerMemory k8s.io/kubernetes/pkg/kubelet/cm.containerMemoryFromBlock
func ContainerMemory([]state.Block) []*podresourcesapi.ContainerMemory
