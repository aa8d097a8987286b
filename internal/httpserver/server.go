package httpserver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Options are what a Server serves, and where.
type Options struct {
	Addr     string              // host:port; port 0 takes any
	Handler  http.Handler        // of every path that is not the server's own; nil for none
	Gatherer prometheus.Gatherer // of /metrics
	Checks   []Check             // of /readyz
	// CertFile and KeyFile, both or neither, are PEM files; they are read
	// again when they change.
	CertFile, KeyFile string
	// ClientCAFile holds PEM certificates, read at each handshake. With it only
	// clients are served whose certificate one of them signed. It needs TLS.
	ClientCAFile string
	Profiling    bool // serve /debug/pprof/
	Log          *slog.Logger
}

// Server listens from the moment it is made, and serves while it runs.
type Server struct {
	http     *http.Server
	listener net.Listener
	tls      bool // not asked of http, which gives itself a TLSConfig once it serves
	log      *slog.Logger
}

const (
	headerTimeout = 5 * time.Second
	readTimeout   = 30 * time.Second
	// writeTimeout leaves room for a CPU profile of 30 s.
	writeTimeout = time.Minute
	// idleTimeout is long: a POST on a connection that is just being closed
	// fails, and kube-scheduler then fails the pod's turn.
	idleTimeout = 10 * time.Minute
	// stopTimeout is what calls under way get to end.
	stopTimeout    = 5 * time.Second
	maxHeaderBytes = 64 << 10
)

// New listens on the address, so that an address that is taken is an error at
// the start.
func New(o Options) (*Server, error) {
	var tlsConfig *tls.Config
	switch {
	case o.CertFile != "" || o.KeyFile != "":
		p, err := loadPair(o.CertFile, o.KeyFile, o.Log)
		if err != nil {
			return nil, err
		}
		tlsConfig = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: p.certificate}
		if o.ClientCAFile != "" {
			if tlsConfig, err = demandClientCertificate(tlsConfig, o.ClientCAFile); err != nil {
				return nil, err
			}
		}
	case o.ClientCAFile != "":
		return nil, fmt.Errorf("client certificates by %q: there are none without TLS, which needs a certificate and a key", o.ClientCAFile)
	}
	l, err := net.Listen("tcp", o.Addr)
	if err != nil {
		return nil, fmt.Errorf("listen for HTTP: %w", err)
	}
	return &Server{
		http: &http.Server{
			Handler:           routes(o),
			TLSConfig:         tlsConfig,
			ReadHeaderTimeout: headerTimeout,
			ReadTimeout:       readTimeout,
			WriteTimeout:      writeTimeout,
			IdleTimeout:       idleTimeout,
			MaxHeaderBytes:    maxHeaderBytes,
			ErrorLog:          slog.NewLogLogger(o.Log.Handler(), slog.LevelWarn),
		},
		listener: l,
		tls:      tlsConfig != nil,
		log:      o.Log,
	}, nil
}

// Addr is the address that it listens on.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Run serves until ctx ends, and then lets calls under way end for some
// seconds. The error is nil when it stopped because of ctx.
func (s *Server) Run(ctx context.Context) error {
	served := make(chan error, 1)
	go func() {
		if s.tls {
			served <- s.http.ServeTLS(s.listener, "", "")
		} else {
			served <- s.http.Serve(s.listener)
		}
	}()
	s.log.Info("serving HTTP", "addr", s.Addr().String(), "tls", s.tls)
	select {
	case err := <-served:
		return fmt.Errorf("serve HTTP on %s: %w", s.Addr(), err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	err := s.http.Shutdown(stop)
	if errors.Is(err, context.DeadlineExceeded) {
		s.log.Warn("calls under way were cut off", "addr", s.Addr().String(), "after", stopTimeout)
		err = s.http.Close()
	}
	if err != nil {
		return fmt.Errorf("stop serving HTTP on %s: %w", s.Addr(), err)
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve HTTP on %s: %w", s.Addr(), err)
	}
	return nil
}

func routes(o Options) http.Handler {
	mux := http.NewServeMux()
	if o.Handler != nil {
		mux.Handle("/", o.Handler)
	}
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { writeText(w, http.StatusOK, "ok\n") })
	mux.Handle("GET /readyz", ready(o.Checks))
	if o.Gatherer != nil {
		mux.Handle("GET /metrics", promhttp.HandlerFor(o.Gatherer, promhttp.HandlerOpts{}))
	}
	if o.Profiling {
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	return mux
}
