package extender

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	extenderv1 "k8s.io/kube-scheduler/extender/v1"

	"github.com/numalane/numalane/pkg/allocator"
)

// question is a call of filter or prioritize.
type question struct {
	pod     *v1.Pod
	nodes   []string
	request *allocator.Request
}

func newQuestion(args *extenderv1.ExtenderArgs) (*question, error) {
	switch {
	case args.Pod == nil:
		return nil, errors.New("the call has no Pod")
	case args.NodeNames == nil && args.Nodes != nil:
		return nil, errors.New("the call has Nodes instead of NodeNames: set nodeCacheCapable: true for this extender in the KubeSchedulerConfiguration")
	case args.NodeNames == nil:
		return nil, errors.New("the call has no NodeNames")
	}
	return &question{args.Pod, *args.NodeNames, allocator.NewRequest(args.Pod)}, nil
}

// filter tells for every node whether its kubelet would admit the pod. Each
// node that would not has one reason: kube-scheduler takes a node without one
// for beyond help and says nothing about it.
func (e *Extender) filter(_ context.Context, args *extenderv1.ExtenderArgs) (*filtered, error) {
	start := time.Now()
	q, err := newQuestion(args)
	if err != nil {
		return &filtered{fault: err.Error()}, nil
	}
	if !q.request.Exclusive() {
		return &filtered{pass: q.nodes}, nil
	}
	out := &filtered{pass: make([]string, 0, len(q.nodes))}
	var counts tally
	passing := allocator.Admitted
	e.cluster.Admit(q.nodes, q.pod.UID, q.request, func(node string, v allocator.Verdict) {
		if v.OK() {
			out.pass = append(out.pass, node)
			return
		}
		out.refused = append(out.refused, refusal{node, v.Reason})
		counts.add(v.Reason)
		if v.Reason.Passes() {
			passing = v.Reason
		}
	})
	e.metrics.filtered(&counts)
	if len(out.pass) == 0 && passing != allocator.Admitted {
		// kube-scheduler tries a pod without a node again when something in the
		// cluster changes. What it sees of that it may see before we do, and there
		// need not be a second change; after an error it tries again by itself,
		// within seconds (schedule_one.go, handleSchedulingFailure).
		out = &filtered{fault: "no node admits the pod now, and of some it cannot be told yet: " + passing.String()}
	}
	e.log.Debug("filter", "pod", q.pod.Namespace+"/"+q.pod.Name, "nodes", len(q.nodes), "pass", len(out.pass), "took", time.Since(start))
	return out, nil
}

// fine is the resolution in which scores are compared before they are told.
const fine = 1 << 20

// prioritize tells how well the pod would sit on each node.
//
// kube-scheduler neither normalises nor clamps what an extender says, and
// reads only 0 to 10. So the nodes are spread over 1 to 10 between the worst
// and the best of them, as its own plugins do among themselves: near equals
// stay near, and the best does not tie with the second for want of steps. 0 is
// left to nodes that would refuse the pod by now.
func (e *Extender) prioritize(_ context.Context, args *extenderv1.ExtenderArgs) (extenderv1.HostPriorityList, error) {
	q, err := newQuestion(args)
	if err != nil {
		// The answer is a bare list, without a place for an error.
		return nil, &fault{http.StatusBadRequest, err}
	}
	out := make(extenderv1.HostPriorityList, len(q.nodes))
	for i, node := range q.nodes {
		out[i].Host = node
	}
	if !q.request.Exclusive() {
		return out, nil
	}
	worst, best := int64(fine), int64(0)
	for i := range out {
		s := min(e.cluster.Score(out[i].Host, q.pod.UID, q.request, fine), fine)
		out[i].Score = s
		if s > 0 {
			worst, best = min(worst, s), max(best, s)
		}
	}
	for i := range out {
		out[i].Score = spread(out[i].Score, worst, best)
	}
	return out, nil
}

// spread maps worst to 1 and best to MaxExtenderPriority, and nothing to 0.
func spread(s, worst, best int64) int64 {
	const steps = extenderv1.MaxExtenderPriority - 1
	switch {
	case s <= 0:
		return 0
	case worst == best:
		return extenderv1.MaxExtenderPriority
	}
	return 1 + (s-worst)*steps/(best-worst)
}

func (e *Extender) bind(ctx context.Context, args *extenderv1.ExtenderBindingArgs) (*extenderv1.ExtenderBindingResult, error) {
	if err := e.bindAsLeader(ctx, args); err != nil {
		e.log.Info("pod not bound", "pod", args.PodNamespace+"/"+args.PodName, "node", args.Node, "err", err)
		return &extenderv1.ExtenderBindingResult{Error: err.Error()}, nil
	}
	e.log.Debug("bind", "pod", args.PodNamespace+"/"+args.PodName, "node", args.Node)
	return &extenderv1.ExtenderBindingResult{}, nil
}

func (e *Extender) bindAsLeader(ctx context.Context, args *extenderv1.ExtenderBindingArgs) error {
	if args.PodName == "" || args.PodNamespace == "" || args.PodUID == "" || args.Node == "" {
		return fmt.Errorf("the call lacks one of PodName %q, PodNamespace %q, PodUID %q and Node %q", args.PodName, args.PodNamespace, args.PodUID, args.Node)
	}
	ctx, done, err := e.lead.Hold(ctx)
	if err != nil {
		e.metrics.notLeading.WithLabelValues("bind").Inc()
		return err
	}
	defer done()
	return e.cluster.Bind(ctx, &v1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: args.PodNamespace, Name: args.PodName, UID: args.PodUID},
		Target:     v1.ObjectReference{Kind: "Node", Name: args.Node},
	})
}
