package httpserver_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/numalane/numalane/internal/httpserver"
)

// clientCA is a certificate authority, as PEM and to sign with.
type clientCA struct {
	pem  []byte
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newClientCA(t *testing.T, name string) clientCA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return clientCA{pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), cert, key}
}

func (ca clientCA) client(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "kube-scheduler"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca.cert, key.Public(), ca.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// TestClientCertificates: only whom the CA vouches for is served, and a change of
// the CA counts from the next connection on.
func TestClientCertificates(t *testing.T) {
	dir := t.TempDir()
	writeCertificate(t, dir, "server", 1)
	caFile := filepath.Join(dir, "ca.crt")
	ours, theirs := newClientCA(t, "ours"), newClientCA(t, "theirs")
	write(t, caFile, ours.pem, 1)
	own := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) })
	addr := start(t, httpserver.Options{Handler: own, CertFile: filepath.Join(dir, "tls.crt"), KeyFile: filepath.Join(dir, "tls.key"), ClientCAFile: caFile})
	ask := func(certs ...tls.Certificate) (string, error) {
		client := &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true, Certificates: certs}}}
		defer client.CloseIdleConnections()
		r, err := client.Get("https://" + addr + "/filter")
		if err != nil {
			return "", err
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		return string(b), err
	}
	steps := []struct {
		name   string
		change func()
		certs  []tls.Certificate
		served bool
	}{
		{"none", func() {}, nil, false},
		{"ours", func() {}, []tls.Certificate{ours.client(t)}, true},
		{"another's", func() {}, []tls.Certificate{theirs.client(t)}, false},
		{"ours, of a CA that was replaced", func() { write(t, caFile, theirs.pem, 2) }, []tls.Certificate{ours.client(t)}, false},
		{"the new CA's", func() {}, []tls.Certificate{theirs.client(t)}, true},
		{"the CA cannot be read", func() { write(t, caFile, []byte("half"), 3) }, []tls.Certificate{theirs.client(t)}, false},
	}
	for _, s := range steps {
		s.change()
		got, err := ask(s.certs...)
		if s.served != (err == nil) || s.served && got != "HTTP/2.0" {
			t.Errorf("%s: served %q, error %v", s.name, got, err)
		}
	}
}

func TestClientCABadAtStart(t *testing.T) {
	dir := t.TempDir()
	writeCertificate(t, dir, "server", 1)
	write(t, filepath.Join(dir, "ca.crt"), []byte("none"), 1)
	crt, key := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	for _, tt := range []struct {
		o    httpserver.Options
		want string
	}{
		{httpserver.Options{CertFile: crt, KeyFile: key, ClientCAFile: filepath.Join(dir, "ca.crt")}, "holds no certificate"},
		{httpserver.Options{CertFile: crt, KeyFile: key, ClientCAFile: filepath.Join(dir, "missing")}, "read the CA of client certificates"},
		{httpserver.Options{ClientCAFile: filepath.Join(dir, "ca.crt")}, "there are none without TLS"},
	} {
		tt.o.Addr, tt.o.Log = "127.0.0.1:0", slog.New(slog.DiscardHandler)
		if _, err := httpserver.New(tt.o); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v, want %q", err, tt.want)
		}
	}
}
