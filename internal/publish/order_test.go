package publish_test

import (
	"errors"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"github.com/numalane/numalane/internal/publish"
	"github.com/numalane/numalane/pkg/topology"
)

// metric is the value of one series, as "name{label="x"}" in a scrape.
func (l *lane) metric(t *testing.T, name string, labels map[string]string) float64 {
	t.Helper()
	families, err := l.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
	series:
		for _, m := range f.GetMetric() {
			for _, p := range m.GetLabel() {
				if want, ok := labels[p.GetName()]; ok && want != p.GetValue() {
					continue series
				}
			}
			if h := m.GetHistogram(); h != nil {
				return float64(h.GetSampleCount())
			}
			return m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	t.Fatalf("no metric %s %v", name, labels)
	return 0
}

func policy(p string) func(*topology.NodeState) {
	return func(s *topology.NodeState) { s.Topology.Kubelet.TopologyPolicy = p }
}

// Another instance wrote a newer state between our look and our write, and the
// watch has not told yet: ours is refused, the kubelet is read again, and what
// is written then is as new.
func TestOlderStateDoesNotWin(t *testing.T) {
	run(t, []runtime.Object{node()}, state(), func(t *testing.T, l *lane) {
		l.api.take()
		sneak := true
		l.api.client.PrependReactor("patch", "nodes", func(clienttesting.Action) (bool, runtime.Object, error) {
			if !sneak {
				return false, nil, nil
			}
			sneak = false
			// The fake client is locked in here; what it stands on is not.
			obj, err := l.api.client.Tracker().Get(v1.SchemeGroupVersion.WithResource("nodes"), "", "n1")
			if err != nil {
				t.Error(err)
				return false, nil, nil
			}
			n := obj.DeepCopyObject().(*v1.Node)
			n.Labels["numalane.io/topology-policy"] = "restricted"
			n.ResourceVersion = "500"
			l.api.update(n)
			l.source.mu.Lock()
			policy("restricted")(&l.source.state) // the kubelet had restarted once more
			l.source.mu.Unlock()
			return false, nil, nil
		})
		l.set(policy("best-effort"))
		settle()
		got := l.api.take()
		if len(got) != 2 || !strings.Contains(got[0].Body, "best-effort") || strings.Contains(got[1].Body, "best-effort") {
			t.Errorf("writes %v, want one that is refused and one of what was read after it", got)
		}
		if p := l.api.node().Labels["numalane.io/topology-policy"]; p != "restricted" {
			t.Errorf("policy %s in the end, want the newest", p)
		}
		if n := l.metric(t, "numalane_plugin_writes_total", map[string]string{"object": "node", "result": "conflict"}); n != 1 {
			t.Errorf("%v conflicts counted", n)
		}
	})
}

// A write arrived and its answer did not: it is not made again, and what comes
// after it is written.
func TestAnswerIsLost(t *testing.T) {
	run(t, []runtime.Object{node(), pod()}, state(), func(t *testing.T, l *lane) {
		l.api.take()
		l.api.mu.Lock()
		l.api.lose = true
		l.api.mu.Unlock()
		l.set(func(s *topology.NodeState) { s.Held = []topology.Allocation{held("cnf-uid")} })
		time.Sleep(20 * time.Millisecond)
		synctest.Wait()
		l.api.mu.Lock()
		l.api.lose = false
		l.api.mu.Unlock()
		time.Sleep(time.Minute)
		if got := l.api.take(); len(got) != 1 {
			t.Errorf("writes %v, want the one alone whose answer was lost", got)
		}
		if n := l.metric(t, "numalane_plugin_corrections_total", map[string]string{"object": "pod"}); n != 0 {
			t.Error("our own write is taken for somebody else's")
		}
	})
}

// With the API away for minutes the tries get few; when it is back, what is due
// is written as soon as the watch is, whatever the writes' backoff has come to.
func TestAPIIsAway(t *testing.T) {
	var away atomic.Bool
	away.Store(true)
	refuse := func(clienttesting.Action) (bool, runtime.Object, error) {
		if away.Load() {
			return true, nil, errors.New("connection refused")
		}
		return false, nil, nil
	}
	run(t, []runtime.Object{node(), pod()}, state(), func(t *testing.T, l *lane) {
		l.api.client.PrependReactor("patch", "*", refuse)
		l.api.take()
		l.set(func(s *topology.NodeState) { s.Held = []topology.Allocation{held("cnf-uid")} })
		for n := range 300 { // the kubelet goes on meanwhile
			time.Sleep(time.Second)
			if n == 100 {
				l.set(policy("restricted"))
			}
			l.poke()
		}
		unreachable := l.metric(t, "numalane_plugin_writes_total", map[string]string{"object": "pod", "result": "unreachable"})
		if unreachable < 10 || unreachable > 100 {
			t.Errorf("%v tries in 300 s, want some, with backoff", unreachable)
		}
		away.Store(false)
		time.Sleep(15 * time.Second)
		synctest.Wait()
		expectObjects(t, l.api.take(), "pod/lane/cnf", "node/n1")
		if p := l.api.node().Labels["numalane.io/topology-policy"]; p != "restricted" {
			t.Errorf("policy %s", p)
		}
		if n := l.logs.count("cannot write to this node's pods"); n != 1 {
			t.Errorf("that the API is away is logged %d times, want once", n)
		}
	})
}

// That the watch is back ends the writes' backoff at once.
func TestWatchIsTheSignThatTheAPIIsBack(t *testing.T) {
	run(t, []runtime.Object{node(), pod()}, state(), func(t *testing.T, l *lane) {
		l.api.take()
		l.api.setDeny(errors.New("connection refused"))
		watches := l.api.stopWatches()
		l.set(func(s *topology.NodeState) { s.Held = []topology.Allocation{held("cnf-uid")} })
		time.Sleep(5 * time.Minute)
		l.api.take()
		l.api.setDeny(nil)
		began := time.Now()
		watches()
		time.Sleep(2 * lastWatchRetry)
		got := l.api.take()
		if len(got) != 1 {
			t.Fatalf("writes %v, want the pod's", got)
		}
		if d := got[0].at.Sub(began); d > 2*lastWatchRetry {
			t.Errorf("written %v after the API was back", d)
		}
	})
}

const lastWatchRetry = 2 * time.Second

func expectObjects(t *testing.T, got []written, want ...string) {
	t.Helper()
	names := map[string]int{}
	for _, w := range got {
		names[w.Object]++
	}
	for _, w := range want {
		if names[w] == 0 {
			t.Errorf("nothing was written to %s: %v", w, got)
		}
	}
}

// The time from the first sign of an admission counts, also of a pod that the
// watch shows later than the kubelet; what was held before does not.
func TestLatencyIsCounted(t *testing.T) {
	before := pod()
	before.Name, before.UID = "before", "before-uid"
	run(t, []runtime.Object{node(), before}, state(held("before-uid")), func(t *testing.T, l *lane) {
		count := func() float64 { return l.metric(t, "numalane_plugin_admission_to_published_seconds", nil) }
		if n := count(); n != 0 {
			t.Errorf("%v counted of what was held before", n)
		}
		l.set(func(s *topology.NodeState) { s.Pools.Unowned = []topology.Allocation{held("cnf-uid")} })
		settle()
		l.source.mu.Lock()
		l.source.state.Held, l.source.state.Pools.Unowned = append(l.source.state.Held, held("cnf-uid")), nil
		l.source.mu.Unlock()
		l.api.update(pod())
		settle()
		if n := count(); n != 1 {
			t.Errorf("%v counted, want 1", n)
		}
	})
}

func TestMetricsAreWellFormed(t *testing.T) {
	run(t, []runtime.Object{node()}, state(), func(t *testing.T, l *lane) {
		problems, err := testutil.GatherAndLint(l.registry)
		if err != nil || len(problems) > 0 {
			t.Error(problems, err)
		}
		l.set(func(s *topology.NodeState) { s.Topology.Inexact = "cpu_manager_state has an unknown format" })
		settle()
		if n := l.metric(t, "numalane_plugin_state_inexact", nil); n != 1 {
			t.Errorf("inexact is %v", n)
		}
		if _, err := publish.New(publish.Options{Metrics: l.registry}); err == nil {
			t.Error("the same metrics are registered twice")
		}
	})
}

// A Node that the kubelet made anew gets all again at once; one that is gone is
// not made by us.
func TestNodeIsMadeAnew(t *testing.T) {
	run(t, []runtime.Object{node()}, state(), func(t *testing.T, l *lane) {
		l.api.take()
		if err := l.api.client.Tracker().Delete(v1.SchemeGroupVersion.WithResource("nodes"), "", "n1"); err != nil {
			t.Fatal(err)
		}
		settle()
		l.set(policy("restricted"))
		time.Sleep(time.Minute)
		expect(t, "no Node", l.api.take())
		n := node()
		n.UID, n.ResourceVersion = "second-uid", "700"
		l.api.update(n)
		time.Sleep(50 * time.Millisecond)
		synctest.Wait()
		got := l.api.take()
		if len(got) != 1 || !strings.Contains(got[0].Body, `"uid":"second-uid"`) {
			t.Errorf("writes %v, want one to the new Node at once", got)
		}
		if n := l.metric(t, "numalane_plugin_corrections_total", map[string]string{"object": "node"}); n != 0 {
			t.Error("a new Node is taken for one that somebody edited")
		}
	})
}

// What somebody else wrote is put right at once, and counted; one who does it
// without end, as a plugin of another version that does not know of this one,
// is answered ever less often.
func TestBadInputIsPutRight(t *testing.T) {
	for what, value := range map[string]string{
		"truncated": `{"version":1,"pools":[{"resource":"numalane.io/sr`,
		"forged":    `{"version":1,"pools":[]}`,
		"newer":     `{"version":2,"pools":"of another form"}`,
		"newer by a field, free apart the same": `{"version":1,"future":true,"pools":[{"resource":"numalane.io/sriov","allocationPolicy":"packed","groups":[` +
			`{"numaNodes":[0],"pf":"0000:3b:00.0","total":8,"healthy":7,"free":7},{"numaNodes":[0],"pf":"0000:3c:00.0","total":4,"healthy":4,"free":4},` +
			`{"numaNodes":[1],"pf":"0000:af:00.0","total":8,"healthy":8,"free":8}]},` +
			`{"resource":"vendor.example/gpu","foreign":true,"groups":[{"numaNodes":[1],"total":2,"healthy":2,"free":2}]}]}`,
		"gone": "",
	} {
		t.Run(what, func(t *testing.T) {
			run(t, []runtime.Object{node(), pod()}, state(held("cnf-uid")), func(t *testing.T, l *lane) {
				want, wantPod := l.api.node().Annotations[topology.PoolsAnnotation], l.api.pod("lane", "cnf").Annotations[topology.AllocationAnnotation]
				l.api.take()
				edit := func(version string) {
					n, p := l.api.node(), l.api.pod("lane", "cnf")
					n.ResourceVersion, p.ResourceVersion = version+"1", version+"2"
					n.Annotations[topology.PoolsAnnotation], p.Annotations[topology.AllocationAnnotation] = value, value
					if value == "" {
						n.Annotations, p.Annotations = nil, nil
					}
					l.api.mu.Lock()
					l.api.put(n)
					l.api.put(p)
					l.api.version += 1000
					l.api.mu.Unlock()
				}
				edit("90")
				time.Sleep(50 * time.Millisecond)
				synctest.Wait()
				if got := l.api.node().Annotations[topology.PoolsAnnotation]; got != want {
					t.Errorf("the Node is left with %s", got)
				}
				if got := l.api.pod("lane", "cnf").Annotations[topology.AllocationAnnotation]; got != wantPod {
					t.Errorf("the pod is left with %s", got)
				}
				for _, object := range []string{"node", "pod"} {
					if n := l.metric(t, "numalane_plugin_corrections_total", map[string]string{"object": object}); n != 1 {
						t.Errorf("%v corrections of a %s counted", n, object)
					}
				}
			})
		})
	}
}

func TestNoFightWithoutEnd(t *testing.T) {
	run(t, []runtime.Object{node()}, state(), func(t *testing.T, l *lane) {
		l.api.take()
		for range 600 {
			n := l.api.node()
			n.Annotations[topology.PoolsAnnotation] = `{"version":2}`
			l.api.mu.Lock()
			l.api.version++
			n.ResourceVersion = strconv.Itoa(l.api.version)
			l.api.put(n)
			l.api.mu.Unlock()
			time.Sleep(time.Second)
		}
		if n := len(l.api.take()); n < 5 || n > 30 {
			t.Errorf("%d writes in 600 s against one who writes each second, want few", n)
		}
		time.Sleep(2 * time.Minute)
		if got := l.api.node().Annotations[topology.PoolsAnnotation]; strings.Contains(got, `"version":2`) {
			t.Error("the other one ended, and its word stands")
		}
	})
}
