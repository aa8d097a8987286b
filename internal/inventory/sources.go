package inventory

import (
	"context"
	"errors"
	"time"

	"github.com/vishvananda/netlink"
)

// source is one kind of events. Its watch calls changed once it listens, for
// what came before, and then for each event that may have changed the machine.
// It returns when it has lost events or cannot listen, and when the context
// ends.
type source struct {
	name  string
	watch func(ctx context.Context, changed func()) error
}

const (
	firstResubscribe = 100 * time.Millisecond
	maxResubscribe   = time.Minute
	// A source that has listened this long begins anew with short waits.
	steady = 10 * time.Second
	// eventBuffer outlasts a burst of a thousand VFs while a scan runs.
	eventBuffer = 1 << 20
)

// keep watches a source again each time that it ends.
func (l *Loop) keep(ctx context.Context, s source) {
	told := novelty{}
	wait := firstResubscribe
	for {
		began := time.Now()
		err := s.watch(ctx, l.Rescan)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) >= steady {
			told, wait = novelty{}, firstResubscribe
		}
		l.o.Logger.Log(ctx, told.level(err), "event source ended, the timer stands in until it is back", "source", s.name, "err", err, "retry", wait)
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		wait = min(2*wait, maxResubscribe)
	}
}

// watchLinks listens to the network interfaces of this network namespace:
// carrier, names, VFs' netdevs that leave for a pod or come back, and what they
// are put under.
func watchLinks(ctx context.Context, changed func()) error {
	return follow(ctx, changed, func(updates chan<- netlink.LinkUpdate, done <-chan struct{}, failed func(error)) error {
		return netlink.LinkSubscribeWithOptions(updates, done, netlink.LinkSubscribeOptions{ReceiveBufferSize: eventBuffer, ErrorCallback: failed})
	}, func(u netlink.LinkUpdate) bool {
		// The kind is that of a virtual interface; the package says "device"
		// for one without. A node with many pods has many veths. The way out
		// may go through the others, and a bridge's ports tell of themselves.
		switch u.Link.Type() {
		case "device", "bond", "team", "vlan":
			return true
		}
		return false
	})
}

// watchRoutes listens to the ways out of this network namespace, of all the
// routes that pods may have in it.
func watchRoutes(ctx context.Context, changed func()) error {
	return follow(ctx, changed, func(updates chan<- netlink.RouteUpdate, done <-chan struct{}, failed func(error)) error {
		return netlink.RouteSubscribeWithOptions(updates, done, netlink.RouteSubscribeOptions{ReceiveBufferSize: eventBuffer, ErrorCallback: failed})
	}, func(u netlink.RouteUpdate) bool { return isDefault(&u.Route) })
}

// follow passes on the updates that matter until the subscription ends.
func follow[U any](ctx context.Context, changed func(), subscribe func(chan<- U, <-chan struct{}, func(error)) error, matters func(U) bool) error {
	updates := make(chan U, 64)
	done := make(chan struct{})
	// Written by the receiver before it closes the channel, and read after.
	ended := errors.New("closed")
	err := subscribe(updates, done, func(err error) {
		ended = err
		changed() // one message may have been lost without an end
	})
	if err != nil {
		return err
	}
	defer func() {
		close(done)
		for range updates { // or the receiver would wait for us for ever
		}
	}()
	changed()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case u, ok := <-updates:
			if !ok {
				return ended
			}
			if matters(u) {
				changed()
			}
		}
	}
}
