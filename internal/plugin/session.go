package plugin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
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
func (s *server) session(ctx context.Context, k kubelet) error {
	path := s.folder.newSocket()
	listener, err := net.Listen("unix", path)
	if err != nil {
		k.conn.Close()
		return fmt.Errorf("listen for the kubelet: %w", err)
	}
	svc := newService(s.pool, s.onAllocate)
	g := grpc.NewServer()
	pluginapi.RegisterDevicePluginServer(g, svc)
	served := make(chan error, 1)
	registered := make(chan error, 1)

	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { served <- g.Serve(listener) })
	running.Go(func() {
		defer k.conn.Close()
		if err := selfCheck(ctx, path); err != nil {
			registered <- err
			return
		}
		registered <- register(ctx, k.conn, s.resource, filepath.Base(path))
	})
	defer running.Wait()
	defer closeServer(g, svc)
	defer cancel()

	s.enter(Registering, path, nil)
	return s.hold(ctx, foothold{folder: s.folder, own: path, kubelet: k.identity, log: s.log}, svc, served, registered)
}

// hold waits until the session must end, and says why.
func (s *server) hold(ctx context.Context, f foothold, svc *service, served, registered <-chan error) error {
	opened := svc.opened
	var noStream <-chan time.Time
	for {
		// What is waited on is taken before what is looked at.
		_, changed := s.folder.changes.get()
		pool, replaced := s.pool.get()
		if !pool.advertise {
			return errRetired
		}
		if f.lost() {
			return errRestarted
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-served:
			return fmt.Errorf("serve %s: %w", f.own, err)
		case err := <-registered:
			if err != nil && !svc.hasOpened() {
				return err
			}
			registered = nil
			noStream = time.After(streamTimeout)
		case <-noStream:
			return errNoStream
		case <-opened:
			// From here on the stream is the word that counts.
			opened, registered, noStream = nil, nil, nil
			s.enter(Live, f.own, nil)
		case <-svc.ended:
			return errStreamEnded
		case <-f.settled:
		case <-changed:
		case <-replaced:
		}
	}
}

// closeServer ends the streams, lets a running Allocate end, and takes the
// socket away.
func closeServer(g *grpc.Server, svc *service) {
	close(svc.closing)
	cut := time.AfterFunc(closeTimeout, g.Stop)
	defer cut.Stop()
	g.GracefulStop()
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
	first := make(chan net.Conn, 1)
	first <- c
	conn, err := newClient(func(context.Context, string) (net.Conn, error) {
		select {
		case c := <-first:
			return c, nil
		default:
			return nil, errors.New("the connection to the kubelet was cut")
		}
	})
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

func newClient(dial func(context.Context, string) (net.Conn, error)) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///unix",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithAuthority("localhost"),
		grpc.WithContextDialer(dial))
}
