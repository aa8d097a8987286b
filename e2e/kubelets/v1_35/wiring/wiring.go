// Package wiring wires the resource managers of kubelets 1.35 and 1.36 as their
// pkg/kubelet/cm/container_manager_linux.go does, from a configuration and a
// machine.
package wiring

import (
	"context"
	"encoding/json"
	"fmt"
	_ "unsafe" // go:linkname

	cadvisorapi "github.com/google/cadvisor/info/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/kubelet/cadvisor"
	"k8s.io/kubernetes/pkg/kubelet/cm/containermap"
	"k8s.io/kubernetes/pkg/kubelet/cm/cpumanager"
	"k8s.io/kubernetes/pkg/kubelet/cm/cpumanager/topology"
	"k8s.io/kubernetes/pkg/kubelet/cm/devicemanager"
	"k8s.io/kubernetes/pkg/kubelet/cm/memorymanager"
	"k8s.io/kubernetes/pkg/kubelet/cm/topologymanager"
	"k8s.io/kubernetes/pkg/kubelet/config"
	"k8s.io/kubernetes/pkg/kubelet/lifecycle"

	"github.com/numalane/numalane/e2e/kubelets/managers"
)

type wiring struct {
	setup    *managers.Setup
	reserved *managers.Reserved
	topology topologymanager.Manager
	devices  *devicemanager.ManagerImpl
	cpus     cpumanager.Manager
	memory   memorymanager.Manager
}

// New is cm.NewContainerManager, with a socket of the kubelet's own for the
// device manager.
func New(ctx context.Context, s *managers.Setup) (managers.Wiring, error) {
	logger := klog.FromContext(ctx)
	machine := &cadvisorapi.MachineInfo{}
	if err := json.Unmarshal(s.Machine, machine); err != nil {
		return nil, fmt.Errorf("decode machine: %w", err)
	}
	cpus, err := topology.Discover(logger, machine)
	if err != nil {
		return nil, err
	}
	c := s.Config
	w := &wiring{setup: s}
	if w.reserved, err = s.Reserve(cadvisor.CapacityFromMachineInfo(machine), cpus.CPUDetails.CPUs()); err != nil {
		return nil, err
	}
	if w.topology, err = topologymanager.NewManager(machine.Topology, c.TopologyManagerPolicy, c.TopologyManagerScope, c.TopologyManagerPolicyOptions); err != nil {
		return nil, err
	}
	if w.devices, err = newDeviceManager(logger, s.RegistrationSocket(), machine.Topology, w.topology); err != nil {
		return nil, err
	}
	w.topology.AddHintProvider(logger, w.devices)
	if w.cpus, err = cpumanager.NewManager(logger, c.CPUManagerPolicy, c.CPUManagerPolicyOptions, c.CPUManagerReconcilePeriod.Duration, machine, w.reserved.CPUs, w.reserved.Resources, s.Dir, w.topology); err != nil {
		return nil, err
	}
	w.topology.AddHintProvider(logger, w.cpus)
	if w.memory, err = memorymanager.NewManager(logger, c.MemoryManagerPolicy, machine, w.reserved.Resources, c.ReservedMemory, s.Dir, w.topology); err != nil {
		return nil, err
	}
	w.topology.AddHintProvider(logger, w.memory)
	return w, nil
}

//go:linkname newDeviceManager k8s.io/kubernetes/pkg/kubelet/cm/devicemanager.newManagerImpl
func newDeviceManager(logger klog.Logger, socketPath string, topology []cadvisorapi.Node, store topologymanager.Store) (*devicemanager.ManagerImpl, error)

func (w *wiring) Start(ctx context.Context) error {
	pods := w.setup.Pods.GetActivePods
	err := w.setup.StartCPUManager(func(sources config.SourcesReady) error {
		return w.cpus.Start(ctx, pods, sources, managers.NoStatus{}, managers.NoRuntime{}, containermap.NewContainerMap())
	})
	if err != nil {
		return fmt.Errorf("start cpu manager error: %w", err)
	}
	if err := w.memory.Start(ctx, pods, managers.Ready{}, managers.NoStatus{}, managers.NoRuntime{}, containermap.NewContainerMap()); err != nil {
		return fmt.Errorf("start memory manager error: %w", err)
	}
	if err := w.reserved.Validate(); err != nil {
		return err
	}
	return w.devices.Start(klog.FromContext(ctx), pods, managers.Ready{}, containermap.NewContainerMap(), sets.New[string]())
}

func (w *wiring) Stop(ctx context.Context) { _ = w.devices.Stop(klog.FromContext(ctx)) }

func (w *wiring) Capacity(context.Context) (capacity, allocatable v1.ResourceList, gone []string) {
	return w.devices.GetCapacity()
}

func (w *wiring) Handlers(node func(context.Context) *v1.Node) []managers.Handler {
	getNode := func(ctx context.Context, _ bool) (*v1.Node, error) { return node(ctx), nil }
	predicates := lifecycle.NewPredicateAdmitHandler(getNode, noPreemption{}, w.devices.UpdatePluginResources)
	return []managers.Handler{
		{Name: managers.Resources, Admit: admit(w.topology)},
		{Name: managers.Predicates, Admit: admit(predicates)},
		{Name: managers.Features, Admit: admit(lifecycle.NewPodFeaturesAdmitHandler())},
	}
}

func admit(h lifecycle.PodAdmitHandler) managers.Admit {
	return func(_ context.Context, pod *v1.Pod, others []*v1.Pod) lifecycle.PodAdmitResult {
		return h.Admit(&lifecycle.PodAdmitAttributes{Pod: pod, OtherPods: others})
	}
}

// noPreemption is what preemption.CriticalPodAdmissionHandler does for a pod
// that is not critical.
type noPreemption struct{}

func (noPreemption) HandleAdmissionFailure(_ context.Context, _ *v1.Pod, reasons []lifecycle.PredicateFailureReason) ([]lifecycle.PredicateFailureReason, error) {
	return reasons, nil
}
