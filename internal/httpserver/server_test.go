package httpserver_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/numalane/numalane/internal/httpserver"
)

// start serves until the test ends, and returns the address.
func start(t *testing.T, o httpserver.Options) string {
	t.Helper()
	o.Addr = "127.0.0.1:0"
	o.Log = slog.New(slog.DiscardHandler)
	s, err := httpserver.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return s.Addr().String()
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(b)
}

func TestRoutes(t *testing.T) {
	reg := prometheus.NewRegistry()
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: "numalane_test_total", Help: "A test."})
	reg.MustRegister(c)
	own := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "own") })
	good := httpserver.Check{Name: "good", Ready: func() error { return nil }}
	bad := httpserver.Check{Name: "bad", Ready: func() error { return errors.New("not yet") }}
	plain := start(t, httpserver.Options{Handler: own, Gatherer: reg, Checks: []httpserver.Check{good}})
	waiting := start(t, httpserver.Options{Checks: []httpserver.Check{good, bad}, Profiling: true})
	tests := []struct {
		name, addr, path string
		code             int
		text             string
	}{
		{"alive", plain, "/livez", 200, "ok\n"},
		{"ready", plain, "/readyz", 200, "ok\n"},
		{"ready, verbose", plain, "/readyz?verbose", 200, "[+]good ok\nreadyz check passed\n"},
		{"metrics", plain, "/metrics", 200, "numalane_test_total 0\n"},
		{"the daemon's own", plain, "/filter", 200, "own"},
		{"profiling is off: the daemon's own", plain, "/debug/pprof/cmdline", 200, "own"},
		{"alive though not ready", waiting, "/livez", 200, "ok\n"},
		{"not ready", waiting, "/readyz", 503, "[+]good ok\n[-]bad failed: not yet\nreadyz check failed\n"},
		{"no metrics", waiting, "/metrics", 404, "not found"},
		{"nothing else", waiting, "/filter", 404, "not found"},
		{"profiling is on", waiting, "/debug/pprof/goroutine?debug=1", 200, "goroutine profile"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			code, body := get(t, "http://"+tt.addr+tt.path)
			if code != tt.code || !strings.Contains(body, tt.text) {
				t.Errorf("%d %q, want %d and %q in it", code, body, tt.code, tt.text)
			}
		})
	}
}

// TestStop: a call under way ends in peace.
func TestStop(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	s, err := httpserver.New(httpserver.Options{
		Addr: "127.0.0.1:0", Log: slog.New(slog.DiscardHandler),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			close(entered)
			<-leave
			_, _ = io.WriteString(w, "done")
		}),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	answer := make(chan string, 1)
	go func() {
		r, err := http.Get("http://" + s.Addr().String() + "/")
		if err != nil {
			answer <- err.Error()
			return
		}
		defer r.Body.Close()
		b, _ := io.ReadAll(r.Body)
		answer <- string(b)
	}()
	<-entered
	cancel()
	// From here on no new connection is taken.
	for {
		c, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			break
		}
		c.Close()
	}
	close(leave)
	if got := <-answer; got != "done" {
		t.Errorf("the call under way got %q", got)
	}
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestAddressTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := httpserver.New(httpserver.Options{Addr: l.Addr().String(), Log: slog.New(slog.DiscardHandler)}); err == nil || !strings.Contains(err.Error(), "listen for HTTP") {
		t.Errorf("%v, want a word about listening", err)
	}
}

// writeCertificate writes a pair for this name, as of a time: renewals in one
// second must not look alike.
func writeCertificate(t *testing.T, dir, name string, serial int64) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "tls.crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), serial)
	write(t, filepath.Join(dir, "tls.key"), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}), serial)
}

func write(t *testing.T, path string, data []byte, serial int64) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	when := time.Unix(1_800_000_000+serial, 0)
	if err := os.Chtimes(path, when, when); err != nil {
		t.Fatal(err)
	}
}

func TestTLSReload(t *testing.T) {
	dir := t.TempDir()
	writeCertificate(t, dir, "first", 1)
	addr := start(t, httpserver.Options{CertFile: filepath.Join(dir, "tls.crt"), KeyFile: filepath.Join(dir, "tls.key")})
	served := func() string {
		t.Helper()
		c, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].Subject.CommonName
	}
	steps := []struct {
		name, want string
		change     func()
	}{
		{"at first", "first", func() {}},
		{"renewed", "second", func() { writeCertificate(t, dir, "second", 2) }},
		{"half written: the last good one stays", "second", func() { write(t, filepath.Join(dir, "tls.crt"), []byte("half"), 3) }},
		{"gone: likewise", "second", func() {
			if err := os.Remove(filepath.Join(dir, "tls.key")); err != nil {
				t.Fatal(err)
			}
		}},
		{"good again", "third", func() { writeCertificate(t, dir, "third", 4) }},
	}
	for _, s := range steps {
		s.change()
		if got := served(); got != s.want {
			t.Errorf("%s: serving %q, want %q", s.name, got, s.want)
		}
	}
}

func TestTLSBadAtStart(t *testing.T) {
	dir := t.TempDir()
	_, err := httpserver.New(httpserver.Options{Addr: "127.0.0.1:0", CertFile: filepath.Join(dir, "none.crt"), Log: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), "none.crt") {
		t.Errorf("%v, want the file's name", err)
	}
}
