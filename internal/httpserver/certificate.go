package httpserver

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// pair is a certificate and its key in two files. Whoever renews them replaces
// the files; a mounted Secret does so by swapping a link, so that the files'
// times change and nothing else tells.
type pair struct {
	certFile, keyFile string
	log               *slog.Logger

	mu      sync.Mutex
	cert    *tls.Certificate
	changed [2]time.Time // of the files, as last read, well or not
}

func loadPair(certFile, keyFile string, log *slog.Logger) (*pair, error) {
	p := &pair{certFile: certFile, keyFile: keyFile, log: log}
	p.changed = p.times()
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("load the TLS certificate %q and key %q: %w", certFile, keyFile, err)
	}
	p.cert = &cert
	return p, nil
}

// certificate is asked at every handshake. A pair that cannot be read, such as
// one of which only half is written yet, leaves the last good one in use.
func (p *pair) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.times()
	if now == p.changed {
		return p.cert, nil
	}
	p.changed = now
	cert, err := tls.LoadX509KeyPair(p.certFile, p.keyFile)
	if err != nil {
		p.log.Error("the new TLS certificate cannot be used; the last one stays", "cert", p.certFile, "key", p.keyFile, "err", err)
		return p.cert, nil
	}
	p.cert = &cert
	p.log.Info("TLS certificate read again", "cert", p.certFile)
	return p.cert, nil
}

// times are when the files were last changed; zero for one that is not there.
func (p *pair) times() (t [2]time.Time) {
	for i, file := range []string{p.certFile, p.keyFile} {
		if info, err := os.Stat(file); err == nil {
			t[i] = info.ModTime()
		}
	}
	return t
}
