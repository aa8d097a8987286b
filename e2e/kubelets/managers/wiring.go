package managers

import (
	"context"
	"encoding/json"
	"path/filepath"

	v1 "k8s.io/api/core/v1"
	podresourcesapi "k8s.io/kubelet/pkg/apis/podresources/v1"
	kubeletconfig "k8s.io/kubernetes/pkg/kubelet/apis/config"
	"k8s.io/kubernetes/pkg/kubelet/lifecycle"
)

// Wiring is the container manager of a kubelet, as far as it wires the managers
// of resources.
type Wiring interface {
	// Start does what containerManagerImpl.Start does.
	Start(ctx context.Context) error
	// Stop ends what Start began, or some of it when that failed.
	Stop(ctx context.Context)
	// Capacity is the device manager's GetCapacity.
	Capacity(ctx context.Context) (capacity, allocatable v1.ResourceList, gone []string)
	// Handlers are the admit handlers that Kubelet.NewMainKubelet lists. The
	// predicates see the Node that node returns.
	Handlers(node func(context.Context) *v1.Node) []Handler
	// PodResources is the server of the API.
	PodResources(ctx context.Context) podresourcesapi.PodResourcesListerServer
}

// New wires the managers of a kubelet that is about to start.
type New func(ctx context.Context, s *Setup) (Wiring, error)

// Setup is what a kubelet's managers are made with.
type Setup struct {
	Dir     string          // its root folder
	Machine json.RawMessage // cAdvisor's MachineInfo
	Config  *kubeletconfig.KubeletConfiguration
	Pods    *Pods
}

// RegistrationSocket is where device plugins register. The kubelet has a
// constant for it.
func (s *Setup) RegistrationSocket() string {
	return filepath.Join(s.Dir, "device-plugins", "kubelet.sock")
}

// Handler is an admit handler of the kubelet.
type Handler struct {
	Name  string // as in wire.Admission
	Admit Admit
}

// Admit is lifecycle.PodAdmitHandler's, for a pod that is added.
type Admit func(ctx context.Context, pod *v1.Pod, others []*v1.Pod) lifecycle.PodAdmitResult

// The names of the handlers.
const (
	Resources  = "resources"
	Predicates = "predicates"
	Features   = "features"
)
