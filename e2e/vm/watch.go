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
	"k8s.io/utils/cpuset"

	"github.com/numalane/numalane/e2e/vm/view"
	"github.com/numalane/numalane/hack/lab/guest"
)

// observer collects what the guest's kernel and kubelet say, with the guest's
// clock, while something is done to the machine.
type observer struct {
	mu     sync.Mutex
	events []view.Event
	grown  chan struct{}
	cancel context.CancelFunc
	ended  chan error
}

// observe starts an observer and waits until it sees the kubelet.
func (s *setting) observe(ctx context.Context) (*observer, error) {
	ctx, cancel := context.WithCancel(ctx)
	o := &observer{grown: make(chan struct{}, 1), cancel: cancel, ended: make(chan error, 1)}
	r, w := io.Pipe()
	go func() {
		err := s.machine.Guest().Run(ctx, guest.Command{Args: []string{"/lab/agent", "watch"}}, w, io.Discard)
		w.Close()
		o.ended <- err
	}()
	go func() {
		for in := bufio.NewScanner(r); in.Scan(); {
			var e view.Event
			if json.Unmarshal(in.Bytes(), &e) != nil {
				continue
			}
			o.mu.Lock()
			o.events = append(o.events, e)
			o.mu.Unlock()
			select {
			case o.grown <- struct{}{}:
			default:
			}
		}
	}()
	_, err := o.first(ctx, 20*time.Second, "a first look at the kubelet", func(e view.Event) bool { return e.Devices != nil })
	if err != nil {
		cancel()
	}
	return o, err
}

func (o *observer) stop() { o.cancel() }

// first waits for the first event that holds.
func (o *observer) first(ctx context.Context, most time.Duration, what string, holds func(view.Event) bool) (view.Event, error) {
	up := time.After(most)
	for seen := 0; ; {
		o.mu.Lock()
		events := o.events
		o.mu.Unlock()
		for ; seen < len(events); seen++ {
			if holds(events[seen]) {
				return events[seen], nil
			}
		}
		select {
		case <-o.grown:
		case err := <-o.ended:
			return view.Event{}, fmt.Errorf("wait for %s: the observer has ended: %w", what, err)
		case <-up:
			return view.Event{}, fmt.Errorf("wait for %s: not within %s, of %d events", what, most, len(events))
		case <-ctx.Done():
			return view.Event{}, fmt.Errorf("wait for %s: %w", what, ctx.Err())
		}
	}
}

// last is the latest event before a time that holds.
func (o *observer) last(before time.Time, holds func(view.Event) bool) (view.Event, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	var found *view.Event
	for i, e := range o.events {
		if e.Time.Before(before) && holds(e) {
			found = &o.events[i]
		}
	}
	if found == nil {
		return view.Event{}, errors.New("no such event was seen")
	}
	return *found, nil
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
