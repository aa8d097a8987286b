package extender_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	extenderv1 "k8s.io/kube-scheduler/extender/v1"

	"github.com/numalane/numalane/pkg/allocator"
)

// evictions are nodes by the sets of pods any of which must leave for the pod
// to be admitted, and the pods that the ledger knows there.
type evictions map[string]occupied

type occupied struct {
	enough string // "a0 a1, b0": a0 and a1, or b0; "-" for none at all
	pods   []*v1.Pod
}

func (e evictions) AdmitWithout(node string, _ types.UID, _ *allocator.Request, leaving []types.UID) allocator.Verdict {
	for set := range strings.SplitSeq(e[node].enough, ",") {
		missing := slices.ContainsFunc(strings.Fields(set), func(name string) bool {
			return name != "-" && !slices.Contains(leaving, types.UID(name))
		})
		if !missing && set != "" {
			return allocator.Verdict{Container: -1}
		}
	}
	return allocator.Verdict{Reason: allocator.NUMAUnaligned, Container: -1}
}

func (e evictions) Evictable(node string, below int32) (out []*v1.Pod) {
	for _, p := range e[node].pods {
		if *p.Spec.Priority < below {
			out = append(out, p)
		}
	}
	return out
}

// tenant is a pod of a priority, with CPUs and VFs, whose UID is its name. One
// that is listed later is younger.
func tenant(name string, prio int32, cpus, vfs int64, edit ...func(*v1.Pod)) *v1.Pod {
	p := &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), CreationTimestamp: metav1.NewTime(time.Unix(1_800_000_000, 0))},
		Spec: v1.PodSpec{Priority: &prio, Containers: []v1.Container{{Resources: v1.ResourceRequirements{Requests: v1.ResourceList{
			v1.ResourceCPU:    *resource.NewQuantity(cpus, resource.DecimalSI),
			v1.ResourceMemory: resource.MustParse("64Mi"),
			"numalane.io/vf":  *resource.NewQuantity(vfs, resource.DecimalSI),
		}}}}},
	}
	for _, f := range edit {
		f(p)
	}
	return p
}

func younger(p *v1.Pod) { p.CreationTimestamp.Time = p.CreationTimestamp.Add(time.Hour) }

func aloof(p *v1.Pod) {
	p.Spec.Affinity = &v1.Affinity{PodAntiAffinity: &v1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: make([]v1.PodAffinityTerm, 1)}}
}

// of are victims by their UIDs.
func of(violations int64, uids ...string) *extenderv1.MetaVictims {
	m := &extenderv1.MetaVictims{NumPDBViolations: violations}
	for _, uid := range uids {
		m.Pods = append(m.Pods, &extenderv1.MetaPod{UID: uid})
	}
	return m
}

// important is the lane pod with a priority of 100.
func important(edit ...func(*v1.Pod)) *v1.Pod {
	p := lane()
	prio := int32(100)
	p.Spec.Priority = &prio
	for _, f := range edit {
		f(p)
	}
	return p
}

func TestPreempt(t *testing.T) {
	four := func(prio int32) []*v1.Pod {
		return []*v1.Pod{tenant("a0", 1, 1, 1), tenant("a1", prio, 1, 1), tenant("b0", 1, 1, 1), tenant("b1", prio, 1, 1)}
	}
	type nodes map[string]*extenderv1.MetaVictims
	tests := []struct {
		name  string
		pod   *v1.Pod
		world evictions
		given nodes
		want  nodes
	}{
		{
			"kube-scheduler's choice does", important(),
			evictions{"n": {"a0 b0", four(1)}},
			nodes{"n": of(1, "a0", "b0")},
			nodes{"n": of(1, "a0", "b0")},
		},
		{
			"one node is left out, the other stays", important(),
			evictions{"m": {"x", nil}, "n": {"y", nil}},
			nodes{"m": of(0, "x"), "n": of(0, "z")},
			nodes{"m": of(0, "x")},
		},
		{
			"two VFs of one NUMA node instead of one on each", important(),
			evictions{"n": {"a0 a1, b0 b1", four(1)}},
			nodes{"n": of(2, "a0", "b0")},
			nodes{"n": of(3, "a0", "a1")},
		},
		{
			"the other two are as important as the pod itself", important(),
			evictions{"n": {"a0 a1, b0 b1", four(100)}},
			nodes{"n": of(0, "a0", "b0")},
			nodes{},
		},
		{
			"the less important of two ways", important(),
			evictions{"n": {"a, b", []*v1.Pod{tenant("a", 5, 2, 2), tenant("b", 4, 2, 2), tenant("c", 3, 2, 2)}}},
			nodes{"n": of(0, "c")},
			nodes{"n": of(1, "b")},
		},
		{
			"the younger of two that are as important", important(),
			evictions{"n": {"a, b", []*v1.Pod{tenant("a", 1, 2, 2), tenant("b", 1, 2, 2, younger), tenant("c", 1, 2, 2)}}},
			nodes{"n": of(0, "c")},
			nodes{"n": of(1, "b")},
		},
		{
			"fewer rather than younger", important(),
			evictions{"n": {"a, b c", []*v1.Pod{tenant("a", 1, 2, 2), tenant("b", 1, 1, 1, younger), tenant("c", 1, 1, 1, younger)}}},
			nodes{"n": of(0)},
			nodes{"n": of(1, "a")},
		},
		{
			"three, and no more", important(),
			evictions{"n": {"a b c", []*v1.Pod{tenant("a", 1, 1, 1), tenant("b", 2, 1, 1), tenant("c", 1, 1, 1), tenant("d", 1, 1, 1), tenant("e", 2, 1, 1)}}},
			nodes{"n": of(0)},
			nodes{"n": of(3, "b", "a", "c")},
		},
		{
			"no victims: our filter refused the node, and one that is found helps", important(),
			evictions{"n": {"a", []*v1.Pod{tenant("a", 1, 2, 2)}}},
			nodes{"n": of(0)},
			nodes{"n": of(1, "a")},
		},
		{"no victims, and none helps", important(), evictions{"n": {"", four(1)}}, nodes{"n": of(0)}, nodes{}},
		{"no victims, and none needed by now", important(), evictions{"n": {"-", nil}}, nodes{"n": of(0), "m": nil}, nodes{}},
		{"nothing exclusive: as it came", ordinary(), evictions{}, nodes{"n": of(1, "a"), "m": of(0)}, nodes{"n": of(1, "a")}},
		{
			"a given pod that is not known here never stays", important(),
			evictions{"n": {"a", []*v1.Pod{tenant("a", 1, 8, 8)}}},
			nodes{"n": of(0, "web")},
			nodes{"n": of(1, "a", "web")},
		},
		{
			"the given pod gave more CPUs back than the other does", important(),
			evictions{"n": {"a", []*v1.Pod{tenant("a", 1, 1, 2), tenant("b", 2, 2, 2)}}},
			nodes{"n": of(0, "b")},
			nodes{"n": of(1, "b", "a")},
		},
		{
			"the given pod keeps others away", important(),
			evictions{"n": {"a", []*v1.Pod{tenant("a", 1, 2, 2), tenant("b", 2, 2, 2, aloof)}}},
			nodes{"n": of(0, "b")},
			nodes{"n": of(1, "b", "a")},
		},
		{
			"the pod asks for a host port: who knows who had it", important(func(p *v1.Pod) {
				p.Spec.Containers[0].Ports = []v1.ContainerPort{{HostPort: 80}}
			}),
			evictions{"n": {"a", []*v1.Pod{tenant("a", 1, 2, 2), tenant("b", 2, 2, 2)}}},
			nodes{"n": of(0, "b")},
			nodes{"n": of(1, "b", "a")},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e, _ := newExtender(t, script{Evictions: tt.world}, isReady)
			var got extenderv1.ExtenderPreemptionResult
			call(t, e, "preempt", extenderv1.ExtenderPreemptionArgs{Pod: tt.pod, NodeNameToMetaVictims: tt.given}, &got)
			if d := cmp.Diff(map[string]*extenderv1.MetaVictims(tt.want), got.NodeNameToMetaVictims); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
			whole := map[string]*extenderv1.Victims{}
			for node, m := range tt.given {
				if m == nil {
					whole[node] = nil
					continue
				}
				whole[node] = &extenderv1.Victims{NumPDBViolations: m.NumPDBViolations}
				for _, p := range m.Pods {
					whole[node].Pods = append(whole[node].Pods, &v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: types.UID(p.UID)}})
				}
			}
			got = extenderv1.ExtenderPreemptionResult{}
			call(t, e, "preempt", extenderv1.ExtenderPreemptionArgs{Pod: tt.pod, NodeNameToVictims: whole}, &got)
			if d := cmp.Diff(map[string]*extenderv1.MetaVictims(tt.want), got.NodeNameToMetaVictims); d != "" {
				t.Errorf("with whole pods, -want +got:\n%s", d)
			}
		})
	}
}

// TestPreemptMany: on a node full of small pods the search ends soon.
func TestPreemptMany(t *testing.T) {
	var pods []*v1.Pod
	var all []string
	for i := range 100 {
		p := tenant(fmt.Sprintf("p%03d", i), int32(i%7), 1, 1)
		pods, all = append(pods, p), append(all, p.Name)
	}
	asked := 0
	c := counted{evictions{"n": {strings.Join(all[:50], " "), pods}}, &asked}
	e, _ := newExtender(t, script{Evictions: c}, isReady)
	var got extenderv1.ExtenderPreemptionResult
	call(t, e, "preempt", extenderv1.ExtenderPreemptionArgs{Pod: important(), NodeNameToMetaVictims: map[string]*extenderv1.MetaVictims{"n": of(0)}}, &got)
	if v := got.NodeNameToMetaVictims["n"]; v == nil || len(v.Pods) != 50 {
		t.Errorf("victims %v, want the 50 that are needed", v)
	}
	if asked > 300 {
		t.Errorf("asked %d times, want at most three times a pod", asked)
	}
}

type counted struct {
	evictions
	asked *int
}

func (c counted) AdmitWithout(node string, pod types.UID, r *allocator.Request, leaving []types.UID) allocator.Verdict {
	*c.asked++
	return c.evictions.AdmitWithout(node, pod, r, leaving)
}

func TestPreemptNoAnswer(t *testing.T) {
	e, _ := newExtender(t, script{}, func() error { return errors.New("not yet") })
	if r := call(t, e, "preempt", extenderv1.ExtenderPreemptionArgs{Pod: important()}, nil); r.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("not ready: status %d, want 503: the answer has no place for an error", r.StatusCode)
	}
	e, _ = newExtender(t, script{}, isReady)
	if r := call(t, e, "preempt", extenderv1.ExtenderPreemptionArgs{}, nil); r.StatusCode != http.StatusBadRequest {
		t.Errorf("no pod: status %d, want 400", r.StatusCode)
	}
}

func TestPreemptMetrics(t *testing.T) {
	e, reg := newExtender(t, script{Evictions: evictions{"kept": {"a", nil}, "changed": {"b", []*v1.Pod{tenant("b", 1, 1, 1)}}}}, isReady)
	given := map[string]*extenderv1.MetaVictims{"kept": of(0, "a"), "changed": of(0, "a"), "dropped": of(0, "a")}
	call(t, e, "preempt", extenderv1.ExtenderPreemptionArgs{Pod: important(), NodeNameToMetaVictims: given}, nil)
	want := `
# HELP numalane_extender_preemption_candidates_total Nodes on which kube-scheduler would evict pods, by what became of its choice of victims.
# TYPE numalane_extender_preemption_candidates_total counter
numalane_extender_preemption_candidates_total{victims="changed"} 1
numalane_extender_preemption_candidates_total{victims="dropped"} 1
numalane_extender_preemption_candidates_total{victims="kept"} 1
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "numalane_extender_preemption_candidates_total"); err != nil {
		t.Error(err)
	}
}
