package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// Process is a child of the box, with its output in a log file.
type Process struct {
	Name string
	Log  string

	cmd   *exec.Cmd
	ended chan struct{}
}

// run starts a program. ownMounts gives it a mount namespace of its own.
func run(name, logDir string, ownMounts bool, program string, args ...string) (*Process, error) {
	p := &Process{Name: name, Log: filepath.Join(logDir, name+".log"), ended: make(chan struct{})}
	if err := os.MkdirAll(logDir, 0o755); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("log of %s: %w", name, err)
	}
	defer log.Close()
	p.cmd = exec.Command(program, args...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	// What a process leaves where it stands goes with the box. A kubelet must
	// not stay here: it empties the folder (cmd/simnode, seal).
	p.cmd.Dir = logDir
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // an interrupt of the terminal is for the box's first process
	if ownMounts {
		p.cmd.SysProcAttr.Unshareflags = syscall.CLONE_NEWNS
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		p.cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// PID is the process's id inside the box.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Ended is closed when the process has ended.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Kill ends the process at once, as a crash would, and waits for that.
func (p *Process) Kill() { p.end(syscall.SIGKILL) }

// Stop asks the process to end, and kills it after a while.
func (p *Process) Stop() { p.end(syscall.SIGTERM) }

func (p *Process) end(sig syscall.Signal) {
	p.cmd.Process.Signal(sig)
	select {
	case <-p.ended:
	case <-time.After(10 * time.Second):
		p.cmd.Process.Kill()
		<-p.ended
	}
}

// Resident is the process's resident memory in bytes.
func (p *Process) Resident() (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.PID()))
	if err != nil {
		return 0, err
	}
	var size, resident int64
	if _, err := fmt.Sscan(string(b), &size, &resident); err != nil {
		return 0, fmt.Errorf("read statm of %s: %w", p.Name, err)
	}
	return resident * int64(os.Getpagesize()), nil
}

// Tail is the end of the log.
func (p *Process) Tail() string {
	const most = 3000
	b, err := os.ReadFile(p.Log)
	if err != nil {
		return err.Error()
	}
	if len(b) > most {
		b = b[len(b)-most:]
	}
	return string(bytes.TrimSpace(b))
}

// pollEvery is how often a condition that has no event is looked at.
const pollEvery = 20 * time.Millisecond

// Wait looks at a condition until it holds. Its last error is in the error when
// the time is up.
func Wait(ctx context.Context, most time.Duration, what string, holds func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, most, fmt.Errorf("not within %s", most))
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	var last error
	for {
		err := holds(ctx)
		if err == nil {
			return nil
		}
		if last == nil || ctx.Err() == nil {
			last = err // and not that the time was up in the middle of a look
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w: %w", what, context.Cause(ctx), last)
		case <-tick.C:
		}
	}
}

// ready waits for a condition of a process, and gives up when the process ends.
func (p *Process) ready(ctx context.Context, most time.Duration, holds func(context.Context) error) error {
	gone := errors.New("it has ended")
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-p.ended:
			cancel(gone)
		case <-stop:
		}
	}()
	if err := Wait(ctx, most, p.Name, holds); err != nil {
		return fmt.Errorf("%w; the end of its log:\n%s", err, p.Tail())
	}
	return nil
}

// freePort is a TCP port of the loopback that was free a moment ago.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
