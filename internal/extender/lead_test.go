package extender_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	v1 "k8s.io/api/core/v1"
	extenderv1 "k8s.io/kube-scheduler/extender/v1"
)

// follower does not lead; if late it seems to until a binding asks.
type follower struct{ late bool }

var errFollower = errors.New("not leading: the lease is held by another")

func (f follower) Leading() error {
	if f.late {
		return nil
	}
	return errFollower
}

func (follower) Hold(context.Context) (context.Context, func(), error) { return nil, nil, errFollower }

// TestFollower: of the verbs none is answered, each says why where it can, and
// the connection ends.
func TestFollower(t *testing.T) {
	c := script{bind: func(*v1.Binding) error { t.Error("a follower binds"); return nil }}
	e, reg := newLed(t, c, isReady, follower{})
	names := &[]string{"a"}
	tests := []struct {
		verb string
		args any
		code int
		body string
	}{
		{"filter", extenderv1.ExtenderArgs{Pod: lane(), NodeNames: names}, 200, `"Error":"not leading: the lease is held by another"`},
		{"prioritize", extenderv1.ExtenderArgs{Pod: lane(), NodeNames: names}, 503, "not leading"},
		{"preempt", extenderv1.ExtenderPreemptionArgs{Pod: lane()}, 503, "not leading"},
		{"bind", extenderv1.ExtenderBindingArgs{PodName: "p", PodNamespace: "ns", PodUID: "u", Node: "a"}, 200, `"Error":"not leading: the lease is held by another"`},
	}
	for _, tt := range tests {
		t.Run(tt.verb, func(t *testing.T) {
			r := call(t, e, tt.verb, tt.args, nil)
			body := new(strings.Builder)
			if err := r.Write(body); err != nil || r.StatusCode != tt.code || !strings.Contains(body.String(), tt.body) {
				t.Errorf("%d %s (%v), want %d and %s in it", r.StatusCode, body, err, tt.code, tt.body)
			}
			if got := r.Header.Get("Connection"); got != "close" {
				t.Errorf("Connection: %q: it would stay with the follower", got)
			}
		})
	}
	late, lateReg := newLed(t, c, isReady, follower{late: true})
	var got extenderv1.ExtenderBindingResult
	call(t, late, "bind", tests[3].args, &got)
	if got.Error != errFollower.Error() {
		t.Errorf("a binding that comes as the lease is lost: %q", got.Error)
	}
	want := func(filter, bind int) string {
		return fmt.Sprintf(`
# HELP numalane_extender_not_leading_total Calls refused because another extender leads, or none does, by verb.
# TYPE numalane_extender_not_leading_total counter
numalane_extender_not_leading_total{verb="bind"} %d
numalane_extender_not_leading_total{verb="filter"} %d
numalane_extender_not_leading_total{verb="preempt"} %d
numalane_extender_not_leading_total{verb="prioritize"} %d
`, bind, filter, filter, filter)
	}
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want(1, 1)), "numalane_extender_not_leading_total"); err != nil {
		t.Error(err)
	}
	if err := testutil.GatherAndCompare(lateReg, strings.NewReader(want(0, 1)), "numalane_extender_not_leading_total"); err != nil {
		t.Error(err)
	}
}

// term is a lease's, which ends when the test says so.
type term struct {
	always
	ctx  context.Context
	done int
}

func (l *term) Hold(context.Context) (context.Context, func(), error) {
	return l.ctx, func() { l.done++ }, nil
}

// TestTermEnds: a binding under way has no longer than the term.
func TestTermEnds(t *testing.T) {
	ctx, end := context.WithCancel(t.Context())
	l := &term{ctx: ctx}
	c := waiting{began: end}
	e, _ := newLed(t, c, isReady, l)
	var got extenderv1.ExtenderBindingResult
	call(t, e, "bind", extenderv1.ExtenderBindingArgs{PodName: "p", PodNamespace: "ns", PodUID: "u", Node: "a"}, &got)
	if got.Error != context.Canceled.Error() || l.done != 1 {
		t.Errorf("error %q, told %d times that it is over", got.Error, l.done)
	}
}

// waiting binds until it is no longer allowed to.
type waiting struct {
	script
	began func()
}

func (w waiting) Bind(ctx context.Context, _ *v1.Binding) error {
	w.began()
	<-ctx.Done()
	return ctx.Err()
}

// TestConnections: a refusal of a follower costs the connection, as kube-scheduler
// would else stay with it; every other answer leaves it.
func TestConnections(t *testing.T) {
	for _, tt := range []struct {
		name string
		lead interface {
			Leading() error
			Hold(context.Context) (context.Context, func(), error)
		}
		want int
	}{{"a leader", always{}, 1}, {"a follower", follower{}, 3}} {
		t.Run(tt.name, func(t *testing.T) {
			e, _ := newLed(t, script{}, isReady, tt.lead)
			s := httptest.NewServer(e)
			defer s.Close()
			fresh := 0
			trace := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(c httptrace.GotConnInfo) {
				if !c.Reused {
					fresh++
				}
			}})
			client := &http.Client{Transport: &http.Transport{}}
			for range 3 {
				req, err := http.NewRequestWithContext(trace, http.MethodPost, s.URL+"/filter", strings.NewReader("{}"))
				if err != nil {
					t.Fatal(err)
				}
				r, err := client.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				var b strings.Builder
				_ = r.Write(&b)
				r.Body.Close()
			}
			if fresh != tt.want {
				t.Errorf("%d connections, want %d", fresh, tt.want)
			}
		})
	}
}
