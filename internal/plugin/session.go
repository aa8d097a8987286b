package plugin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

const (
	// selfCheckTimeout bounds the call to our own socket before the kubelet
	// is told of it.
	selfCheckTimeout = 5 * time.Second
	// streamTimeout is how long after a good answer to Register the kubelet
	// may take to open ListAndWatch; it does so at once. Register itself has
	// no deadline: the kubelet dials back for up to 10 s within it, and one
	// given up by us would leave a client of the kubelet's behind.
	streamTimeout = 30 * time.Second
	// closeTimeout is how long a closing session lets an Allocate end.
	closeTimeout = time.Second
)

var (
	errStreamEnded = errors.New("the kubelet's ListAndWatch stream ended")
	errRestarted   = errors.New("the kubelet started anew")
	errNoStream    = fmt.Errorf("the kubelet took the registration and opened no ListAndWatch stream within %s", streamTimeout)
	errRetired     = errors.New("the pool has left the configuration")
	errSuperseded  = errors.New("a newer instance of the plugin registered at the same time")
	errAlone       = errors.New("the newer instance of the plugin is gone")
	errHandedOver  = errors.New("the newer instance of the plugin is about to end")
)

// kubelet is a connection to a kubelet that listens.
type kubelet struct {
	conn net.Conn
	identity
}

// session serves the pool on a new socket, registers it, and lasts until the
// kubelet's stream ends or the session has lost its sense. When it returns,
// the socket is gone and every stream ended, so that the next session may
// register. It returns nil only when the context ended.
//
// With errHandedOver nothing is lost by that, as the newer instance still has
// the pool, and the kubelet, which goes over to any other client when one ends
// (devicemanager PluginDisconnected), shall have but one other when that ends.
//
// With errAlone it goes on being served until the next session, which gets it
// as last, is live: a kubelet from 1.37 on is content with either, an older one
// knows nothing of this one any more.
func (s *server) session(ctx context.Context, k kubelet, last *stage) (*stage, error) {
	path := s.folder.newSocket(s.resource)
	listener, err := net.Listen("unix", path)
	if err != nil {
		k.conn.Close()
		return nil, fmt.Errorf("listen for the kubelet: %w", err)
	}
	st := newStage(ctx, s, listener)
	registered := make(chan error, 1)
	st.running.Go(func() {
		defer k.conn.Close()
		if err := selfCheck(st.ctx, path); err != nil {
			registered <- err
			return
		}
		registered <- register(st.ctx, k.conn, s.resource, filepath.Base(path))
	})
	s.enter(Registering, path, nil)
	err = s.hold(ctx, foothold{folder: s.folder, own: path, kubelet: k.identity, log: s.log}, st, last, registered)
	if errors.Is(err, errAlone) {
		return st, err
	}
	if err == nil {
		st.handOver(s.resource)
	}
	st.close()
	return nil, err
}

// hold waits until the session must end, and says why.
func (s *server) hold(ctx context.Context, f foothold, st, last *stage, registered <-chan error) error {
	opened := st.svc.opened
	var noStream, relieved <-chan time.Time
	standby := false
	for {
		// What is waited on is taken before what is looked at.
		_, changed := s.folder.changes.get()
		pool, replaced := s.pool.get()
		superseded, rivals := s.rivals.live.get()
		if !pool.advertise {
			return errRetired
		}
		if f.lost() {
			return errRestarted
		}
		switch {
		case opened == nil && superseded && !standby:
			standby = true
			s.enter(Standby, f.own, nil)
		case opened == nil && !superseded && standby && s.rivals.leaves():
			return errHandedOver
		case opened == nil && !superseded && standby:
			return errAlone
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-st.served:
			return fmt.Errorf("serve %s: %w", f.own, err)
		case err := <-registered:
			if err != nil && !st.svc.hasOpened() {
				return err
			}
			registered = nil
			noStream = time.After(streamTimeout)
		case <-noStream:
			return errNoStream
		case <-opened:
			if superseded {
				return errSuperseded
			}
			// From here on the stream is the word that counts.
			opened, registered, noStream = nil, nil, nil
			relieved = time.After(closeTimeout)
			st.health.SetServingStatus(s.resource, grpc_health_v1.HealthCheckResponse_SERVING)
			s.registrations.Add(1)
			s.enter(Live, f.own, nil)
		case <-relieved:
			// An Allocate that was meant for it is through by now.
			last.close()
		case <-st.svc.ended:
			return errStreamEnded
		case <-f.settled:
		case <-changed:
		case <-replaced:
		case <-rivals:
		}
	}
}

// selfCheck calls our own server: the kubelet dials back within Register, so
// the server must answer before that.
func selfCheck(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, selfCheckTimeout)
	defer cancel()
	conn, err := newClient(func(ctx context.Context, _ string) (net.Conn, error) { return dialUnix(ctx, path) })
	if err != nil {
		return fmt.Errorf("call our own socket: %w", err)
	}
	defer conn.Close()
	if _, err := pluginapi.NewDevicePluginClient(conn).GetDevicePluginOptions(ctx, &pluginapi.Empty{}); err != nil {
		return fmt.Errorf("call our own socket %s: %w", path, err)
	}
	return nil
}

// register asks the kubelet to connect to the socket of that name. It uses the
// connection that showed that the kubelet listens, and no other.
func register(ctx context.Context, c net.Conn, resource, socket string) error {
	conn, err := newClient(only(c))
	if err != nil {
		return fmt.Errorf("connect to the kubelet: %w", err)
	}
	defer conn.Close()
	_, err = pluginapi.NewRegistrationClient(conn).Register(ctx, &pluginapi.RegisterRequest{
		Version:      pluginapi.Version,
		Endpoint:     socket,
		ResourceName: resource,
	})
	if err != nil {
		return fmt.Errorf("register %s with the kubelet: %w", resource, err)
	}
	return nil
}

// only gives a connection that there is, and no other once that is cut.
func only(c net.Conn) func(context.Context, string) (net.Conn, error) {
	first := make(chan net.Conn, 1)
	first <- c
	return func(context.Context, string) (net.Conn, error) {
		select {
		case c := <-first:
			return c, nil
		default:
			return nil, errors.New("the connection was cut")
		}
	}
}

func newClient(dial func(context.Context, string) (net.Conn, error)) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///unix",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithAuthority("localhost"),
		grpc.WithContextDialer(dial))
}
