package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	schedulerconfig "k8s.io/kube-scheduler/config/v1"
)

// certificates are those of docs/scheduling.md: a CA, and of it one for the
// extender and one for kube-scheduler.
type certificates struct {
	dir, host string
	pool      *x509.CertPool
}

func newCertificates(t *testing.T, host string) *certificates {
	t.Helper()
	c := &certificates{dir: t.TempDir(), host: host, pool: x509.NewCertPool()}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "numalane"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	c.sign(t, "ca", ca, caKey, ca, caKey)
	for i, who := range []struct {
		name  string
		usage x509.ExtKeyUsage
	}{{"extender", x509.ExtKeyUsageServerAuth}, {"scheduler", x509.ExtKeyUsageClientAuth}} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		c.sign(t, who.name, &x509.Certificate{
			SerialNumber: big.NewInt(int64(2 + i)), Subject: pkix.Name{CommonName: who.name}, DNSNames: []string{host},
			ExtKeyUsage: []x509.ExtKeyUsage{who.usage}, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		}, key, ca, caKey)
	}
	pemCA, err := os.ReadFile(c.crt("ca"))
	if err != nil || !c.pool.AppendCertsFromPEM(pemCA) {
		t.Fatal("the CA that was just made cannot be read", err)
	}
	return c
}

func (c *certificates) crt(name string) string { return filepath.Join(c.dir, name+".crt") }
func (c *certificates) key(name string) string { return filepath.Join(c.dir, name+".key") }

func (c *certificates) sign(t *testing.T, name string, cert *x509.Certificate, key *ecdsa.PrivateKey, by *x509.Certificate, byKey *ecdsa.PrivateKey) {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, cert, by, key.Public(), byKey)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{
		c.crt(name): {Type: "CERTIFICATE", Bytes: der},
		c.key(name): {Type: "EC PRIVATE KEY", Bytes: keyDER},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// flags are the extender's.
func (c *certificates) flags() []string {
	return []string{"--tls-cert-file", c.crt("extender"), "--tls-private-key-file", c.key("extender"), "--client-ca-file", c.crt("ca")}
}

// toScheduler puts the files of this machine into a configuration.
func (c *certificates) toScheduler(k *schedulerconfig.KubeSchedulerConfiguration) {
	for i := range k.Extenders {
		tls := k.Extenders[i].TLSConfig
		tls.CertFile, tls.KeyFile, tls.CAFile = c.crt("scheduler"), c.key("scheduler"), c.crt("ca")
	}
}

// client calls the extender as kube-scheduler would.
func (c *certificates) client(t *testing.T) *http.Client {
	t.Helper()
	own, err := tls.LoadX509KeyPair(c.crt("scheduler"), c.key("scheduler"))
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: c.pool, ServerName: c.host, Certificates: []tls.Certificate{own}}, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}
