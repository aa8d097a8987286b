package lead_test

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"
	clienttesting "k8s.io/client-go/testing"

	"github.com/numalane/numalane/internal/lead"
)

var (
	leases = schema.GroupResource{Group: "coordination.k8s.io", Resource: "leases"}
	name   = types.NamespacedName{Namespace: "numalane", Name: "lease"}
)

// api holds one lease, and refuses a write that is not based on its last
// version; client-go's own fake takes every write.
type api struct {
	mu      sync.Mutex
	lease   *coordinationv1.Lease
	version int
}

// door is one process's way to the API. It can be shut.
type door struct {
	*api
	shut atomic.Pointer[error]
}

func (a *api) door() (*door, coordinationclient.LeasesGetter) {
	d := &door{api: a}
	client := fake.NewClientset()
	client.PrependReactor("*", "leases", d.react)
	return d, client.CoordinationV1()
}

func (d *door) fail(err error) { d.shut.Store(&err) }

func (d *door) react(action clienttesting.Action) (bool, runtime.Object, error) {
	if err := d.shut.Load(); err != nil {
		return true, nil, *err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch action.GetVerb() {
	case "update":
		next := action.(clienttesting.UpdateAction).GetObject().(*coordinationv1.Lease)
		if d.lease == nil || next.ResourceVersion != d.lease.ResourceVersion {
			return true, nil, apierrors.NewConflict(leases, next.Name, errors.New("another version"))
		}
		return true, d.put(next), nil
	case "create":
		if d.lease != nil {
			return true, nil, apierrors.NewAlreadyExists(leases, d.lease.Name)
		}
		return true, d.put(action.(clienttesting.CreateAction).GetObject().(*coordinationv1.Lease)), nil
	}
	if d.lease == nil {
		return true, nil, apierrors.NewNotFound(leases, name.Name)
	}
	return true, d.lease.DeepCopy(), nil
}

func (a *api) put(l *coordinationv1.Lease) *coordinationv1.Lease {
	a.version++
	a.lease = l.DeepCopy()
	a.lease.ResourceVersion = strconv.Itoa(a.version)
	return a.lease.DeepCopy()
}

// renew is what a kube-scheduler of this identity does, by a clock that is
// wrong by so much. An empty identity gives the lease up.
func (a *api) renew(identity string, wrong time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	seconds, terms := int32(15), int32(0)
	if identity == "" {
		seconds = 1
	}
	if a.lease != nil {
		terms = *a.lease.Spec.LeaseTransitions
		if *a.lease.Spec.HolderIdentity != identity {
			terms++
		}
	}
	now := metav1.NewMicroTime(time.Now().Add(wrong))
	a.put(&coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: name.Namespace, Name: name.Name},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: &identity, LeaseDurationSeconds: &seconds, LeaseTransitions: &terms, RenewTime: &now},
	})
}

// renewing renews every two seconds until the context ends, and tells when it
// last did.
func (a *api) renewing(ctx context.Context, identity string, wrong time.Duration) (last func() time.Time) {
	var at atomic.Int64
	go func() {
		tick := time.NewTicker(2 * time.Second)
		defer tick.Stop()
		for {
			a.renew(identity, wrong)
			at.Store(time.Now().UnixNano())
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	}()
	return func() time.Time { return time.Unix(0, at.Load()) }
}

// bindings catches up, or fails as often as is said.
type bindings struct {
	failures int32
	calls    atomic.Int32
}

func (b *bindings) CatchUp(context.Context) error {
	if b.calls.Add(1) <= b.failures {
		return errors.New("the API is away")
	}
	return nil
}

// process is one extender.
type process struct {
	*lead.Term
	*door
	bindings *bindings
	reg      *prometheus.Registry
	stop     func()
}

// start runs a process in the bubble until it is stopped or the test ends.
func start(t *testing.T, a *api, b *bindings, run func(*lead.Term, coordinationclient.LeasesGetter) func(context.Context) error) *process {
	t.Helper()
	p := &process{bindings: b, reg: prometheus.NewRegistry()}
	var client coordinationclient.LeasesGetter
	p.door, client = a.door()
	var err error
	if p.Term, err = lead.NewTerm(p.bindings, slog.New(slog.DiscardHandler), p.reg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(p.Term, client)(ctx) }()
	p.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(p.stop)
	return p
}

func beside(t *testing.T, a *api, host string) *process {
	return start(t, a, &bindings{}, func(term *lead.Term, c coordinationclient.LeasesGetter) func(context.Context) error {
		return (&lead.Beside{Term: term, Leases: c, Lease: name, Host: host}).Run
	})
}

func elected(t *testing.T, a *api, identity string) *process {
	return start(t, a, &bindings{}, func(term *lead.Term, c coordinationclient.LeasesGetter) func(context.Context) error {
		return (&lead.Elected{Term: term, Leases: c, Lease: name, Identity: identity, Duration: 15 * time.Second}).Run
	})
}

func alone(t *testing.T, b *bindings) *process {
	return start(t, &api{}, b, func(term *lead.Term, _ coordinationclient.LeasesGetter) func(context.Context) error {
		return lead.Alone{Term: term}.Run
	})
}

// within waits, in the bubble's time, until the process leads or no longer does.
func (p *process) within(t *testing.T, most time.Duration, leads bool) time.Duration {
	t.Helper()
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		synctest.Wait()
		if (p.Leading() == nil) == leads {
			return time.Since(began)
		}
		if time.Since(began) > most {
			t.Fatalf("after %s: %v, want that it leads: %t", most, p.Leading(), leads)
		}
	}
}

// gauge is what the metric says.
func (p *process) gauge(t *testing.T) float64 {
	t.Helper()
	families, err := p.reg.Gather()
	if err != nil || len(families) != 1 {
		t.Fatalf("metrics %v %v", families, err)
	}
	if problems, err := testutil.GatherAndLint(p.reg); err != nil || len(problems) > 0 {
		t.Errorf("lint: %v %v", problems, err)
	}
	return families[0].GetMetric()[0].GetGauge().GetValue()
}

// neverBoth watches, until the test ends, that at most one leads.
func neverBoth(t *testing.T, ps ...*process) {
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	go func() {
		for ctx.Err() == nil {
			n := 0
			for _, p := range ps {
				if p.Leading() == nil {
					n++
				}
			}
			if n > 1 {
				t.Errorf("%d lead", n)
				return
			}
			select {
			case <-ctx.Done():
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
}
