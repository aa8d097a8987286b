package extender_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	extenderv1 "k8s.io/kube-scheduler/extender/v1"

	"github.com/numalane/numalane/internal/extender"
	"github.com/numalane/numalane/pkg/allocator"
)

// script is a Cluster that says what a test wants of each node.
type script struct {
	extender.Evictions
	reasons map[string]allocator.Reason
	scores  map[string]int64 // of 100
	bind    func(*v1.Binding) error
}

func (s script) Admit(nodes []string, _ types.UID, _ *allocator.Request, say func(string, allocator.Verdict)) {
	for _, node := range nodes {
		say(node, allocator.Verdict{Reason: s.reasons[node], Container: -1})
	}
}

func (s script) Score(node string, _ types.UID, _ *allocator.Request, most int64) int64 {
	return s.scores[node] * most / 100
}

func (s script) Bind(_ context.Context, b *v1.Binding) error { return s.bind(b) }

func isReady() error { return nil }

// always leads.
type always struct{}

func (always) Leading() error { return nil }

func (always) Hold(ctx context.Context) (context.Context, func(), error) { return ctx, func() {}, nil }

// cluster is both that an extender asks.
type cluster interface {
	extender.Cluster
	extender.Evictions
}

func newExtender(t testing.TB, c cluster, ready func() error) (*extender.Extender, *prometheus.Registry) {
	t.Helper()
	return newLed(t, c, ready, always{})
}

func newLed(t testing.TB, c cluster, ready func() error, lead extender.Leadership) (*extender.Extender, *prometheus.Registry) {
	t.Helper()
	reg := prometheus.NewRegistry()
	e, err := extender.New(extender.Options{Cluster: c, Evictions: c, Lead: lead, Ready: ready, Log: slog.New(slog.DiscardHandler), Metrics: reg})
	if err != nil {
		t.Fatal(err)
	}
	return e, reg
}

// lane is a pod of 2 exclusive CPUs and 2 VFs.
func lane() *v1.Pod {
	rl := v1.ResourceList{
		v1.ResourceCPU: resource.MustParse("2"), v1.ResourceMemory: resource.MustParse("64Mi"),
		"numalane.io/vf": resource.MustParse("2"),
	}
	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "lane", UID: "uid-lane"},
		Spec:       v1.PodSpec{Containers: []v1.Container{{Name: "app", Resources: v1.ResourceRequirements{Requests: rl, Limits: rl}}}},
	}
}

func ordinary() *v1.Pod {
	return &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web"}, Spec: v1.PodSpec{Containers: []v1.Container{{Name: "app"}}}}
}

func call(t testing.TB, h http.Handler, verb string, in, out any) *http.Response {
	t.Helper()
	body, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodPost, "/"+verb, bytes.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if out != nil {
		if err := json.Unmarshal(w.Body.Bytes(), out); err != nil {
			t.Fatalf("%s answered %d %q: %v", verb, w.Code, w.Body, err)
		}
	}
	return w.Result()
}

func TestFilter(t *testing.T) {
	c := script{reasons: map[string]allocator.Reason{
		"split": allocator.NUMAUnaligned, "small": allocator.NUMAImpossible, "bare": allocator.NoState, "busy": allocator.InFlux,
	}}
	names := func(s ...string) *[]string { return &s }
	tests := []struct {
		name  string
		args  extenderv1.ExtenderArgs
		ready func() error
		want  extenderv1.ExtenderFilterResult
	}{
		{
			"a reason for every other node",
			extenderv1.ExtenderArgs{Pod: lane(), NodeNames: names("a", "split", "small", "b", "bare", "busy")},
			isReady,
			extenderv1.ExtenderFilterResult{
				NodeNames:                  names("a", "b"),
				FailedNodes:                extenderv1.FailedNodesMap{"split": allocator.NUMAUnaligned.String(), "busy": allocator.InFlux.String()},
				FailedAndUnresolvableNodes: extenderv1.FailedNodesMap{"small": allocator.NUMAImpossible.String(), "bare": allocator.NoState.String()},
			},
		},
		{
			"no node passes, and one cannot tell yet: an error, so that kube-scheduler tries again by itself",
			extenderv1.ExtenderArgs{Pod: lane(), NodeNames: names("split", "busy", "small")},
			isReady,
			extenderv1.ExtenderFilterResult{Error: "no node admits the pod now, and of some it cannot be told yet: " + allocator.InFlux.String()},
		},
		{
			"no node passes: an empty list, not none",
			extenderv1.ExtenderArgs{Pod: lane(), NodeNames: names("split")},
			isReady,
			extenderv1.ExtenderFilterResult{
				NodeNames: &[]string{}, FailedNodes: extenderv1.FailedNodesMap{"split": allocator.NUMAUnaligned.String()},
				FailedAndUnresolvableNodes: extenderv1.FailedNodesMap{},
			},
		},
		{
			"a pod that asks for nothing exclusive passes everywhere",
			extenderv1.ExtenderArgs{Pod: ordinary(), NodeNames: names("split", "bare")},
			isReady,
			extenderv1.ExtenderFilterResult{NodeNames: names("split", "bare"), FailedNodes: extenderv1.FailedNodesMap{}, FailedAndUnresolvableNodes: extenderv1.FailedNodesMap{}},
		},
		{
			"Nodes instead of names",
			extenderv1.ExtenderArgs{Pod: lane(), Nodes: &v1.NodeList{}},
			isReady,
			extenderv1.ExtenderFilterResult{Error: "the call has Nodes instead of NodeNames: set nodeCacheCapable: true for this extender in the KubeSchedulerConfiguration"},
		},
		{"neither", extenderv1.ExtenderArgs{Pod: lane()}, isReady, extenderv1.ExtenderFilterResult{Error: "the call has no NodeNames"}},
		{"no pod", extenderv1.ExtenderArgs{NodeNames: names("a")}, isReady, extenderv1.ExtenderFilterResult{Error: "the call has no Pod"}},
		{
			"not ready",
			extenderv1.ExtenderArgs{Pod: lane(), NodeNames: names("a")},
			func() error { return errors.New("not yet") },
			extenderv1.ExtenderFilterResult{Error: "not yet"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e, _ := newExtender(t, c, tt.ready)
			var got extenderv1.ExtenderFilterResult
			if r := call(t, e, "filter", tt.args, &got); r.StatusCode != http.StatusOK {
				t.Errorf("status %d, want 200", r.StatusCode)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}

func TestPrioritize(t *testing.T) {
	tests := []struct {
		name   string
		pod    *v1.Pod
		scores map[string]int64
		want   map[string]int64
	}{
		{"spread between worst and best", lane(), map[string]int64{"a": 100, "b": 50, "c": 10, "d": 9}, map[string]int64{"a": 10, "b": 5, "c": 1, "d": 1}},
		{"all the same", lane(), map[string]int64{"a": 30, "b": 30}, map[string]int64{"a": 10, "b": 10}},
		{"one would refuse by now", lane(), map[string]int64{"a": 30, "b": 0}, map[string]int64{"a": 10, "b": 0}},
		{"all would", lane(), map[string]int64{"a": 0, "b": 0}, map[string]int64{"a": 0, "b": 0}},
		{"nothing exclusive", ordinary(), map[string]int64{"a": 30, "b": 90}, map[string]int64{"a": 0, "b": 0}},
		{"near equals, and the best stands out", lane(), map[string]int64{"a": 11, "b": 10}, map[string]int64{"a": 10, "b": 1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e, _ := newExtender(t, script{scores: tt.scores}, isReady)
			names := []string{"a", "b", "c", "d"}[:len(tt.scores)]
			var got extenderv1.HostPriorityList
			call(t, e, "prioritize", extenderv1.ExtenderArgs{Pod: tt.pod, NodeNames: &names}, &got)
			scores := map[string]int64{}
			for i, h := range got {
				if h.Host != names[i] {
					t.Errorf("host %d is %s, want %s", i, h.Host, names[i])
				}
				scores[h.Host] = h.Score
			}
			if d := cmp.Diff(tt.want, scores); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
	e, _ := newExtender(t, script{}, func() error { return errors.New("not yet") })
	if r := call(t, e, "prioritize", extenderv1.ExtenderArgs{Pod: lane(), NodeNames: &[]string{"a"}}, nil); r.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("not ready: status %d, want 503: the answer has no place for an error", r.StatusCode)
	}
}

func TestBind(t *testing.T) {
	var asked *v1.Binding
	c := script{bind: func(b *v1.Binding) error {
		asked = b
		if b.Target.Name == "full" {
			return errors.New("promised to others")
		}
		return nil
	}}
	e, _ := newExtender(t, c, isReady)
	args := extenderv1.ExtenderBindingArgs{PodName: "lane", PodNamespace: "ns", PodUID: "uid-lane", Node: "n1"}
	for _, tt := range []struct {
		name, node, want string
	}{{"bound", "n1", ""}, {"refused", "full", "promised to others"}, {"no node", "", `the call lacks one of PodName "lane", PodNamespace "ns", PodUID "uid-lane" and Node ""`}} {
		t.Run(tt.name, func(t *testing.T) {
			args := args
			args.Node = tt.node
			var got extenderv1.ExtenderBindingResult
			call(t, e, "bind", args, &got)
			if got.Error != tt.want {
				t.Errorf("error %q, want %q", got.Error, tt.want)
			}
		})
	}
	want := &v1.Binding{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "lane", UID: "uid-lane"}, Target: v1.ObjectReference{Kind: "Node", Name: "full"}}
	if d := cmp.Diff(want, asked); d != "" {
		t.Errorf("the last binding asked for, -want +got:\n%s", d)
	}
}

// TestBadCalls: what is not a call is told so, and is no crash.
func TestBadCalls(t *testing.T) {
	e, _ := newExtender(t, script{}, isReady)
	tests := []struct {
		name, method, path, contentType string
		body                            io.Reader
		code                            int
		text                            string
	}{
		{"GET", "GET", "/filter", "", nil, 405, "want POST"},
		{"another path", "POST", "/reserve", "application/json", strings.NewReader("{}"), 404, "not found"},
		{"not JSON by its type", "POST", "/filter", "text/html", strings.NewReader("{}"), 415, `content type "text/html"`},
		{"no type is fine", "POST", "/filter", "", strings.NewReader("{}"), 200, "no Pod"},
		{"with a charset", "POST", "/bind", "application/json; charset=utf-8", strings.NewReader("{}"), 200, "the call lacks"},
		{"empty", "POST", "/prioritize", "application/json", strings.NewReader(""), 400, "decode the call"},
		{"torn", "POST", "/filter", "application/json", strings.NewReader(`{"Pod":{`), 400, "decode the call"},
		{"another type of value", "POST", "/filter", "application/json", strings.NewReader(`{"NodeNames":"a"}`), 400, "NodeNames"},
		{"two values", "POST", "/bind", "application/json", strings.NewReader(`{} {}`), 400, "decode the call"},
		{"null", "POST", "/filter", "application/json", strings.NewReader(`null`), 200, "no Pod"},
		{"a quantity that is none", "POST", "/filter", "application/json", strings.NewReader(`{"Pod":{"spec":{"containers":[{"resources":{"limits":{"cpu":"many"}}}]}}}`), 400, "decode the call"},
		{"too large", "POST", "/filter", "application/json", io.LimitReader(endless{}, 33<<20), 413, "body of more than 33554432 bytes"},
		{"broken off", "POST", "/filter", "application/json", io.MultiReader(strings.NewReader("{"), broken{}), 400, "read the call: gone"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest(tt.method, tt.path, tt.body)
			if tt.contentType != "" {
				r.Header.Set("Content-Type", tt.contentType)
			}
			w := httptest.NewRecorder()
			e.ServeHTTP(w, r)
			if w.Code != tt.code || !strings.Contains(w.Body.String(), tt.text) {
				t.Errorf("%d %q, want %d and %q in it", w.Code, w.Body, tt.code, tt.text)
			}
			if tt.code == 405 && w.Header().Get("Allow") != "POST" {
				t.Errorf("Allow: %q, want POST", w.Header().Get("Allow"))
			}
		})
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("gone") }

// TestContentLength: kube-scheduler can use its connection again only if the
// answer says how long it is.
func TestContentLength(t *testing.T) {
	e, _ := newExtender(t, script{}, isReady)
	s := httptest.NewServer(e)
	defer s.Close()
	names := make([]string, 5000)
	for i := range names {
		names[i] = fmt.Sprintf("node-%04d.cluster.example", i)
	}
	body, err := json.Marshal(extenderv1.ExtenderArgs{Pod: lane(), NodeNames: &names})
	if err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"filter", "prioritize"} {
		r, err := http.Post(s.URL+"/"+verb, "application/json", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if r.ContentLength != int64(len(got)) || len(got) < 100_000 {
			t.Errorf("%s: Content-Length %d of %d bytes", verb, r.ContentLength, len(got))
		}
	}
}

func TestMetrics(t *testing.T) {
	e, reg := newExtender(t, script{reasons: map[string]allocator.Reason{"split": allocator.NUMAUnaligned}}, isReady)
	call(t, e, "filter", extenderv1.ExtenderArgs{Pod: lane(), NodeNames: &[]string{"a", "split"}}, nil)
	r := httptest.NewRequest(http.MethodGet, "/filter", nil)
	e.ServeHTTP(httptest.NewRecorder(), r)
	want := `
# HELP numalane_extender_requests_total Calls by verb and HTTP status code.
# TYPE numalane_extender_requests_total counter
numalane_extender_requests_total{code="200",verb="bind"} 0
numalane_extender_requests_total{code="200",verb="filter"} 1
numalane_extender_requests_total{code="200",verb="preempt"} 0
numalane_extender_requests_total{code="200",verb="prioritize"} 0
numalane_extender_requests_total{code="405",verb="filter"} 1
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "numalane_extender_requests_total"); err != nil {
		t.Error(err)
	}
	refused := testutil.CollectAndCount(reg, "numalane_extender_nodes_filtered_total")
	if refused != int(allocator.Unknown) {
		t.Errorf("%d reasons have a counter, want all %d", refused, allocator.Unknown)
	}
	problems, err := testutil.GatherAndLint(reg)
	if err != nil || len(problems) > 0 {
		t.Errorf("lint: %v %v", problems, err)
	}
}
