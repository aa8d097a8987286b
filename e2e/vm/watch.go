package vm

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/cpuset"

	"github.com/numalane/numalane/e2e/cluster"
	"github.com/numalane/numalane/e2e/vm/view"
	"github.com/numalane/numalane/hack/lab/guest"
	"github.com/numalane/numalane/pkg/topology"
)

// observer keeps all that the guest's kernel, plugin and kubelet say, with the
// guest's clock, and all that the Node's annotation was.
type observer struct {
	mu     sync.Mutex
	events []view.Event
	pools  []topology.NodePools
	grown  chan struct{} // closed with the next event
	ended  error         // why there are no more

	stop context.CancelFunc
}

// mark is a moment of an observer's.
type mark struct{ events, pools int }

// observe starts an observer, for as long as the guest runs, and waits until it
// sees the kubelet.
func (s *setting) observe(ctx context.Context) error {
	if s.seen != nil {
		s.seen.stop()
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	o := &observer{grown: make(chan struct{}), stop: stop}
	s.seen = o
	r, w := io.Pipe()
	go func() {
		err := s.machine.Guest().Run(running, guest.Command{Args: []string{"/lab/agent", "watch"}}, w, io.Discard)
		w.CloseWithError(errors.Join(errors.New("the observer has ended"), err))
	}()
	go func() {
		in := json.NewDecoder(bufio.NewReader(r))
		for {
			var e view.Event
			err := in.Decode(&e)
			o.add(func() {
				if o.ended = err; err == nil {
					o.events = append(o.events, e)
				}
			})
			if err != nil {
				return
			}
		}
	}()
	go s.watchNode(running, o)
	_, err := o.first(ctx, mark{}, time.Minute, "a first look at the kubelet", func(e view.Event) bool { return e.Devices != nil })
	return err
}

func (o *observer) add(more func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	more()
	close(o.grown)
	o.grown = make(chan struct{})
}

// watchNode keeps each annotation that the Node has had.
func (s *setting) watchNode(ctx context.Context, o *observer) {
	last := ""
	for ctx.Err() == nil {
		w, err := s.c.Client.CoreV1().Nodes().Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + nodeName})
		if err != nil {
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
			continue
		}
		for e := range w.ResultChan() {
			n, ok := e.Object.(*corev1.Node)
			if !ok || n.Annotations[topology.PoolsAnnotation] == last {
				continue
			}
			last = n.Annotations[topology.PoolsAnnotation]
			if p, err := topology.Decode[topology.NodePools](last); err == nil {
				o.add(func() { o.pools = append(o.pools, p) })
			}
		}
	}
}

// now is the moment after which something is looked for.
func (o *observer) now() mark {
	o.mu.Lock()
	defer o.mu.Unlock()
	return mark{len(o.events), len(o.pools)}
}

// first waits for the first event from a moment on that holds.
func (o *observer) first(ctx context.Context, from mark, most time.Duration, what string, holds func(view.Event) bool) (view.Event, error) {
	up := time.After(most)
	for seen := from.events; ; {
		o.mu.Lock()
		events, grown, ended := o.events, o.grown, o.ended
		o.mu.Unlock()
		for ; seen < len(events); seen++ {
			if holds(events[seen]) {
				return events[seen], nil
			}
		}
		if ended != nil {
			return view.Event{}, fmt.Errorf("wait for %s: %w", what, ended)
		}
		select {
		case <-grown:
		case <-up:
			return view.Event{}, fmt.Errorf("wait for %s: not within %s, of %d events", what, most, len(events)-from.events)
		case <-ctx.Done():
			return view.Event{}, fmt.Errorf("wait for %s: %w", what, ctx.Err())
		}
	}
}

// last is the latest event from a moment on, and up to a time, that holds.
func (o *observer) last(from mark, until time.Time, holds func(view.Event) bool) (view.Event, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	var found view.Event
	for _, e := range o.events[from.events:] {
		if !e.Time.After(until) && holds(e) && !e.Time.Before(found.Time) {
			found = e
		}
	}
	return found, !found.Time.IsZero()
}

// states are what was so at a moment, and all that it became from then on.
func (o *observer) states(from mark, of func(view.Event) bool) []view.Event {
	o.mu.Lock()
	defer o.mu.Unlock()
	var all []view.Event
	for i, e := range o.events {
		if of(e) {
			if i < from.events {
				all = nil
			}
			all = append(all, e)
		}
	}
	return all
}

// alwaysHealthy holds what plugin, kubelet and Node have said from a moment on
// against so many devices of a resource, all of them healthy.
func (o *observer) alwaysHealthy(from mark, r corev1.ResourceName, total int) (string, error) {
	told := o.states(from, func(e view.Event) bool { return e.Told != nil && e.Told.Resource == string(r) })
	for _, e := range told {
		if e.Told.Healthy != total || e.Told.Total != total {
			return "", fmt.Errorf("the plugin told of %d of %d healthy: %v", e.Told.Healthy, e.Told.Total, e.Told.Unhealthy)
		}
	}
	kubelet := o.states(from, func(e view.Event) bool { return e.Devices != nil || e.Gone })
	for _, e := range kubelet {
		if n := len(e.Devices[string(r)]); n != total {
			return "", fmt.Errorf("the kubelet had %d of %d", n, total)
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	node := o.pools[max(0, from.pools-1):]
	for _, p := range node {
		sum, healthy := 0, 0
		for _, pool := range p.Pools {
			for _, g := range pool.Groups {
				if pool.Resource == string(r) {
					sum, healthy = sum+g.Total, healthy+g.Healthy
				}
			}
		}
		if sum != total || healthy != total {
			return "", fmt.Errorf("the annotation had %d of %d healthy", healthy, sum)
		}
	}
	if len(told) == 0 || len(kubelet) == 0 || len(node) == 0 {
		return "", fmt.Errorf("of plugin, kubelet and Node not all have said anything: %d, %d, %d", len(told), len(kubelet), len(node))
	}
	return fmt.Sprintf("the plugin said it %d times, the kubelet %d times, the annotation %d times", len(told), len(kubelet), len(node)), nil
}

// since tells how long before an event the last other one was, when the plugin
// knew (what comes after is gRPC, and for the first devices of a pool its
// registration), and fails if all was longer than it may be. What was meant to
// pass in between does not count.
func (s *setting) since(ctx context.Context, from mark, meant time.Duration, e view.Event, r corev1.ResourceName, what string, cause func(view.Event) bool) (string, error) {
	// The one may be seen a moment later than what it caused, the other is read
	// from the plugin's log after.
	const moment = 200 * time.Millisecond
	var began, told view.Event
	var caused, known bool
	_ = cluster.Wait(ctx, 5*time.Second, "what came before", func(context.Context) error {
		began, caused = s.seen.last(from, e.Time.Add(moment), cause)
		told, known = s.seen.last(from, e.Time, func(t view.Event) bool {
			return t.Told != nil && t.Told.Resource == string(r) && t.Time.After(began.Time.Add(-moment))
		})
		if !caused || !known {
			return errors.New("not yet seen")
		}
		return nil
	})
	if !caused {
		return "", fmt.Errorf("nobody saw that %s", what)
	}
	due := began.Time.Add(meant)
	took := e.Time.Sub(due)
	found := fmt.Sprintf("%d ms after %s", took.Milliseconds(), what)
	if known {
		found += fmt.Sprintf(", known to the plugin after %d ms", told.Time.Sub(due).Milliseconds())
	}
	if took > s.soon() {
		return "", fmt.Errorf("%s, longer than %.1f s", found, s.soon().Seconds())
	}
	return found, nil
}

// allocatable are the kubelet's healthy devices now.
func (s *setting) allocatable(ctx context.Context) (view.Devices, error) {
	out, err := s.guest(ctx, "/lab/agent", "allocatable")
	if err != nil {
		return nil, err
	}
	var d view.Devices
	return d, json.Unmarshal([]byte(out), &d)
}

// count is how many devices of a resource there are on a NUMA node.
func count(d view.Devices, r corev1.ResourceName, node int64) (n int) {
	for _, dev := range d[string(r)] {
		if len(dev.NUMA) == 1 && dev.NUMA[0] == node {
			n++
		}
	}
	return n
}

// within tells whether a list of CPUs is part of another.
func within(part, whole string) (bool, error) {
	p, err := cpuset.Parse(part)
	if err != nil {
		return false, err
	}
	w, err := cpuset.Parse(whole)
	if err != nil {
		return false, err
	}
	return !p.IsEmpty() && p.IsSubsetOf(w), nil
}
