package httpserver

import (
	"fmt"
	"net/http"
	"strings"
)

// Check is one condition of readiness.
type Check struct {
	Name string
	// Ready returns nil, or what is not ready yet. It must not block.
	Ready func() error
}

// ready answers as the API server's /readyz does: with ?verbose, or when
// something is not ready, a line for each check.
func ready(checks []Check) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var b strings.Builder
		code := http.StatusOK
		for _, c := range checks {
			if err := c.Ready(); err != nil {
				code = http.StatusServiceUnavailable
				fmt.Fprintf(&b, "[-]%s failed: %v\n", c.Name, err)
			} else {
				fmt.Fprintf(&b, "[+]%s ok\n", c.Name)
			}
		}
		switch {
		case code != http.StatusOK:
			b.WriteString("readyz check failed\n")
		case !r.URL.Query().Has("verbose"):
			b.Reset()
			b.WriteString("ok\n")
		default:
			b.WriteString("readyz check passed\n")
		}
		writeText(w, code, b.String())
	})
}

func writeText(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	_, _ = w.Write([]byte(text)) // the caller has gone: nobody is left to be told
}
