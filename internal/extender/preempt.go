package extender

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	extenderv1 "k8s.io/kube-scheduler/extender/v1"

	"github.com/numalane/numalane/pkg/allocator"
)

// Evictions is what is known of nodes that some pods would leave.
type Evictions interface {
	// AdmitWithout foretells what the node's kubelet would say to the pod, had
	// the leaving ones gone.
	AdmitWithout(node string, pod types.UID, r *allocator.Request, leaving []types.UID) allocator.Verdict
	// Evictable are the pods that hold something of the node and have a lower
	// priority: as much of each as tells its priority and what it asks for.
	Evictable(node string, below int32) []*v1.Pod
}

// searchFor bounds how long one call looks for other victims than those it was
// given. kube-scheduler waits for the answer, by default 5 s.
const searchFor = 2 * time.Second

// preempt leaves out candidates on which the pod would be refused although
// their victims left: those would be killed for nothing. kube-scheduler chose
// them by totals (its dry run asks no extender); where others would do, they
// go instead.
//
// kube-scheduler fails the whole attempt if a node comes back without a victim
// (Evaluator.callExtenders), so none does: not where our filter alone refused
// the pod and kube-scheduler found nothing to evict, nor where the room has
// come free meanwhile. The pod's next turn will find it.
func (e *Extender) preempt(ctx context.Context, args *extenderv1.ExtenderPreemptionArgs) (*extenderv1.ExtenderPreemptionResult, error) {
	start := time.Now()
	if args.Pod == nil {
		return nil, &fault{http.StatusBadRequest, errors.New("the call has no Pod")}
	}
	request := allocator.NewRequest(args.Pod)
	candidates := candidates(args)
	out := map[string]*extenderv1.MetaVictims{}
	for _, node := range slices.Sorted(maps.Keys(candidates)) {
		given := candidates[node]
		victims, outcome := given, keptVictims
		if request.Exclusive() {
			s := search{nodes: e.evictions, node: node, pod: args.Pod, request: request}
			victims, outcome = s.victims(given, ctx.Err() == nil && time.Since(start) < searchFor)
		}
		if len(victims.Pods) == 0 {
			outcome = droppedNode
		} else {
			out[node] = victims
		}
		e.metrics.candidates.WithLabelValues(outcome).Inc()
	}
	e.log.Debug("preempt", "pod", args.Pod.Namespace+"/"+args.Pod.Name, "nodes", len(candidates), "pass", len(out), "took", time.Since(start))
	return &extenderv1.ExtenderPreemptionResult{NodeNameToMetaVictims: out}, nil
}

// candidates are the nodes of a call with their victims, whichever way they
// came: by name with nodeCacheCapable, else with whole pods.
func candidates(args *extenderv1.ExtenderPreemptionArgs) map[string]*extenderv1.MetaVictims {
	out := make(map[string]*extenderv1.MetaVictims, len(args.NodeNameToMetaVictims)+len(args.NodeNameToVictims))
	for node, v := range args.NodeNameToVictims {
		m := &extenderv1.MetaVictims{}
		if v != nil {
			m.NumPDBViolations = v.NumPDBViolations
			for _, pod := range v.Pods {
				if pod != nil {
					m.Pods = append(m.Pods, &extenderv1.MetaPod{UID: string(pod.UID)})
				}
			}
		}
		out[node] = m
	}
	for node, v := range args.NodeNameToMetaVictims {
		m := &extenderv1.MetaVictims{}
		if v != nil {
			m.NumPDBViolations = v.NumPDBViolations
			for _, pod := range v.Pods {
				if pod != nil {
					m.Pods = append(m.Pods, pod)
				}
			}
		}
		out[node] = m
	}
	return out
}
