package extender

import (
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/resource"
)

func requests(p *v1.Pod) v1.ResourceList {
	return resource.PodRequests(p, resource.PodResourcesOptions{UseStatusResources: true})
}

func add(to, more v1.ResourceList) {
	for name, q := range more {
		sum := to[name]
		sum.Add(q)
		to[name] = sum
	}
}

// covers tells that room is no less than wanted of all that is needed.
func covers(room, wanted, need v1.ResourceList) bool {
	for name := range need {
		have, want := room[name], wanted[name]
		if have.Cmp(want) < 0 {
			return false
		}
	}
	return true
}

// asksResourcesOnly tells that of all the filters of kube-scheduler only
// NodeResourcesFit can have asked for a pod to be evicted in favour of this one.
func asksResourcesOnly(p *v1.Pod) bool {
	s := &p.Spec
	if s.HostNetwork || len(s.TopologySpreadConstraints) > 0 || len(s.ResourceClaims) > 0 ||
		s.Affinity != nil && (s.Affinity.PodAffinity != nil || s.Affinity.PodAntiAffinity != nil) {
		return false
	}
	for i := range s.Volumes {
		if v := &s.Volumes[i].VolumeSource; v.ConfigMap == nil && v.Secret == nil && v.EmptyDir == nil && v.Projected == nil && v.DownwardAPI == nil && v.HostPath == nil {
			return false
		}
	}
	for _, cs := range [][]v1.Container{s.InitContainers, s.Containers} {
		for i := range cs {
			if slices.ContainsFunc(cs[i].Ports, func(p v1.ContainerPort) bool { return p.HostPort > 0 }) {
				return false
			}
		}
	}
	return true
}

// keepsOthersAway tells that a pod may stand in another's way by what it says
// rather than by what it holds.
func keepsOthersAway(p *v1.Pod) bool {
	a := p.Spec.Affinity
	return a != nil && a.PodAntiAffinity != nil && len(a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution) > 0
}
