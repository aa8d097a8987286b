package managers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	_ "k8s.io/kubernetes/pkg/kubelet/cm" // linkname

	"github.com/numalane/numalane/e2e/kubelets/wire"
)

// awaitTimeout is far above what any plugin takes to be counted.
const awaitTimeout = 10 * time.Second

// kubelet is one that has started. Its commands come one after the other.
type kubelet struct {
	wiring    Wiring
	pods      *Pods
	node      *v1.Node // as the API would have it
	handlers  []Handler
	resources *grpc.Server
	// broken tells that a manager panicked: it may hold its locks for ever.
	broken bool
}

// start starts a kubelet over what is in its folder.
func start(ctx context.Context, s *wire.Start, newWiring New) (_ *kubelet, err error) {
	setup := &Setup{Dir: s.Dir, Machine: s.Machine, Pods: &Pods{}}
	if setup.Config, err = readConfig(ctx, filepath.Join(s.Dir, "config.yaml")); err != nil {
		return nil, err
	}
	for i, raw := range s.Pods {
		pod := &v1.Pod{}
		if err := json.Unmarshal(raw, pod); err != nil {
			return nil, fmt.Errorf("decode pod %d: %w", i, err)
		}
		setup.Pods.add(pod)
	}
	k := &kubelet{pods: setup.Pods, node: &v1.Node{}}
	if err := json.Unmarshal(s.Node, k.node); err != nil {
		return nil, fmt.Errorf("decode node: %w", err)
	}
	if k.wiring, err = newWiring(ctx, setup); err != nil {
		return nil, err
	}
	if err := k.wiring.Start(ctx); err != nil {
		k.stop(ctx)
		return nil, err
	}
	if k.resources, err = servePodResources(ctx, s.Dir, k.wiring.PodResources(ctx)); err != nil {
		k.stop(ctx)
		return nil, err
	}
	k.handlers = k.wiring.Handlers(func(ctx context.Context) *v1.Node {
		k.updateNode(ctx)
		return k.node.DeepCopy() // the predicates may write to it
	})
	return k, nil
}

func (k *kubelet) stop(ctx context.Context) {
	if k.resources != nil {
		k.resources.Stop()
	}
	if k.broken {
		go k.wiring.Stop(ctx) // best effort: it may wait for a lock in vain
		return
	}
	k.wiring.Stop(ctx)
}

// admit does what Kubelet.HandlePodAdditions and allocation.manager.AddPod do.
func (k *kubelet) admit(ctx context.Context, raw json.RawMessage) (*wire.Admission, error) {
	pod := &v1.Pod{}
	if err := json.Unmarshal(raw, pod); err != nil {
		return nil, fmt.Errorf("decode pod: %w", err)
	}
	k.pods.add(pod)
	others := k.pods.others(pod.UID)
	for _, h := range k.handlers {
		if result := h.Admit(ctx, pod, others); !result.Admit {
			k.pods.remove(pod.UID)
			return &wire.Admission{Reason: result.Reason, Message: result.Message, Handler: h.Name}, nil
		}
	}
	return &wire.Admission{Admit: true}, nil
}

func (k *kubelet) end(uid string) { k.pods.remove(types.UID(uid)) }

// await waits until the device manager counts these devices.
func (k *kubelet) await(ctx context.Context, want []wire.Devices) error {
	ctx, cancel := context.WithTimeout(ctx, awaitTimeout)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		k.updateNode(ctx)
		have := k.devices(want)
		if have == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.Join(have...)
		}
	}
}

// devices tells where the Node's devices are other than these.
func (k *kubelet) devices(want []wire.Devices) []error {
	var wrong []error
	for _, w := range want {
		name := v1.ResourceName(w.Resource)
		capacity, allocatable := k.node.Status.Capacity[name], k.node.Status.Allocatable[name]
		if capacity.Value() != int64(w.Capacity) || allocatable.Value() != int64(w.Allocatable) {
			wrong = append(wrong, fmt.Errorf("%s: after %v there are %v devices, %v of them healthy, rather than %d and %d",
				w.Resource, awaitTimeout, &capacity, &allocatable, w.Capacity, w.Allocatable))
		}
	}
	return wrong
}

// updateNode does for devices what the kubelet's node status does
// (nodestatus.MachineInfo), at once rather than on a timer.
func (k *kubelet) updateNode(ctx context.Context) {
	status := &k.node.Status
	if status.Capacity == nil {
		status.Capacity = v1.ResourceList{}
	}
	if status.Allocatable == nil {
		status.Allocatable = v1.ResourceList{}
	}
	capacity, allocatable, gone := k.wiring.Capacity(ctx)
	for name, q := range capacity {
		status.Capacity[name] = q
	}
	for name, q := range allocatable {
		status.Allocatable[name] = q
	}
	// Not deleted: the general predicates do not look at a resource that the
	// Node has not.
	for _, name := range gone {
		status.Capacity[v1.ResourceName(name)] = *resource.NewQuantity(0, resource.DecimalSI)
		status.Allocatable[v1.ResourceName(name)] = *resource.NewQuantity(0, resource.DecimalSI)
	}
}
