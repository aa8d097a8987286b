// Package guest runs programs in the guest: Serve is the guest's side, Client
// the host's.
//
// In goes a command line, out come what it prints and how it ends, as a stream
// of JSON frames over HTTP. Whoever reaches the port needs the token: the guest
// writes to folders of the host.
package guest

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// Port is where the agent listens in the guest.
const Port = 7301

// Command is what to run.
type Command struct {
	Args  []string `json:"args"`
	Stdin string   `json:"stdin,omitempty"`
}

// frame is one step of a command's life: output, or its end.
type frame struct {
	Out  string `json:"out,omitempty"`
	Err  string `json:"err,omitempty"`
	End  bool   `json:"end,omitempty"`
	Code int    `json:"code,omitempty"`
	Fail string `json:"fail,omitempty"` // it could not be run
}

// Serve answers until it fails.
func Serve(addr, token string) error {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /run", func(w http.ResponseWriter, r *http.Request) {
		if subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), []byte(token)) != 1 {
			http.Error(w, "want the token", http.StatusForbidden)
			return
		}
		var c Command
		if err := json.NewDecoder(r.Body).Decode(&c); err != nil || len(c.Args) == 0 {
			http.Error(w, fmt.Sprintf("want a command: %v", err), http.StatusBadRequest)
			return
		}
		run(r.Context(), c, &stream{to: json.NewEncoder(w), flush: http.NewResponseController(w)})
	})
	s := &http.Server{Addr: addr, Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	return s.ListenAndServe()
}

func run(ctx context.Context, c Command, to *stream) {
	cmd := exec.CommandContext(ctx, c.Args[0], c.Args[1:]...)
	cmd.Stdin = strings.NewReader(c.Stdin)
	cmd.Stdout = writer(func(s string) error { return to.send(frame{Out: s}) })
	cmd.Stderr = writer(func(s string) error { return to.send(frame{Err: s}) })
	cmd.WaitDelay = time.Second // what it left in the background may hold its output open
	err := cmd.Run()
	end := frame{End: true}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		end.Code = exit.ExitCode()
	case err != nil && !errors.Is(err, exec.ErrWaitDelay):
		end.Fail = err.Error()
	}
	_ = to.send(end) // who does not hear it has gone, and sees that there is no end
}

type stream struct {
	mu    sync.Mutex
	to    *json.Encoder
	flush *http.ResponseController
}

func (s *stream) send(f frame) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(s.to.Encode(f), s.flush.Flush())
}

type writer func(string) error

func (w writer) Write(b []byte) (int, error) { return len(b), w(string(b)) }

// Client runs programs in a guest.
type Client struct {
	URL, Token string
}

// ExitError is the end of a program that failed.
type ExitError struct {
	Args   []string
	Code   int
	Stderr string
}

func (e *ExitError) Error() string {
	return fmt.Sprintf("in the guest: %s: exit code %d: %s", strings.Join(e.Args, " "), e.Code, strings.TrimSpace(e.Stderr))
}

// Output runs a program and returns what it printed.
func (c *Client) Output(ctx context.Context, args ...string) (string, error) {
	var out strings.Builder
	err := c.Run(ctx, Command{Args: args}, &out, io.Discard)
	return out.String(), err
}

// Run runs a program to its end. It is killed when ctx ends.
func (c *Client) Run(ctx context.Context, cmd Command, stdout, stderr io.Writer) error {
	body, err := json.Marshal(cmd)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.URL+"/run", strings.NewReader(string(body)))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", c.Token)
	// A connection of its own: none outlives the machine it went to.
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("reach the guest: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		b, err := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return errors.Join(fmt.Errorf("the guest answers %s: %s", resp.Status, b), err)
	}
	var said strings.Builder
	for d := json.NewDecoder(resp.Body); ; {
		var f frame
		if err := d.Decode(&f); err != nil {
			return fmt.Errorf("in the guest: %s: its end was not heard: %w", strings.Join(cmd.Args, " "), err)
		}
		said.WriteString(f.Err)
		if _, err := io.WriteString(stdout, f.Out); err != nil {
			return err
		}
		if _, err := io.WriteString(stderr, f.Err); err != nil {
			return err
		}
		switch {
		case !f.End:
		case f.Fail != "":
			return fmt.Errorf("in the guest: %s: %s", strings.Join(cmd.Args, " "), f.Fail)
		case f.Code != 0:
			return &ExitError{Args: cmd.Args, Code: f.Code, Stderr: said.String()}
		default:
			return nil
		}
	}
}
