package drive

import (
	"encoding/json"
	"fmt"

	v1 "k8s.io/api/core/v1"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/component-base/featuregate"
	"k8s.io/component-helpers/resource"
	"k8s.io/kubernetes/pkg/features"

	"github.com/numalane/numalane/e2e/tables/vector"
)

// Gates are the feature gates that are on and decide an admission.
func Gates() []string {
	var on []string
	for _, gate := range []featuregate.Feature{features.DRAExtendedResource, features.PodLevelResourceManagers} {
		if utilfeature.DefaultFeatureGate.Enabled(gate) {
			on = append(on, string(gate))
		}
	}
	return on
}

// Strange is why no apiserver and no kubelet of today would have such a pod
// here; empty for one that they would.
func Strange(pod *v1.Pod) string {
	if resource.IsPodLevelResourcesSet(pod) && !utilfeature.DefaultFeatureGate.Enabled(features.PodLevelResources) {
		return "a pod with pod-level resources where the gate PodLevelResources is off"
	}
	if len(pod.Spec.Containers) == 0 {
		return "a pod without containers"
	}
	names := map[string]bool{}
	for _, c := range append(append([]v1.Container{}, pod.Spec.InitContainers...), pod.Spec.Containers...) {
		if names[c.Name] {
			return "a pod with two containers of one name"
		}
		names[c.Name] = true
	}
	return ""
}

// EmitPod records what the kubelet does with a pod in a state.
func EmitPod(test string, state vector.State, numaNodes []int, pod *v1.Pod, times int, fresh New) {
	answers, err := Answers(numaNodes, pod, times, fresh)
	if err != nil {
		vector.Emit(test, vector.Vector{Left: "no answer: " + err.Error()})
		return
	}
	vector.Emit(test, vector.Vector{Pod: &vector.Pod{State: state, Pod: slim(pod), Answers: answers}})
}

// slim is what of a pod an admission depends on.
func slim(pod *v1.Pod) json.RawMessage {
	type container struct {
		Name          string                     `json:"name"`
		Resources     v1.ResourceRequirements    `json:"resources,omitzero"`
		RestartPolicy *v1.ContainerRestartPolicy `json:"restartPolicy,omitempty"`
	}
	var p struct {
		Spec struct {
			InitContainers []container              `json:"initContainers,omitempty"`
			Containers     []container              `json:"containers"`
			Resources      *v1.ResourceRequirements `json:"resources,omitempty"`
		} `json:"spec"`
		Status struct {
			QOSClass                    v1.PodQOSClass                     `json:"qosClass,omitempty"`
			ExtendedResourceClaimStatus *v1.PodExtendedResourceClaimStatus `json:"extendedResourceClaimStatus,omitempty"`
		} `json:"status,omitzero"`
	}
	list := func(cs []v1.Container) (out []container) {
		for i := range cs {
			out = append(out, container{cs[i].Name, cs[i].Resources, cs[i].RestartPolicy})
		}
		return out
	}
	p.Spec.InitContainers, p.Spec.Containers, p.Spec.Resources = list(pod.Spec.InitContainers), list(pod.Spec.Containers), pod.Spec.Resources
	p.Status.QOSClass, p.Status.ExtendedResourceClaimStatus = pod.Status.QOSClass, pod.Status.ExtendedResourceClaimStatus
	b, err := json.Marshal(p)
	if err != nil {
		panic(fmt.Sprintf("write pod %s as JSON: %v", pod.Name, err))
	}
	return b
}
