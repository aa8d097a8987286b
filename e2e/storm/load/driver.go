package load

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/numalane/numalane/e2e/storm/journal"
)

// book is what the driver reads.
type book interface {
	Live() []journal.Pod
}

// Driver has pods come in bursts, and takes some away, so that there are always
// more than fit.
type Driver struct {
	Client   kubernetes.Interface
	Book     book
	Dice     *rand.Rand
	Nodes    []string
	Deadline time.Time // when the last pod is to have ended by itself

	made    int
	foreign int
	// heirs are pods to be created under the name of one that was deleted.
	heirs map[string]*corev1.Pod
}

const (
	tick = 500 * time.Millisecond
	// parallel is how many pods are created at once: faster than kube-scheduler,
	// which binds one after the other.
	parallel = 8
	// leastWaiting and mostWaiting are how many pods wait after a burst.
	leastWaiting, mostWaiting = 40, 80
	// patience is how long a pod waits before it may be given up for one that
	// fits: or in the end all that wait are such as nothing fits for.
	patience = 15 * time.Second
)

// How many of a thousand pods a tick takes away: of all, of those that have lost
// patience, and in a gust, one tick of gusts.
const (
	thinned, impatient, gust = 8, 60, 350
	gusts                    = 60
)

// Run drives until ctx ends. What the API refuses is tried again in another
// form with the next tick: it is cut off at times.
func (d *Driver) Run(ctx context.Context) {
	d.heirs = map[string]*corev1.Pod{}
	next := time.Now()
	t := time.NewTicker(tick)
	defer t.Stop()
	for {
		live := d.Book.Live()
		if time.Now().After(next) {
			d.burst(ctx, live)
			next = time.Now().Add(time.Duration(1000+d.Dice.IntN(3000)) * time.Millisecond)
		}
		d.thin(ctx, live)
		d.inherit(ctx, live)
		if d.Dice.IntN(16) == 0 {
			d.intrude(ctx)
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// burst creates so many pods that more wait than before there was room for.
func (d *Driver) burst(ctx context.Context, live []journal.Pod) {
	unbound := 0
	for i := range live {
		if live[i].Node == "" {
			unbound++
		}
	}
	want := leastWaiting + d.Dice.IntN(mostWaiting-leastWaiting) - unbound
	var g errgroup.Group
	g.SetLimit(parallel)
	for range want {
		d.made++
		p := draw(fmt.Sprintf("storm-%05d", d.made), d.Dice, d.Deadline)
		g.Go(func() error { return d.create(ctx, p) })
	}
	_ = g.Wait() // the next burst makes up for it
}

func (d *Driver) create(ctx context.Context, p *corev1.Pod) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	_, err := d.Client.CoreV1().Pods(Namespace).Create(ctx, p, metav1.CreateOptions{})
	return err
}

// thin takes pods away: with notice or without, for good or for an heir; some
// all the time, and now and then many at once, so that the waiting rush in.
func (d *Driver) thin(ctx context.Context, live []journal.Pod) {
	usual := thinned
	if d.Dice.IntN(gusts) == 0 {
		usual = gust
	}
	var g errgroup.Group
	g.SetLimit(parallel)
	defer func() { _ = g.Wait() }() // one that is not deleted now is deleted with another tick
	for i := range live {
		p := &live[i]
		perMille := usual
		if p.Node == "" {
			if time.Since(p.Created.At) < patience {
				continue
			}
			perMille = impatient
		}
		if !p.Deleting.IsZero() || d.Dice.IntN(1000) >= perMille {
			continue
		}
		if d.Dice.IntN(3) == 0 && p.Node != "" && p.Spec.OwnerReferences == nil && !p.Foreign {
			heir := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: p.Name, Namespace: Namespace, Labels: p.Spec.Labels}, Spec: *p.Spec.Spec.DeepCopy()}
			heir.Spec.NodeName = ""
			d.heirs[p.Name] = heir
		}
		force := d.Dice.IntN(3) == 0
		g.Go(func() error { return d.remove(ctx, p, force) })
	}
}

func (d *Driver) remove(ctx context.Context, p *journal.Pod, force bool) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	o := metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &p.UID}}
	if force {
		none := int64(0)
		o.GracePeriodSeconds = &none
	}
	return d.Client.CoreV1().Pods(Namespace).Delete(ctx, p.Name, o)
}

// inherit creates pods under the names of those that are gone, as a StatefulSet does.
func (d *Driver) inherit(ctx context.Context, live []journal.Pod) {
	there := map[string]bool{}
	for i := range live {
		there[live[i].Name] = true
	}
	for name, heir := range d.heirs {
		if !there[name] && d.create(ctx, heir) == nil {
			delete(d.heirs, name)
		}
	}
}

// intrude puts a pod on a node past all schedulers.
func (d *Driver) intrude(ctx context.Context) {
	d.foreign++
	p := draw(fmt.Sprintf("foreign-%04d", d.foreign), d.Dice, d.Deadline)
	p.Spec.SchedulerName = "none"
	p.Spec.NodeName = d.Nodes[d.Dice.IntN(len(d.Nodes))]
	_ = d.create(ctx, p)
}

// Clear deletes pods that have ended, as a controller or a person would.
func Clear(ctx context.Context, client kubernetes.Interface, all []journal.Pod, old time.Duration) {
	none := int64(0)
	for i := range all {
		p := &all[i]
		if p.Ended.IsZero() || !p.Gone.IsZero() || time.Since(p.Ended.At) < old {
			continue
		}
		_ = client.CoreV1().Pods(Namespace).Delete(ctx, p.Name, metav1.DeleteOptions{GracePeriodSeconds: &none, Preconditions: &metav1.Preconditions{UID: &p.UID}})
	}
}
