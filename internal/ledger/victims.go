package ledger

import (
	v1 "k8s.io/api/core/v1"
)

// Evictable are the pods that hold something of the node and have a priority
// below this. Static pods are none: their kubelet would start them again.
func (l *Ledger) Evictable(name string, below int32) []*v1.Pod {
	l.write.Lock()
	defer l.write.Unlock()
	n := l.nodes[name]
	if n == nil {
		return nil
	}
	var out []*v1.Pod
	for _, c := range n.bound {
		p := c.pod
		if _, static := p.Annotations[v1.MirrorPodAnnotationKey]; !static && priority(p) < below {
			out = append(out, p)
		}
	}
	return out
}

func priority(p *v1.Pod) int32 {
	if p.Spec.Priority == nil {
		return 0
	}
	return *p.Spec.Priority
}

// keepForEviction keeps what an eviction depends on besides: how important the
// pod is, what of its requests is in no container, and that it keeps others
// away.
func keepForEviction(out, pod *v1.Pod) {
	out.Spec.Priority = pod.Spec.Priority
	out.Spec.Overhead = pod.Spec.Overhead
	if a := pod.Spec.Affinity; a != nil && a.PodAntiAffinity != nil && len(a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution) > 0 {
		out.Spec.Affinity = &v1.Affinity{PodAntiAffinity: &v1.PodAntiAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution,
		}}
	}
	if static, ok := pod.Annotations[v1.MirrorPodAnnotationKey]; ok {
		if out.Annotations == nil {
			out.Annotations = map[string]string{}
		}
		out.Annotations[v1.MirrorPodAnnotationKey] = static
	}
}
