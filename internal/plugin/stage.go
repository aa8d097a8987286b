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

// stage is what a session serves on its socket: the pool for the kubelet, and
// for older instances of the plugin whether the kubelet watches it.
type stage struct {
	ctx     context.Context // ends with the stage
	svc     *service
	health  *health.Server
	served  chan error
	running sync.WaitGroup

	grpc   *grpc.Server
	cancel context.CancelFunc
	once   sync.Once
}

func newStage(ctx context.Context, s *server, listener net.Listener) *stage {
	st := &stage{
		svc:    newService(s.pool, s.rivals.live, s.onAllocate),
		health: health.NewServer(),
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
