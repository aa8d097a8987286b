// Package client runs a kubelet's program, and is the other end of its wire.
//
// In flow commands, out flow their answers. The process can be killed at any
// moment, as a kubelet that crashes.
package client

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/numalane/numalane/e2e/kubelets/wire"
)

// commandTimeout is far above what any command takes: a kubelet that needs
// longer hangs.
const commandTimeout = time.Minute

// ErrEnded is wrapped when the kubelet's process ended, by a panic most of all,
// or had to be ended.
var ErrEnded = errors.New("the kubelet's process has ended")

// Kubelet is the process of a kubelet's resource managers. One goroutine at a
// time.
type Kubelet struct {
	minor  int
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	stderr io.Writer
	ended  bool
}

// Program is that of a kubelet in the folder of binaries.
func Program(dir string, minor int) string {
	return filepath.Join(dir, fmt.Sprintf("managers-1.%d", minor))
}

// Start starts the program of a kubelet of the folder. What it logs goes to
// stderr, and where that can tell what it holds (fmt.Stringer), into the error
// of a process that ended.
func Start(dir string, minor int, stderr io.Writer, args ...string) (*Kubelet, error) {
	k := &Kubelet{minor: minor, stderr: stderr, cmd: exec.Command(Program(dir, minor), args...)}
	k.cmd.Stderr = stderr
	k.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	in, err := k.cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start kubelet 1.%d: %w", minor, err)
	}
	out, err := k.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start kubelet 1.%d: %w", minor, err)
	}
	if err := k.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start kubelet 1.%d: %w", minor, err)
	}
	k.in, k.out = in, bufio.NewReaderSize(out, 64<<10)
	return k, nil
}

// Do gives a command and waits for its answer. The error tells of a broken
// process; what the kubelet refuses is in the answer.
func (k *Kubelet) Do(c wire.Command) (wire.Answer, error) {
	if k.ended {
		return wire.Answer{}, ErrEnded
	}
	answer, err := k.exchange(c)
	if err != nil {
		k.Kill()
		err = fmt.Errorf("kubelet 1.%d: %w (%w)", k.minor, ErrEnded, err)
		if log, ok := k.stderr.(fmt.Stringer); ok {
			err = fmt.Errorf("%w; the end of its stderr:\n%s", err, log)
		}
		return wire.Answer{}, err
	}
	return answer, nil
}

// Must is Do for a command that cannot be refused.
func (k *Kubelet) Must(c wire.Command) (wire.Answer, error) {
	answer, err := k.Do(c)
	if err == nil && answer.Error != "" {
		err = fmt.Errorf("kubelet 1.%d: %s", k.minor, answer.Error)
	}
	return answer, err
}

// Ended tells that the process was killed or has ended by itself.
func (k *Kubelet) Ended() bool { return k.ended }

// Kill ends the process at once, and waits for that.
func (k *Kubelet) Kill() {
	if k.ended {
		return
	}
	k.ended = true
	// Its end of the pipe closes with Wait: a program that sees the last of its
	// commands ends in peace.
	k.kill()
	k.cmd.Wait()
}

// kill ends the process and those that it has started, which would keep Wait
// waiting for the end of stderr: it leads a group of its own.
func (k *Kubelet) kill() { syscall.Kill(-k.cmd.Process.Pid, syscall.SIGKILL) }

func (k *Kubelet) exchange(c wire.Command) (wire.Answer, error) {
	var answer wire.Answer
	line, err := json.Marshal(c)
	if err != nil {
		return answer, fmt.Errorf("encode command: %w", err)
	}
	watchdog := time.AfterFunc(commandTimeout, k.kill)
	defer watchdog.Stop()
	if _, err := k.in.Write(append(line, '\n')); err != nil {
		return answer, fmt.Errorf("write command: %w", err)
	}
	text, err := k.out.ReadBytes('\n')
	if err != nil {
		return answer, fmt.Errorf("read answer: %w", err)
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		return answer, fmt.Errorf("decode answer %.200q: %w", text, err)
	}
	return answer, nil
}
