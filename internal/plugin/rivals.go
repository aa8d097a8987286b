package plugin

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc/health/grpc_health_v1"
)

// takeover is how long a younger instance may have no live stream before the
// older one takes the pool back: to register again takes it firstRetry.
const takeover = 500 * time.Millisecond

// rivals tells whether an instance of the plugin that started later has the
// pool live, as in an update with a surge, where the new pod runs and gets
// ready before the old one is told to end. The younger one wins: it is what
// somebody wanted last, and a kubelet calls whoever registered last
// (devicemanager PluginConnected). It is found by its socket beside ours, and
// asked there, with gRPC's own health service, whether the kubelet watches it.
type rivals struct {
	folder   *folder
	resource string
	log      *slog.Logger
	live     *cell[bool]
	ours     *cell[bool] // whether this instance has the pool live

	mu     sync.Mutex
	states map[string]grpc_health_v1.HealthCheckResponse_ServingStatus // by the socket that is followed
	leave  *time.Timer                                                 // runs while nobody is live any more and takeover is not over
}

func newRivals(f *folder, resource string, log *slog.Logger) *rivals {
	return &rivals{folder: f, resource: resource, log: log, live: newCell(false), ours: newCell(false), states: map[string]grpc_health_v1.HealthCheckResponse_ServingStatus{}}
}

// run follows younger instances until the context ends.
func (r *rivals) run(ctx context.Context) {
	defer r.stop()
	var following sync.WaitGroup
	defer following.Wait()
	for {
		_, changed := r.folder.changes.get()
		for _, path := range r.folder.younger(r.resource) {
			if r.note(path) {
				following.Go(func() { r.follow(ctx, path) })
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// note is true for a socket that is not followed yet.
func (r *rivals) note(path string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.states[path]; known {
		return false
	}
	r.states[path] = grpc_health_v1.HealthCheckResponse_UNKNOWN
	return true
}

// follow hears from one socket until its instance goes, the socket's end being
// the sign: a process that is killed closes it as well.
func (r *rivals) follow(ctx context.Context, path string) {
	defer r.settle(func() { delete(r.states, path) })
	c, err := reach(ctx, path)
	if err != nil {
		return
	}
	defer c.Close()
	conn, err := newClient(only(c))
	if err != nil {
		return
	}
	defer conn.Close()
	watch, err := grpc_health_v1.NewHealthClient(conn).Watch(ctx, &grpc_health_v1.HealthCheckRequest{Service: r.resource})
	if err != nil {
		return
	}
	for was := false; ; {
		answer, err := watch.Recv()
		if err != nil {
			return
		}
		status := answer.GetStatus()
		is := status == grpc_health_v1.HealthCheckResponse_SERVING
		if was && !is && status != leaving {
			return // its session ends, and waits for us
		}
		was = is
		r.settle(func() { r.states[path] = status })
		if status == leaving {
			r.takeOver(ctx)
			return
		}
	}
}

// reach connects to a socket. Its file is there, and told of, before its owner
// listens: one that was given up at once would be missed until the next look,
// which is later than takeover.
func reach(ctx context.Context, path string) (net.Conn, error) {
	for delay := firstDial; ; delay *= 2 {
		c, err := dialUnix(ctx, path)
		if !errors.Is(err, syscall.ECONNREFUSED) || delay > pollInterval {
			return c, err
		}
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// takeOver waits until the pool need not be held by one that leaves any more:
// this instance has it, or yet another one.
func (r *rivals) takeOver(ctx context.Context) {
	for {
		ours, changed := r.ours.get()
		superseded, more := r.live.get()
		if ours || superseded {
			return
		}
		select {
		case <-changed:
		case <-more:
		case <-ctx.Done():
			return
		}
	}
}

// leaves tells whether a younger instance waits to be relieved.
func (r *rivals) leaves() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.has(leaving)
}

func (r *rivals) has(status grpc_health_v1.HealthCheckResponse_ServingStatus) bool {
	for _, s := range r.states {
		if s == status {
			return true
		}
	}
	return false
}

// settle takes a change in. That a younger instance is live counts at once, and
// so does that one asks to be relieved; that none is live any more after a while.
func (r *rivals) settle(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
	live := r.has(grpc_health_v1.HealthCheckResponse_SERVING)
	switch {
	case live && r.leave != nil:
		r.leave.Stop()
		r.leave = nil
	case live && !r.live.value():
		r.log.Info("a newer instance of the plugin has the pool, standing by")
		r.live.set(true)
	case !live && r.live.value() && r.has(leaving):
		if r.leave != nil {
			r.leave.Stop()
			r.leave = nil
		}
		r.log.Info("the newer instance of the plugin is about to end, taking the pool back")
		r.live.set(false)
	case !live && r.live.value() && r.leave == nil:
		r.leave = time.AfterFunc(takeover, r.alone)
	}
}

func (r *rivals) alone() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.leave == nil {
		return
	}
	r.leave = nil
	r.log.Info("the newer instance of the plugin is gone, taking the pool back")
	r.live.set(false)
}

func (r *rivals) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.leave != nil {
		r.leave.Stop()
		r.leave = nil
	}
}
