package wiring

import (
	"context"

	v1 "k8s.io/api/core/v1"
	podresourcesapi "k8s.io/kubelet/pkg/apis/podresources/v1"
	"k8s.io/kubernetes/pkg/kubelet/apis/podresources"

	"github.com/numalane/numalane/e2e/kubelets/managers"
)

func (w *wiring) PodResources(ctx context.Context) podresourcesapi.PodResourcesListerServer {
	p := providers{w}
	return podresources.NewV1PodResourcesServer(ctx, podresources.PodResourcesProviders{
		Pods: w.setup.Pods, Devices: p, Cpus: p, Memory: p, DynamicResources: p,
	})
}

// providers are the methods of containerManagerImpl that the server is given.
type providers struct{ *wiring }

func (p providers) UpdateAllocatedDevices() { p.devices.UpdateAllocatedDevices() }

func (p providers) GetDevices(podUID, container string) []*podresourcesapi.ContainerDevices {
	return managers.ContainerDevices(p.devices.GetDevices(podUID, container))
}

func (p providers) GetAllocatableDevices() []*podresourcesapi.ContainerDevices {
	return managers.ContainerDevices(p.devices.GetAllocatableDevices())
}

func (p providers) GetCPUs(podUID, container string) []int64 {
	return managers.Int64s(p.cpus.GetExclusiveCPUs(podUID, container))
}

func (p providers) GetAllocatableCPUs() []int64 {
	return managers.Int64s(p.cpus.GetAllocatableCPUs())
}

func (p providers) GetMemory(podUID, container string) []*podresourcesapi.ContainerMemory {
	return managers.ContainerMemory(p.memory.GetMemory(context.Background(), podUID, container))
}

func (p providers) GetAllocatableMemory() []*podresourcesapi.ContainerMemory {
	return managers.ContainerMemory(p.memory.GetAllocatableMemory(context.Background()))
}

func (providers) GetDynamicResources(*v1.Pod, *v1.Container) []*podresourcesapi.DynamicResource {
	return []*podresourcesapi.DynamicResource{}
}
