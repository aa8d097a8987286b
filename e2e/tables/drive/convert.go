package drive

import (
	v1 "k8s.io/api/core/v1"
	"k8s.io/kubernetes/pkg/kubelet/cm/topologymanager"

	"github.com/numalane/numalane/e2e/tables/vector"
)

// Hints are topology hints as vectors have them.
func Hints(hints []topologymanager.TopologyHint) []vector.Hint {
	out := make([]vector.Hint, 0, len(hints))
	for _, h := range hints {
		out = append(out, Hint(h))
	}
	return out
}

// Hint is a topology hint as vectors have it.
func Hint(h topologymanager.TopologyHint) vector.Hint {
	out := vector.Hint{Preferred: h.Preferred}
	if h.NUMANodeAffinity != nil {
		out.NUMANodes = h.NUMANodeAffinity.GetBits()
	}
	return out
}

// Kind tells what a container leaves to those after it: app, init or sidecar.
func Kind(pod *v1.Pod, container *v1.Container) string {
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		switch {
		case c.Name != container.Name:
		case c.RestartPolicy != nil && *c.RestartPolicy == v1.ContainerRestartPolicyAlways:
			return "sidecar"
		default:
			return "init"
		}
	}
	return "app"
}

// Landings asks for what each container of a pod holds, in admission order.
func Landings(pod *v1.Pod, fill func(container string, l *vector.Landing)) []vector.Landing {
	var out []vector.Landing
	for _, cs := range [][]v1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range cs {
			l := vector.Landing{Name: cs[i].Name}
			fill(l.Name, &l)
			out = append(out, l)
		}
	}
	return out
}
