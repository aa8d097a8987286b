package plugin

import (
	"context"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

const (
	// handOverTimeout bounds how long a session that ends for good waits for an
	// older instance to take the pool back.
	handOverTimeout = 2 * time.Second
	// handOverRest is for a call of the kubelet's that chose whom to call
	// before the older instance was registered.
	handOverRest = 200 * time.Millisecond
)

// stage is what a session serves on its socket: the pool for the kubelet, and
// for older instances of the plugin whether the kubelet watches it.
type stage struct {
	ctx     context.Context // ends with the stage
	svc     *service
	health  *audience
	served  chan error
	running sync.WaitGroup

	grpc   *grpc.Server
	cancel context.CancelFunc
	once   sync.Once
}

func newStage(ctx context.Context, s *server, listener net.Listener) *stage {
	st := &stage{
		svc:    newService(s.pool, s.rivals.live, s.files, s.onAllocate),
		health: newAudience(),
		served: make(chan error, 1),
		grpc:   grpc.NewServer(),
	}
	st.ctx, st.cancel = context.WithCancel(ctx)
	st.health.SetServingStatus(s.resource, grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	pluginapi.RegisterDevicePluginServer(st.grpc, st.svc)
	grpc_health_v1.RegisterHealthServer(st.grpc, st.health)
	st.running.Go(func() { st.served <- st.grpc.Serve(listener) })
	return st
}

// handOver lets an older instance that stands by register, before the stream
// ends: the kubelet calls whoever registered last, and a call that is under way
// when the stream ends is cut (plugin/v1beta1 client.Disconnect). Without such
// an instance it returns at once.
func (st *stage) handOver(resource string) {
	watched := st.health.watched.get
	if n, _ := watched(); n == 0 {
		return
	}
	st.health.SetServingStatus(resource, leaving)
	end := time.After(handOverTimeout)
	for {
		n, changed := watched()
		if n == 0 {
			break
		}
		select {
		case <-changed:
		case <-end:
			return
		}
	}
	<-time.After(handOverRest)
}

// leaving is what a session says of its pool when its instance ends.
const leaving = grpc_health_v1.HealthCheckResponse_SERVICE_UNKNOWN

// audience is gRPC's health service, and knows how many listen to it.
type audience struct {
	*health.Server
	mu      sync.Mutex
	watched *cell[int]
}

func newAudience() *audience { return &audience{Server: health.NewServer(), watched: newCell(0)} }

// Watch is for older instances of the plugin.
func (a *audience) Watch(req *grpc_health_v1.HealthCheckRequest, stream grpc_health_v1.Health_WatchServer) error {
	a.add(1)
	defer a.add(-1)
	return a.Server.Watch(req, stream)
}

func (a *audience) add(n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.watched.set(a.watched.value() + n)
}

// close ends the streams, lets a running Allocate end, and takes the socket
// away. A nil stage is closed.
func (st *stage) close() {
	if st == nil {
		return
	}
	st.once.Do(func() {
		st.cancel()
		close(st.svc.closing)
		// Older instances that follow it end their calls then.
		cut := time.AfterFunc(closeTimeout, st.grpc.Stop)
		defer cut.Stop()
		st.health.Shutdown()
		st.grpc.GracefulStop()
		st.running.Wait()
	})
}
