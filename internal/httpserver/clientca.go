package httpserver

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
)

// demandClientCertificate is the configuration of a server for clients that a
// CA of the file vouches for. The file is read at each handshake, of which there
// are few: whom it no longer vouches for gets no new connection, and if it
// cannot be read nobody does.
func demandClientCertificate(c *tls.Config, file string) (*tls.Config, error) {
	if _, err := readPool(file); err != nil {
		return nil, err
	}
	c = c.Clone()
	c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		pool, err := readPool(file)
		if err != nil {
			return nil, err
		}
		// http.Server adds h2 to its own copy of the configuration alone.
		return &tls.Config{
			MinVersion: c.MinVersion, GetCertificate: c.GetCertificate, NextProtos: []string{"h2", "http/1.1"},
			ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool,
		}, nil
	}
	return c, nil
}

func readPool(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the CA of client certificates: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read the CA of client certificates: %s holds no certificate", file)
	}
	return pool, nil
}
