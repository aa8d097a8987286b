package wiring

import (
	"context"

	v1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"
	podresourcesapi "k8s.io/kubelet/pkg/apis/podresources/v1"
	"k8s.io/kubernetes/pkg/kubelet/apis/podresources"
	"k8s.io/kubernetes/pkg/kubelet/cm/qos"

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

func (p providers) UpdateAllocatedDevices(logger klog.Logger) {
	p.devices.UpdateAllocatedDevices(logger)
}

func (p providers) GetDevices(podUID, container string) []*podresourcesapi.ContainerDevices {
	return managers.ContainerDevices(p.devices.GetDevices(podUID, container))
}

func (p providers) GetAllocatableDevices(logger klog.Logger) []*podresourcesapi.ContainerDevices {
	return managers.ContainerDevices(p.devices.GetAllocatableDevices(logger))
}

func (p providers) GetCPUs(pod *v1.Pod, container *v1.Container) []int64 {
	if p.cpus.GetResourceIsolationLevel(pod, container) != qos.ResourceIsolationContainer {
		return []int64{}
	}
	return managers.Int64s(p.cpus.GetExclusiveCPUs(string(pod.UID), container.Name))
}

func (p providers) GetPodCPUs(podUID string) []int64 {
	return managers.Int64s(p.cpus.GetPodCPUs(podUID))
}

func (p providers) GetAllocatableCPUs() []int64 {
	return managers.Int64s(p.cpus.GetAllocatableCPUs())
}

func (p providers) GetMemory(logger klog.Logger, pod *v1.Pod, container *v1.Container) []*podresourcesapi.ContainerMemory {
	if p.memory.GetResourceIsolationLevel(pod, container) != qos.ResourceIsolationContainer {
		return []*podresourcesapi.ContainerMemory{}
	}
	return managers.ContainerMemory(p.memory.GetMemory(logger, string(pod.UID), container.Name))
}

func (p providers) GetPodMemory(_ klog.Logger, podUID string) []*podresourcesapi.ContainerMemory {
	return managers.ContainerMemory(p.memory.GetPodMemory(podUID))
}

func (p providers) GetAllocatableMemory(logger klog.Logger) []*podresourcesapi.ContainerMemory {
	return managers.ContainerMemory(p.memory.GetAllocatableMemory(logger))
}

func (providers) GetDynamicResources(klog.Logger, *v1.Pod, *v1.Container) []*podresourcesapi.DynamicResource {
	return []*podresourcesapi.DynamicResource{}
}
