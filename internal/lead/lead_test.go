package lead_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// TestCatchUp: nobody answers before it knows what was bound before.
func TestCatchUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := alone(t, &bindings{failures: 3})
		synctest.Wait()
		if err := p.Leading(); err == nil || !strings.Contains(err.Error(), "catch up with what was bound before: the API is away") {
			t.Errorf("while catching up: %v", err)
		}
		if _, _, err := p.Hold(t.Context()); err == nil {
			t.Error("it may bind before it has caught up")
		}
		if got := p.gauge(t); got != 0 {
			t.Errorf("the metric says %v", got)
		}
		took := p.within(t, time.Minute, true)
		if calls := p.bindings.calls.Load(); calls != 4 || took > 2*time.Second {
			t.Errorf("%d tries in %s, want 4 at once", calls, took)
		}
		if got := p.gauge(t); got != 1 {
			t.Errorf("the metric says %v", got)
		}
		held, done, err := p.Hold(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, bounded := held.Deadline(); bounded {
			t.Error("the only extender has a deadline")
		}
		done()
		p.stop()
		if p.Leading() == nil {
			t.Error("it leads after its end")
		}
	})
}

func TestBeside(t *testing.T) {
	tests := []struct {
		name   string
		holder string
		wrong  time.Duration // of the holder's clock
		leads  bool
		why    string
	}{
		{"our kube-scheduler", "pod-a_6b1f", 0, true, ""},
		{"its clock is an hour ahead", "pod-a_6b1f", time.Hour, true, ""},
		{"its clock is an hour behind", "pod-a_6b1f", -time.Hour, true, ""},
		{"an identity of its own", "pod-a", 0, true, ""},
		{"a host whose name goes on", "pod-a-2_6b1f", 0, false, "held by pod-a-2_6b1f, and not by the kube-scheduler of host pod-a"},
		{"another host", "pod-b_6b1f", 0, false, "held by pod-b_6b1f"},
		{"given up", "", 0, false, "nobody holds the lease numalane/lease"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := &api{}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				a.renewing(ctx, tt.holder, tt.wrong)
				p := beside(t, a, "pod-a")
				if tt.leads {
					p.within(t, 5*time.Second, true)
					return
				}
				for range 100 {
					time.Sleep(100 * time.Millisecond)
					if err := p.Leading(); err == nil || time.Now().Second() > 1 && !strings.Contains(err.Error(), tt.why) {
						t.Fatalf("%v, want %q", err, tt.why)
					}
				}
			})
		})
	}
}

// TestBesideLapse: once the lease is no longer renewed, by the holder or before
// our eyes, the term ends in time, and so does what was begun within it.
func TestBesideLapse(t *testing.T) {
	tests := []struct {
		name  string
		lapse func(*process, context.CancelFunc)
		why   string
	}{
		{"the holder has died", func(_ *process, stop context.CancelFunc) { stop() }, "no longer renewed by pod-a_1"},
		{"the API is away from here", func(p *process, _ context.CancelFunc) { p.fail(errors.New("no route")) }, "get lease numalane/lease: no route"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := &api{}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				last := a.renewing(ctx, "pod-a_1", 0)
				p := beside(t, a, "pod-a")
				p.within(t, 5*time.Second, true)
				time.Sleep(time.Minute) // it is renewed
				synctest.Wait()
				held, done, err := p.Hold(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				defer done()
				renewed := last()
				tt.lapse(p, cancel)
				<-held.Done()
				if after := time.Since(renewed); after > 10*time.Second || after < 6*time.Second {
					t.Errorf("what was begun ended %s after the last renewal, want at most 10s", after)
				}
				p.within(t, 10*time.Second, false)
				if after := time.Since(renewed); after > 10*time.Second+20*time.Millisecond {
					t.Errorf("it led for %s after the last renewal", after)
				}
				time.Sleep(time.Second)
				if err := p.Leading(); !strings.Contains(err.Error(), tt.why) {
					t.Errorf("%v, want %q", err, tt.why)
				}
			})
		})
	}
}

// TestBesideOutage: after a while without news it has to catch up again.
func TestBesideOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &api{}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		a.renewing(ctx, "pod-a_1", 0)
		p := beside(t, a, "pod-a")
		p.within(t, 5*time.Second, true)
		p.fail(errors.New("no route"))
		time.Sleep(5 * time.Second)
		if err := p.Leading(); err != nil {
			t.Errorf("after a short outage: %v", err)
		}
		p.within(t, 10*time.Second, false)
		p.shut.Store(nil)
		p.within(t, 10*time.Second, true)
		if calls := p.bindings.calls.Load(); calls < 2 {
			t.Errorf("caught up %d time, want again after the outage", calls)
		}
	})
}

// TestBesideTakeover: the lease goes from one pod to the other, by expiry and by
// being given up; never do both lead, and what the one had begun is cut off.
func TestBesideTakeover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &api{}
		one, stopOne := context.WithCancel(t.Context())
		a.renewing(one, "pod-a_1", 5*time.Minute)
		p, q := beside(t, a, "pod-a"), beside(t, a, "pod-b")
		neverBoth(t, p, q)
		p.within(t, 5*time.Second, true)
		stopOne()
		time.Sleep(15 * time.Second) // by then the other may take it
		two, stopTwo := context.WithCancel(t.Context())
		a.renewing(two, "pod-b_1", -5*time.Minute)
		q.within(t, 5*time.Second, true)
		held, done, err := q.Hold(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer done()
		stopTwo()
		synctest.Wait()
		a.renew("", 0)
		began := time.Now()
		<-held.Done()
		if took := time.Since(began); took > time.Second || !strings.Contains(context.Cause(held).Error(), "nobody holds the lease") {
			t.Errorf("what was begun went on for %s after the lease was given up, and ended with: %v", took, context.Cause(held))
		}
		three, stopThree := context.WithCancel(t.Context())
		defer stopThree()
		a.renewing(three, "pod-a_2", 0)
		p.within(t, 5*time.Second, true)
	})
}

// TestElectedTakeover: the leader is cut off from the API, stops in time, and
// the other takes over; later it is stopped, and hands over at once.
func TestElectedTakeover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &api{}
		p := elected(t, a, "a")
		p.within(t, time.Second, true)
		q := elected(t, a, "b")
		neverBoth(t, p, q)
		time.Sleep(time.Minute)
		synctest.Wait() // a renewal that is due at this very moment is over
		if p.Leading() != nil || q.Leading() == nil || !strings.Contains(q.Leading().Error(), `held by "a"`) {
			t.Fatalf("a: %v, b: %v", p.Leading(), q.Leading())
		}
		held, done, err := p.Hold(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		p.fail(errors.New("no route"))
		<-held.Done()
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("a binding went on for %s without the API", took)
		}
		done()
		if p.Leading() == nil {
			t.Error("it leads after its deadline")
		}
		q.within(t, 15*time.Second, true)
		if took := time.Since(began); took < 12*time.Second {
			t.Errorf("the other took over after %s already", took)
		}
		p.shut.Store(nil)
		time.Sleep(time.Minute)
		if p.Leading() == nil || !strings.Contains(p.Leading().Error(), `held by "b"`) {
			t.Errorf("back again: %v", p.Leading())
		}

		// A binding under way delays the hand-over, and nothing new begins.
		_, done, err = q.Hold(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		go q.stop()
		time.Sleep(3 * time.Second)
		if q.Leading() == nil || p.Leading() == nil {
			t.Errorf("while a binding is under way, a: %v, b: %v", p.Leading(), q.Leading())
		}
		done()
		if took := p.within(t, 20*time.Second, true); took > 5*time.Second {
			t.Errorf("the hand-over took %s", took)
		}
	})
}

// TestElectedMany: of several that start at once one leads.
func TestElectedMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &api{}
		ps := []*process{elected(t, a, "a"), elected(t, a, "b"), elected(t, a, "c")}
		neverBoth(t, ps...)
		time.Sleep(10 * time.Second)
		n := 0
		for _, p := range ps {
			if p.Leading() == nil {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%d lead", n)
		}
	})
}

// TestForbidden: what an extender may not do with the lease is told by name.
func TestForbidden(t *testing.T) {
	for _, tt := range []struct {
		name  string
		start func(*testing.T, *api) *process
		want  string
	}{
		{"beside", func(t *testing.T, a *api) *process { return beside(t, a, "pod-a") }, "get lease numalane/lease: leases.coordination.k8s.io"},
		{"elected", func(t *testing.T, a *api) *process { return elected(t, a, "a") }, "get lease numalane/lease: leases.coordination.k8s.io"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := &api{}
				a.renew("pod-a_1", 0)
				p := tt.start(t, a)
				p.fail(apierrors.NewForbidden(leases, name.Name, errors.New("no rule allows it")))
				time.Sleep(20 * time.Second)
				if err := p.Leading(); err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "forbidden") {
					t.Errorf("%v, want %q", err, tt.want)
				}
			})
		})
	}
}
