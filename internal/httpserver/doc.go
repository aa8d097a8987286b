// Package httpserver is the HTTP server that both daemons share: timeouts, TLS
// with certificates that may be replaced while it runs, /livez, /readyz,
// /metrics, profiling by choice, and an orderly end.
//
// In flow the daemon's own handler, its readiness checks and its metrics.
package httpserver
