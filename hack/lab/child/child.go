// Package child starts programs that do not outlive the one that started them.
//
// In goes a command, out comes its end. The kernel kills a child when the thread
// that forked it dies (PR_SET_PDEATHSIG), so each has a thread of its own that
// waits for it.
package child

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
)

// Start starts a command and returns a channel that has its end, once.
func Start(cmd *exec.Cmd) (<-chan error, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	started, ended := make(chan error, 1), make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the child
		if err := cmd.Start(); err != nil {
			started <- fmt.Errorf("start %s: %w", cmd.Path, err)
			return
		}
		started <- nil
		ended <- cmd.Wait()
	}()
	return ended, <-started
}

// Run runs a program to its end. What it printed is in the error if it fails.
func Run(ctx context.Context, env []string, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	ended, err := Start(cmd)
	if err != nil {
		return err
	}
	if err := <-ended; err != nil {
		const most = 3000
		said := bytes.TrimSpace(out.Bytes())
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, said[max(0, len(said)-most):])
	}
	return nil
}
