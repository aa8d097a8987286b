package journal

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/numalane/numalane/pkg/topology"
)

// step changes a pod as the API does, by one write.
type step func(*corev1.Pod)

func bind(p *corev1.Pod) { p.Spec.NodeName = "n" }

func admit(p *corev1.Pod) {
	p.Status.Phase = corev1.PodPending
	p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "app", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}}}}
}

func start(p *corev1.Pod) {
	p.Status.Phase = corev1.PodRunning
	p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "app", ContainerID: "fakeRuntime://x"}}
}

func succeed(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }

// crash is the end of a pod that ran.
func crash(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }

func evict(p *corev1.Pod) { p.Status.Phase, p.Status.Reason = corev1.PodFailed, "Evicted" }

// refuse is what a kubelet writes that does not admit a pod. Statuses of its
// containers come with it at times, and tell of none that ever was.
func refuse(p *corev1.Pod) {
	p.Status.Phase, p.Status.Reason = corev1.PodFailed, "TopologyAffinityError"
	p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "app"}}
}

func condemn(p *corev1.Pod) {
	now := metav1.Now()
	p.DeletionTimestamp = &now
}

func acknowledge(uid string) step {
	return func(p *corev1.Pod) {
		text, err := topology.Encode(topology.Allocation{UID: uid, Containers: []topology.ContainerAllocation{{Name: "app"}}})
		if err != nil {
			panic(err) // the test is wrong
		}
		p.Annotations = map[string]string{topology.AllocationAnnotation: text}
	}
}

// life sees a pod through its steps, one version each from 2 on, and loses it in
// the end if it is to go.
func life(j *Journal, uid, scheduler string, goes bool, steps ...step) Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", UID: types.UID(uid), ResourceVersion: "1"}, Spec: corev1.PodSpec{SchedulerName: scheduler}}
	j.See(p)
	for i, s := range steps {
		p = p.DeepCopy()
		s(p)
		p.ResourceVersion = fmt.Sprint(i + 2)
		j.See(p)
	}
	if goes {
		p = p.DeepCopy()
		p.ResourceVersion = fmt.Sprint(len(steps) + 2)
		j.Lose(p)
	}
	got, _ := j.Pod(types.UID(uid))
	return got
}

func TestPodLife(t *testing.T) {
	tests := map[string]struct {
		steps []step
		goes  bool
		// Versions; 0: never.
		bound, admitted, acked, deleting, ended, left uint64
		refused, forced                               bool
	}{
		"waits":                             {},
		"runs":                              {steps: []step{bind, acknowledge("u"), admit, start}, bound: 2, acked: 3, admitted: 4},
		"ends by itself":                    {steps: []step{bind, admit, start, succeed}, bound: 2, admitted: 3, ended: 5, left: 5},
		"and goes then":                     {steps: []step{bind, admit, start, succeed, condemn}, goes: true, bound: 2, admitted: 3, ended: 5, deleting: 6, left: 5},
		"is refused":                        {steps: []step{bind, refuse}, bound: 2, ended: 3, left: 3, refused: true},
		"ran, and failed":                   {steps: []step{bind, start, crash}, bound: 2, admitted: 3, ended: 4, left: 4},
		"ran, and is told the reason":       {steps: []step{bind, start, evict}, bound: 2, admitted: 3, ended: 4, left: 4},
		"is deleted":                        {steps: []step{bind, start, condemn}, goes: true, bound: 2, admitted: 3, deleting: 4, left: 5},
		"is deleted at once":                {steps: []step{bind, start}, goes: true, bound: 2, admitted: 3, left: 4, forced: true},
		"is told to hold what another does": {steps: []step{bind, acknowledge("another")}, bound: 2, acked: 3},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := life(New(), "u", Scheduler, tt.goes, tt.steps...)
			for what, m := range map[string]struct {
				is   Moment
				want uint64
			}{
				"bound": {p.Bound, tt.bound}, "admitted": {p.Admitted, tt.admitted}, "acknowledged": {p.Acknowledged(), tt.acked},
				"deleting": {p.Deleting, tt.deleting}, "ended": {p.Ended, tt.ended}, "left": {p.Left(), tt.left},
			} {
				if m.is.Version != m.want || m.is.IsZero() != (m.want == 0) {
					t.Errorf("%s at version %d, want %d", what, m.is.Version, m.want)
				}
			}
			if p.Refused() != tt.refused || p.Forced != tt.forced {
				t.Errorf("refused %t, want %t; forced %t, want %t", p.Refused(), tt.refused, p.Forced, tt.forced)
			}
		})
	}
}

func TestForeign(t *testing.T) {
	if p := life(New(), "u", "none", false, bind); !p.Foreign {
		t.Error("a pod of another scheduler is not foreign")
	}
	if p := life(New(), "u", Scheduler, false, bind); p.Foreign {
		t.Error("a pod of ours is foreign")
	}
}

func TestHeldAt(t *testing.T) {
	j := New()
	p := life(j, "u", Scheduler, false, bind, acknowledge("u"), start, acknowledge("another"))
	for version, want := range map[uint64]bool{2: false, 3: true, 4: true, 5: false} {
		if got := p.HeldAt(Moment{Version: version, At: time.Now()}) != nil; got != want {
			t.Errorf("at version %d something is held: %t, want %t", version, got, want)
		}
	}
}

func TestLive(t *testing.T) {
	j := New()
	life(j, "a", Scheduler, false, bind)
	life(j, "b", Scheduler, false, bind, start, succeed)
	life(j, "c", Scheduler, true, bind, start)
	live := j.Live()
	if len(live) != 1 || live[0].UID != "a" {
		t.Errorf("live: %v, want a alone", live)
	}
	if on := j.On("n"); len(on.Pods) != 3 {
		t.Errorf("%d pods were ever on n, want 3", len(on.Pods))
	}
}

func TestBoundAt(t *testing.T) {
	noon := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	at := func(ms int) time.Time { return noon.Add(time.Duration(ms) * time.Millisecond) }
	tests := map[string]struct {
		p              Pod
		bound, decided time.Time
	}{
		"seen at once": {Pod{Bound: Moment{At: at(300)}, Ended: Moment{At: at(400)}, ScheduledAt: at(0), StartedAt: at(0)}, at(300), at(400)},
		"seen late":    {Pod{Bound: Moment{At: at(5300)}, Ended: Moment{At: at(9000)}, ScheduledAt: at(0), StartedAt: at(2000)}, at(1000), at(3000)},
		// Never before the binding, whatever a clock of whole seconds says.
		"the kubelet's second is over": {Pod{Bound: Moment{At: at(1500)}, Ended: Moment{At: at(9000)}, ScheduledAt: at(1000), StartedAt: at(0)}, at(1500), at(1500)},
		"no clock told":                {Pod{Bound: Moment{At: at(300)}, Ended: Moment{At: at(400)}}, at(300), at(400)},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if b, d := tt.p.BoundAt(), tt.p.DecidedAt(); !b.Equal(tt.bound) || !d.Equal(tt.decided) {
				t.Errorf("bound %s, decided %s; want %s, %s", b, d, tt.bound, tt.decided)
			}
		})
	}
}

func TestPublished(t *testing.T) {
	j := New()
	publish := func(version, pools string, vfs string) {
		j.SeeNode(&corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: "n", ResourceVersion: version, Annotations: map[string]string{topology.PoolsAnnotation: pools}},
			Status:     corev1.NodeStatus{Allocatable: corev1.ResourceList{"numalane.io/vf": resource.MustParse(vfs)}},
		})
	}
	publish("10", "one", "2")
	publish("20", "one", "2") // a heartbeat
	publish("30", "two", "2")
	publish("40", "two", "0")
	on := j.On("n")
	if n := len(on.Node.Published); n != 3 {
		t.Fatalf("%d publications, want 3", n)
	}
	for version, want := range map[uint64]uint64{10: 10, 29: 10, 30: 30, 99: 40} {
		if p, ok := on.Node.At(Moment{Version: version, At: time.Now()}); !ok || p.Version != want {
			t.Errorf("at version %d it is that of %d, want %d", version, p.Version, want)
		}
	}
	if _, ok := on.Node.At(Moment{Version: 9, At: time.Now()}); ok {
		t.Error("something was published before the first")
	}
}

func TestOutage(t *testing.T) {
	j := New()
	up := j.Down("n", "kubelet")
	if on := j.On("n"); len(on.Outages) != 1 || !on.Outages[0].To.IsZero() {
		t.Fatalf("outages: %v, want one that lasts", on.Outages)
	}
	up()
	o := j.On("n").Outages[0]
	for name, tt := range map[string]struct {
		from, to time.Duration // after the outage began; its end is at time 0 of the last
		want     bool
	}{
		"before":       {-2 * time.Second, -time.Second, false},
		"into it":      {-time.Second, 0, true},
		"around it":    {-time.Second, time.Hour, true},
		"only after":   {time.Hour, 2 * time.Hour, false},
		"right at end": {o.To.Sub(o.From), time.Hour, true},
	} {
		if got := o.Touches(o.From.Add(tt.from), o.From.Add(tt.to)); got != tt.want {
			t.Errorf("%s: %t, want %t", name, got, tt.want)
		}
	}
	if len(j.On("m").Outages) != 0 {
		t.Error("another node has it too")
	}
}
