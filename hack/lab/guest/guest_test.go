package guest

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	go Serve(addr, "secret")
	c := &Client{URL: "http://" + addr, Token: "secret"}
	ctx := t.Context()
	for { // until it listens
		if conn, err := net.Dial("tcp", addr); err == nil {
			conn.Close()
			break
		}
	}
	var out, errs strings.Builder
	if err := c.Run(ctx, Command{Args: []string{"sh", "-c", "cat; echo told >&2"}, Stdin: "given"}, &out, &errs); err != nil {
		t.Fatal(err)
	}
	if out.String() != "given" || errs.String() != "told\n" {
		t.Errorf("out %q, err %q", out.String(), errs.String())
	}
	var exit *ExitError
	if err := c.Run(ctx, Command{Args: []string{"sh", "-c", "echo why >&2; exit 3"}}, io.Discard, io.Discard); !errors.As(err, &exit) || exit.Code != 3 || exit.Stderr != "why\n" {
		t.Errorf("a program that fails: %v", err)
	}
	if err := c.Run(ctx, Command{Args: []string{"/no/such/program"}}, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("a program that is not there: %v", err)
	}
	// Its child holds the output open, and it ends all the same.
	if _, err := c.Output(ctx, "sh", "-c", "sleep 5 & echo $!"); err != nil {
		t.Errorf("a program that leaves a child: %v", err)
	}
	if err := (&Client{URL: c.URL, Token: "guessed"}).Run(ctx, Command{Args: []string{"true"}}, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), "403") {
		t.Errorf("another token: %v", err)
	}
}
