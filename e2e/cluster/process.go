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
	"sync"
	"syscall"
	"time"
)

// Process is a child of the box, with its output in a log file. It may end and
// be started again, as itself: with the same arguments, addresses among them.
type Process struct {
	Name string
	Log  string

	program   string
	args      []string
	ownMounts bool
	up        func(context.Context) error // what tells that it serves; nil: nothing does

	mu    sync.Mutex // held while one life of it gives way to the next
	cmd   *exec.Cmd
	ended chan struct{}
}

// run starts a program. ownMounts gives it a mount namespace of its own.
func run(name, logDir string, ownMounts bool, program string, args ...string) (*Process, error) {
	p := &Process{Name: name, Log: filepath.Join(logDir, name+".log"), program: program, args: args, ownMounts: ownMounts}
	if err := os.MkdirAll(logDir, 0o755); err != nil {
		return nil, err
	}
	return p, p.start()
}

func (p *Process) start() error {
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("log of %s: %w", p.Name, err)
	}
	defer log.Close()
	cmd, ended := exec.Command(p.program, p.args...), make(chan struct{})
	cmd.Stdout, cmd.Stderr = log, log
	// What a process leaves where it stands goes with the box. A kubelet must
	// not stay here: it empties the folder (cmd/simnode, seal).
	cmd.Dir = filepath.Dir(p.Log)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // an interrupt of the terminal is for the box's first process
	if p.ownMounts {
		cmd.SysProcAttr.Unshareflags = syscall.CLONE_NEWNS
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	p.mu.Lock()
	p.cmd, p.ended = cmd, ended
	p.mu.Unlock()
	go func() {
		cmd.Wait()
		close(ended)
	}()
	return nil
}

// Restart starts the process again, killing it where it still runs, and waits
// until it serves.
func (p *Process) Restart(ctx context.Context) error {
	p.Kill()
	if err := p.start(); err != nil || p.up == nil {
		return err
	}
	return p.ready(ctx, time.Minute, p.up)
}

// serves waits until the process serves, now and after each restart.
func (p *Process) serves(ctx context.Context, most time.Duration, up func(context.Context) error) error {
	p.up = up
	return p.ready(ctx, most, up)
}

func (p *Process) life() (*exec.Cmd, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd, p.ended
}

// PID is the process's id inside the box.
func (p *Process) PID() int {
	cmd, _ := p.life()
	return cmd.Process.Pid
}

// Ended is closed when the process, as it runs now, has ended.
func (p *Process) Ended() <-chan struct{} {
	_, ended := p.life()
	return ended
}

// Pause stops the process where it stands, its connections open; Resume lets it
// go on.
func (p *Process) Pause() error { return p.signal(syscall.SIGSTOP) }

// Resume is for a paused process.
func (p *Process) Resume() error { return p.signal(syscall.SIGCONT) }

func (p *Process) signal(sig syscall.Signal) error {
	cmd, _ := p.life()
	if err := cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("%s to %s: %w", sig, p.Name, err)
	}
	return nil
}

// Kill ends the process at once, as a crash would, and waits for that.
func (p *Process) Kill() { p.end(syscall.SIGKILL) }

// Stop asks the process to end, and kills it after a while.
func (p *Process) Stop() { p.end(syscall.SIGTERM) }

func (p *Process) end(sig syscall.Signal) {
	cmd, ended := p.life()
	cmd.Process.Signal(sig)
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		cmd.Process.Kill()
		<-ended
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
	stop, ended := make(chan struct{}), p.Ended()
	defer close(stop)
	go func() {
		select {
		case <-ended:
			cancel(gone)
		case <-stop:
		}
	}()
	if err := Wait(ctx, most, p.Name, holds); err != nil {
		return fmt.Errorf("%w; the end of its log:\n%s", err, p.Tail())
	}
	return nil
}

// FreeAddress is an address of the loopback that was free a moment ago.
func FreeAddress() (string, error) {
	port, err := freePort()
	return fmt.Sprintf("127.0.0.1:%d", port), err
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
