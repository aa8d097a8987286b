package managers

import (
	"slices"
	"sync"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/kubernetes/pkg/kubelet/apis/podresources"
)

// Pods are the active pods: those that were admitted and have not ended, and
// the one that is being admitted.
type Pods struct {
	mu  sync.Mutex
	all []*v1.Pod
}

var _ podresources.PodsProvider = (*Pods)(nil)

// GetActivePods is Kubelet.GetActivePods.
func (p *Pods) GetActivePods() []*v1.Pod {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.all)
}

// GetPods lists the active ones: a kubelet knows no other here.
func (p *Pods) GetPods() []*v1.Pod { return p.GetActivePods() }

// GetPodByName finds an active pod.
func (p *Pods) GetPodByName(namespace, name string) (*v1.Pod, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.IndexFunc(p.all, func(pod *v1.Pod) bool { return pod.Namespace == namespace && pod.Name == name })
	if i < 0 {
		return nil, false
	}
	return p.all[i], true
}

// add makes a pod active, in place of what it was before.
func (p *Pods) add(pod *v1.Pod) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.IndexFunc(p.all, is(pod.UID)); i >= 0 {
		p.all[i] = pod
		return
	}
	p.all = append(p.all, pod)
}

func (p *Pods) remove(uid types.UID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all = slices.DeleteFunc(p.all, is(uid))
}

// others are all but one, as allocation.manager.canAdmitPod counts them.
func (p *Pods) others(uid types.UID) []*v1.Pod {
	return slices.DeleteFunc(p.GetActivePods(), is(uid))
}

func is(uid types.UID) func(*v1.Pod) bool {
	return func(pod *v1.Pod) bool { return pod.UID == uid }
}
