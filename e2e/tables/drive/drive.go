// Package drive asks the kubelet's real topology manager, with one of its
// resource managers, to admit a pod under every policy and scope.
package drive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	cadvisorapi "github.com/google/cadvisor/lib/model"
	v1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/kubelet/cm/topologymanager"
	"k8s.io/kubernetes/pkg/kubelet/lifecycle"

	"github.com/numalane/numalane/e2e/tables/vector"
)

// Manager is one of the kubelet's resource managers in some state.
type Manager interface {
	topologymanager.HintProvider
	// Landings are what the containers of a pod hold now.
	Landings(pod *v1.Pod) []vector.Landing
}

// New makes a manager in the state that the pod finds, with its topology manager.
type New func(topologymanager.Store) Manager

// Answers are what the kubelet does with a pod, equal ones together. Where it
// picks at random it is asked several times.
func Answers(numaNodes []int, pod *v1.Pod, times int, fresh New) ([]vector.Answer, error) {
	var answers []vector.Answer
	for _, policy := range []string{topologymanager.PolicyNone, topologymanager.PolicyBestEffort, topologymanager.PolicyRestricted, topologymanager.PolicySingleNumaNode} {
		for _, scope := range []string{topologymanager.ContainerTopologyScope, topologymanager.PodTopologyScope} {
			in := policy + "/" + scope
			if policy == topologymanager.PolicyNone {
				if scope == topologymanager.PodTopologyScope {
					continue
				}
				in = policy
			}
			a := vector.Answer{}
			for range times {
				if err := admit(&a, numaNodes, pod, policy, scope, fresh); err != nil {
					return nil, err
				}
			}
			answers = add(answers, a, in)
		}
	}
	return answers, nil
}

// ErrPanic is a pod at which the kubelet itself would break.
var ErrPanic = errors.New("the kubelet panics")

func admit(a *vector.Answer, numaNodes []int, pod *v1.Pod, policy, scope string, fresh New) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", ErrPanic, p)
		}
	}()
	nodes := make([]cadvisorapi.Node, len(numaNodes))
	for i, id := range numaNodes {
		nodes[i].Id = id
	}
	tm, err := topologymanager.NewManager(klog.Logger{}, nodes, policy, scope, nil)
	if err != nil {
		return err
	}
	m := fresh(tm)
	tm.AddHintProvider(klog.Logger{}, m)
	result := tm.Admit(klog.NewContext(context.Background(), klog.Logger{}), &lifecycle.PodAdmitAttributes{Pod: pod.DeepCopy(), Operation: lifecycle.AddOperation})
	if !result.Admit {
		a.Reasons = Insert(a.Reasons, result.Reason)
		return nil
	}
	a.Lands = Insert(a.Lands, m.Landings(pod))
	return nil
}

// Insert adds an element to a sorted list without doubles.
func Insert[T any](list []T, v T) []T {
	key := func(v T) string {
		b, _ := json.Marshal(v) // of the vector's own types, which have a JSON form
		return string(b)
	}
	at, found := slices.BinarySearchFunc(list, key(v), func(e T, k string) int {
		switch s := key(e); {
		case s < k:
			return -1
		case s > k:
			return 1
		}
		return 0
	})
	if found {
		return list
	}
	return slices.Insert(list, at, v)
}

func add(answers []vector.Answer, a vector.Answer, in string) []vector.Answer {
	for i := range answers {
		b := answers[i]
		b.In = nil
		if len(Insert([]vector.Answer{b}, a)) == 1 {
			answers[i].In = append(answers[i].In, in)
			return answers
		}
	}
	a.In = []string{in}
	return append(answers, a)
}
