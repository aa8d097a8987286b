package managers

import (
	"context"
	"runtime"
	"sync/atomic"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/kubernetes/pkg/kubelet/cm/cpumanager"
	"k8s.io/kubernetes/pkg/kubelet/config"
)

// Ready is the config.SourcesReady of a kubelet that has heard of all its pods.
type Ready struct{}

// AddSource does nothing.
func (Ready) AddSource(string) {}

// AllReady is true.
func (Ready) AllReady() bool { return true }

// NoRuntime is a container runtime that has no containers.
type NoRuntime struct{}

// UpdateContainerResources does nothing.
func (NoRuntime) UpdateContainerResources(context.Context, string, *runtimeapi.ContainerResources) error {
	return nil
}

// NoStatus knows the status of no pod.
type NoStatus struct{}

// GetPodStatus finds none.
func (NoStatus) GetPodStatus(types.UID) (v1.PodStatus, bool) { return v1.PodStatus{}, false }

// StartCPUManager starts the CPU manager with the sources that it hands to start.
//
// The CPU manager starts a loop, reconcileState, that nothing can stop: every
// kubelet there has been would stay in memory. Without containers there is
// nothing to reconcile but what ended pods held, and when that is freed must not
// depend on a race. So the loop's goroutine is ended at the first step of its
// first turn, where it asks whether the sources are ready.
func (s *Setup) StartCPUManager(start func(config.SourcesReady) error) error {
	loop := &endOfLoop{reached: make(chan struct{})}
	if s.Config.CPUManagerPolicy == string(cpumanager.PolicyNone) { // has no loop
		loop.over.Store(true)
		return start(loop)
	}
	if err := start(loop); err != nil {
		return err
	}
	<-loop.reached
	return nil
}

type endOfLoop struct {
	Ready

	over    atomic.Bool
	reached chan struct{}
}

// AllReady ends the goroutine that calls it first.
func (e *endOfLoop) AllReady() bool {
	if e.over.CompareAndSwap(false, true) {
		close(e.reached)
		runtime.Goexit()
	}
	return true
}
