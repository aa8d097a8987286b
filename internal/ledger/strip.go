package ledger

import (
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"github.com/numalane/numalane/pkg/allocator"
	"github.com/numalane/numalane/pkg/topology"
)

// liveOnly leaves ended pods on the server: the kubelet gives what they held
// to the next pod.
func liveOnly(o *metav1.ListOptions) {
	o.FieldSelector = fields.AndSelectors(
		fields.OneTermNotEqualSelector("status.phase", string(v1.PodSucceeded)),
		fields.OneTermNotEqualSelector("status.phase", string(v1.PodFailed)),
	).String()
}

// stripNode keeps what a node publishes; most of a Node is images and
// conditions.
func stripNode(obj any) (any, error) {
	node, ok := obj.(*v1.Node)
	if !ok {
		return obj, nil
	}
	return &v1.Node{ObjectMeta: stripMeta(&node.ObjectMeta, topology.TopologyAnnotation, topology.PoolsAnnotation)}, nil
}

// stripPod keeps what an admission depends on, and of a pod that asks for
// nothing exclusive only that it is there. It leaves a stripped pod as it is.
func stripPod(obj any) (any, error) {
	pod, ok := obj.(*v1.Pod)
	if !ok {
		return obj, nil
	}
	out := &v1.Pod{
		ObjectMeta: stripMeta(&pod.ObjectMeta, topology.AllocationAnnotation),
		Spec:       v1.PodSpec{NodeName: pod.Spec.NodeName},
		Status:     v1.PodStatus{Phase: pod.Status.Phase, QOSClass: pod.Status.QOSClass},
	}
	if !allocator.NewRequest(pod).Exclusive() {
		return out, nil
	}
	keepForEviction(out, pod)
	out.Spec.Resources = pod.Spec.Resources
	out.Spec.InitContainers = stripContainers(pod.Spec.InitContainers)
	out.Spec.Containers = stripContainers(pod.Spec.Containers)
	out.Status.InitContainerStatuses = stripStatuses(pod.Status.InitContainerStatuses)
	out.Status.ContainerStatuses = stripStatuses(pod.Status.ContainerStatuses)
	return out, nil
}

func stripMeta(m *metav1.ObjectMeta, annotations ...string) metav1.ObjectMeta {
	out := metav1.ObjectMeta{
		Namespace: m.Namespace, Name: m.Name, UID: m.UID,
		ResourceVersion: m.ResourceVersion, CreationTimestamp: m.CreationTimestamp,
	}
	for _, key := range annotations {
		if v, ok := m.Annotations[key]; ok {
			if out.Annotations == nil {
				out.Annotations = map[string]string{}
			}
			out.Annotations[key] = v
		}
	}
	return out
}

func stripContainers(cs []v1.Container) []v1.Container {
	var out []v1.Container
	for i := range cs {
		out = append(out, v1.Container{
			Name: cs[i].Name, RestartPolicy: cs[i].RestartPolicy,
			Resources: v1.ResourceRequirements{Requests: cs[i].Resources.Requests, Limits: cs[i].Resources.Limits},
		})
	}
	return out
}

func stripStatuses(ss []v1.ContainerStatus) []v1.ContainerStatus {
	var out []v1.ContainerStatus
	for i := range ss {
		if len(ss[i].AllocatedResources) > 0 {
			out = append(out, v1.ContainerStatus{Name: ss[i].Name, AllocatedResources: ss[i].AllocatedResources})
		}
	}
	return out
}
