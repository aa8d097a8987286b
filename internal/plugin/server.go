package plugin

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// firstRetry is also the pause between a session's end and the next
	// registration, in which a kubelet notices the end.
	firstRetry = 100 * time.Millisecond
	lastRetry  = 10 * time.Second
	// steady is how long a session must have lasted for its end not to count
	// as one more failure in a row.
	steady = 10 * time.Second
	// firstDial and pollInterval bound how often a kubelet socket is tried
	// that exists and that nobody listens on.
	firstDial = 20 * time.Millisecond
)

// server keeps one pool registered.
type server struct {
	resource   string
	pool       *cell[*snapshot]
	folder     *folder
	files      *files
	onAllocate func()
	onStatus   func()
	log        *slog.Logger
	rivals     *rivals
	at         atomic.Pointer[position]

	registrations atomic.Int64
}

// position is where a server is in its life.
type position struct {
	phase  Phase
	socket string
	err    error
}

// enter tells where the server is now, and why it is not further. Until it is
// Live again, the reason of the last failure stands.
func (s *server) enter(p Phase, socket string, err error) {
	if err == nil && p != Live && p != Standby && p != Idle {
		err = s.at.Load().err
	}
	s.at.Store(&position{p, socket, err})
	if now := p == Live; now != s.rivals.ours.value() {
		s.rivals.ours.set(now)
	}
	if p == Live {
		s.log.Info("the kubelet watches the pool", "socket", socket)
	}
	s.onStatus()
}

// run holds sessions, one after the other, until the context ends.
func (s *server) run(ctx context.Context) {
	defer s.enter(Idle, "", nil)
	var watching sync.WaitGroup
	defer watching.Wait()
	watching.Go(func() { s.rivals.run(ctx) })
	delay := firstRetry
	var last *stage // of a session that ended only to be registered again
	for s.waitForDevices(ctx) && (last != nil || s.waitForRivals(ctx)) {
		k, ok := s.waitForKubelet(ctx)
		if !ok {
			break
		}
		begun := time.Now()
		next, err := s.session(ctx, k, last)
		last.close()
		last = next
		if err == nil {
			break
		}
		if time.Since(begun) >= steady {
			delay = firstRetry
		}
		switch {
		case errors.Is(err, errAlone), errors.Is(err, errHandedOver), errors.Is(err, errSuperseded):
			s.log.Info("pool is registered anew", "reason", err)
			s.enter(Retrying, "", nil)
			continue
		case errors.Is(err, errRetired):
			s.log.Info("pool is no longer advertised", "reason", err)
			delay = firstRetry
		default:
			s.log.Warn("pool must be registered again", "err", err, "in", delay)
		}
		s.enter(Retrying, "", err)
		if s.pause(ctx, delay, k.identity) {
			delay = firstRetry
		} else {
			delay = min(2*delay, lastRetry)
		}
	}
	last.close()
}

// waitForRivals is false when the context ended while a newer instance had the
// pool: an older one that registered after it would be called in its place.
func (s *server) waitForRivals(ctx context.Context) bool {
	for {
		superseded, changed := s.rivals.live.get()
		if !superseded {
			return ctx.Err() == nil
		}
		if s.at.Load().phase != Standby {
			s.enter(Standby, "", nil)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// waitForDevices is false when the context ended before the pool had any.
func (s *server) waitForDevices(ctx context.Context) bool {
	for {
		pool, replaced := s.pool.get()
		if pool.advertise {
			return ctx.Err() == nil
		}
		if s.at.Load().phase != Idle {
			s.enter(Idle, "", nil)
		}
		select {
		case <-replaced:
		case <-ctx.Done():
			return false
		}
	}
}

// waitForKubelet connects to the kubelet once it listens. gRPC must not dial
// before: it would sit in its own backoff while the kubelet comes up.
func (s *server) waitForKubelet(ctx context.Context) (kubelet, bool) {
	delay := firstDial
	for {
		_, changed := s.folder.changes.get()
		// The identity first: should the socket be made anew in between, the
		// session sees that it is another one, and is held again.
		id, there := s.folder.kubeletIdentity()
		if there {
			conn, err := dialUnix(ctx, s.folder.kubelet())
			if err == nil {
				return kubelet{conn, id}, true
			}
		}
		if s.at.Load().phase != Waiting {
			s.enter(Waiting, "", nil)
			s.log.Info("waiting for the kubelet to listen", "socket", s.folder.kubelet())
		}
		// A socket file appears before its owner listens, and nothing tells
		// of the latter.
		var again <-chan time.Time
		if there {
			again = time.After(delay)
			delay = min(2*delay, pollInterval)
		}
		select {
		case <-changed:
		case <-again:
		case <-ctx.Done():
			return kubelet{}, false
		}
	}
}

// pause waits before the next session. A kubelet that started anew ends it
// after the first pause already, and is told by true.
func (s *server) pause(ctx context.Context, delay time.Duration, k identity) bool {
	end := time.After(delay)
	first := time.After(firstRetry)
	for {
		_, changed := s.folder.changes.get()
		now, there := s.folder.kubeletIdentity()
		anew := there && !now.same(k)
		if anew && first == nil {
			return true
		}
		select {
		case <-first:
			first = nil
		case <-end:
			return anew
		case <-changed:
		case <-ctx.Done():
			return anew
		}
	}
}
