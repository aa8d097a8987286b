package managers

import (
	"fmt"
	"strconv"
	"strings"
	_ "unsafe" // go:linkname

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/kubernetes/pkg/kubelet/eviction"
	evictionapi "k8s.io/kubernetes/pkg/kubelet/eviction/api"
	"k8s.io/kubernetes/pkg/kubelet/stats/pidlimit"
	"k8s.io/utils/cpuset"
)

// Reserved is what a kubelet keeps from its pods.
type Reserved struct {
	CPUs      cpuset.CPUSet   // which ones, when the configuration names them
	Resources v1.ResourceList // nodeAllocatableReservation

	capacity v1.ResourceList
}

// Reserve works out what is reserved of a machine's capacity, as app.run and
// containerManagerImpl.GetNodeAllocatableReservation do.
func (s *Setup) Reserve(capacity v1.ResourceList, cpus cpuset.CPUSet) (*Reserved, error) {
	r := &Reserved{Resources: v1.ResourceList{}, capacity: capacity}
	var err error
	if r.CPUs, err = s.reservedCPUs(cpus); err != nil {
		return nil, err
	}
	system, err := parseResourceList(s.Config.SystemReserved)
	if err != nil {
		return nil, fmt.Errorf("parse systemReserved: %w", err)
	}
	kube, err := parseResourceList(s.Config.KubeReserved)
	if err != nil {
		return nil, fmt.Errorf("parse kubeReserved: %w", err)
	}
	if n := r.CPUs.Size(); n > 0 { // overrides the counts
		delete(kube, v1.ResourceCPU)
		system[v1.ResourceCPU] = resource.MustParse(strconv.Itoa(n))
	}
	thresholds, err := eviction.ParseThresholdConfig([]string{}, s.Config.EvictionHard, nil, nil, nil)
	if err != nil {
		return nil, fmt.Errorf("parse evictionHard: %w", err)
	}
	evicted := hardEvictionReservation(thresholds, capacity)
	for name := range capacity {
		sum := resource.NewQuantity(0, resource.DecimalSI)
		for _, list := range []v1.ResourceList{system, kube, evicted} {
			sum.Add(list[name])
		}
		if !sum.IsZero() {
			r.Resources[name] = *sum
		}
	}
	return r, nil
}

// Validate is containerManagerImpl.validateNodeAllocatable.
func (r *Reserved) Validate() error {
	var over []string
	for name, q := range r.Resources {
		if all := r.capacity[name]; all.Cmp(q) < 0 {
			over = append(over, fmt.Sprintf("Resource %q has a reservation of %v but capacity of %v. Expected capacity >= reservation.", name, &q, &all))
		}
	}
	if len(over) > 0 {
		return fmt.Errorf("invalid Node Allocatable configuration. %s", strings.Join(over, " "))
	}
	return nil
}

// reservedCPUs is app.getReservedCPUs.
func (s *Setup) reservedCPUs(all cpuset.CPUSet) (cpuset.CPUSet, error) {
	text := s.Config.ReservedSystemCPUs
	if text == "" {
		return cpuset.New(), nil
	}
	cpus, err := cpuset.Parse(text)
	if err != nil {
		return cpuset.New(), fmt.Errorf("parse reservedSystemCPUs: %w", err)
	}
	if !cpus.IsSubsetOf(all) {
		return cpuset.New(), fmt.Errorf("reserved-cpus: %s is not a subset of online-cpus: %s", text, all)
	}
	return cpus, nil
}

// parseResourceList is app.parseResourceList, but never nil.
func parseResourceList(texts map[string]string) (v1.ResourceList, error) {
	list := v1.ResourceList{}
	for name, text := range texts {
		switch v1.ResourceName(name) {
		case v1.ResourceCPU, v1.ResourceMemory, v1.ResourceEphemeralStorage, pidlimit.PIDs:
		default:
			return nil, fmt.Errorf("cannot reserve %q resource", name)
		}
		q, err := resource.ParseQuantity(text)
		if err != nil {
			return nil, fmt.Errorf("failed to parse quantity %q for %q resource: %w", text, name, err)
		}
		if q.Sign() == -1 {
			return nil, fmt.Errorf("resource quantity for %q cannot be negative: %v", name, text)
		}
		list[v1.ResourceName(name)] = q
	}
	return list, nil
}

//go:linkname hardEvictionReservation k8s.io/kubernetes/pkg/kubelet/cm.hardEvictionReservation
func hardEvictionReservation(thresholds []evictionapi.Threshold, capacity v1.ResourceList) v1.ResourceList
