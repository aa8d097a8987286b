package extender_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	extenderv1 "k8s.io/kube-scheduler/extender/v1"

	"github.com/numalane/numalane/pkg/allocator"
	"github.com/numalane/numalane/pkg/topology"
)

// real asks the allocator, so that a pod of any shape reaches it.
type real struct {
	script
	node *allocator.Node
}

func (r real) Admit(nodes []string, _ types.UID, q *allocator.Request, say func(string, allocator.Verdict)) {
	for _, node := range nodes {
		say(node, r.node.Admit(q))
	}
}

func (r real) Score(_ string, _ types.UID, q *allocator.Request, most int64) int64 {
	return r.node.Score(q, most)
}

func (r real) AdmitWithout(_ string, _ types.UID, q *allocator.Request, leaving []types.UID) allocator.Verdict {
	if len(leaving) == 0 {
		return allocator.Verdict{Reason: allocator.NUMAUnaligned}
	}
	return r.node.Admit(q)
}

func (real) Evictable(_ string, below int32) []*v1.Pod {
	return []*v1.Pod{tenant("a", below-1, 1, 1), tenant("b", below-1, 1, 1)}
}

func newReal(t testing.TB) real {
	t.Helper()
	s := &topology.NodeState{}
	s.Topology.Kubelet = topology.Kubelet{
		Minor: 37, TopologyPolicy: topology.PolicySingleNUMANode, TopologyScope: topology.ScopeContainer,
		CPUPolicy: topology.CPUManagerStatic, MemoryPolicy: topology.MemoryManagerStatic,
	}
	for id := range 2 {
		s.Topology.NUMANodes = append(s.Topology.NUMANodes, topology.NodeNUMA{
			ID:     id,
			Cores:  []topology.CoreGroup{{Socket: id, CPUs: []topology.CPUSet{topology.NewCPUSet(4 * id), topology.NewCPUSet(4*id + 1)}}},
			Memory: []topology.Memory{{Type: "memory", Allocatable: 1 << 30}},
		})
	}
	s.Pools.Pools = []topology.Pool{{Resource: "numalane.io/vf", Groups: []topology.Group{{NUMANodes: []int{0}, Total: 4, Healthy: 4}}}}
	n, err := allocator.Compile(s)
	if err != nil {
		t.Fatal(err)
	}
	return real{script: script{bind: func(*v1.Binding) error { return nil }}, node: n}
}

// FuzzCall sends any bytes to every verb. Whatever they are, the answer is one
// that kube-scheduler can read, or a client error; and of a filter every node
// that was asked for has either passed or a reason, of a preemption every node
// a victim.
func FuzzCall(f *testing.F) {
	seed := func(verb string, v any) {
		b, err := json.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(verb, b)
	}
	seed("filter", extenderv1.ExtenderArgs{Pod: lane(), NodeNames: &[]string{"a", "b"}})
	seed("prioritize", extenderv1.ExtenderArgs{Pod: lane(), NodeNames: &[]string{"a", "b"}})
	seed("bind", extenderv1.ExtenderBindingArgs{PodName: "p", PodNamespace: "ns", PodUID: "u", Node: "n"})
	seed("filter", extenderv1.ExtenderArgs{Pod: lane(), Nodes: &v1.NodeList{}})
	seed("preempt", extenderv1.ExtenderPreemptionArgs{Pod: lane(), NodeNameToMetaVictims: map[string]*extenderv1.MetaVictims{"a": of(1, "a"), "b": of(0)}})
	seed("preempt", extenderv1.ExtenderPreemptionArgs{Pod: lane(), NodeNameToVictims: map[string]*extenderv1.Victims{"a": {Pods: []*v1.Pod{ordinary(), nil}}, "b": nil}})
	f.Add("filter", []byte(`{"Pod":{"spec":{"initContainers":[{"resources":{"limits":{"numalane.io/vf":"-3"}}}],"containers":[{"resources":{"limits":{"numalane.io/vf":"9E9","cpu":"1e300"},"requests":{"cpu":"1e300","memory":"-1"}}}]}},"NodeNames":["a","a",""]}`))
	f.Add("filter", []byte(`{"Pod":{},"NodeNames":null}`))
	f.Add("prioritize", []byte(`[]`))
	f.Add("bind", []byte("\xff"))
	e, _ := newExtender(f, newReal(f), isReady)
	f.Fuzz(func(t *testing.T, verb string, body []byte) {
		switch verb {
		case "filter", "prioritize", "preempt", "bind":
		default:
			verb = "filter"
		}
		w := httptest.NewRecorder()
		e.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/"+verb, strings.NewReader(string(body))))
		if w.Code != http.StatusOK {
			if w.Code < 400 || w.Code >= 500 || w.Body.Len() == 0 {
				t.Fatalf("%s: %d %q", verb, w.Code, w.Body)
			}
			return
		}
		var args extenderv1.ExtenderArgs
		switch verb {
		case "filter":
			var got extenderv1.ExtenderFilterResult
			if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
				t.Fatal(err)
			}
			if got.Error != "" {
				return
			}
			if err := json.Unmarshal(body, &args); err != nil {
				t.Fatal(err)
			}
			passed := map[string]bool{}
			for _, n := range *got.NodeNames {
				passed[n] = true
			}
			for _, n := range *args.NodeNames {
				if !passed[n] && got.FailedNodes[n] == "" && got.FailedAndUnresolvableNodes[n] == "" {
					t.Errorf("node %q neither passed nor has a reason", n)
				}
			}
		case "prioritize":
			var got extenderv1.HostPriorityList
			if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
				t.Fatal(err)
			}
			for _, h := range got {
				if h.Score < extenderv1.MinExtenderPriority || h.Score > extenderv1.MaxExtenderPriority {
					t.Errorf("node %q scores %d", h.Host, h.Score)
				}
			}
		case "preempt":
			var got extenderv1.ExtenderPreemptionResult
			if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
				t.Fatal(err)
			}
			for node, v := range got.NodeNameToMetaVictims {
				if v == nil || len(v.Pods) == 0 {
					t.Errorf("node %q comes back without a victim", node)
				}
			}
		case "bind":
			var got extenderv1.ExtenderBindingResult
			if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
				t.Fatal(err)
			}
		}
	})
}
