package registration_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
	"time"
)

// process is numalane-plugin.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	log   string
	ended chan struct{}
}

// startPlugin starts the product's plugin for the node's kubelet, away from any
// API and port.
func (n *node) startPlugin() *process {
	n.t.Helper()
	return n.startPluginAt("--kubelet-dir", n.root)
}

func (n *node) startPluginAt(where ...string) *process {
	n.t.Helper()
	n.plugins++
	p := &process{t: n.t, log: filepath.Join(n.dir, fmt.Sprintf("plugin-%d.log", n.plugins)), ended: make(chan struct{})}
	log, err := os.Create(p.log)
	if err != nil {
		n.t.Fatal(err)
	}
	defer log.Close()
	args := append([]string{
		"--sysfs-root", n.sysfs(), "--config-file", n.poolsFile(), "--rescan-interval", "50ms", "--kubelet-url", "", "--node-name", "", "--listen", "",
		"--devinfo-dir", filepath.Join(n.dir, "devinfo"),
	}, where...)
	p.cmd = exec.Command(filepath.Join(binaries, "numalane-plugin"), args...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	go func() {
		p.cmd.Wait()
		close(p.ended)
	}()
	n.t.Cleanup(func() {
		p.kill()
		if n.t.Failed() {
			n.t.Logf("the end of the log of %s:\n%s", filepath.Base(p.log), end(p.log))
		}
	})
	return p
}

// kill ends the plugin as a crash does.
func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.ended
}

// stop ends the plugin as a kubelet ends a pod.
func (p *process) stop() {
	p.t.Helper()
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.t.Fatal("the plugin has not ended after SIGTERM")
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		p.t.Errorf("the plugin ended with exit code %d", code)
	}
}

func (p *process) logged(text string) []string {
	p.t.Helper()
	b, err := os.ReadFile(p.log)
	if err != nil {
		p.t.Fatal(err)
	}
	return matching(string(b), text)
}

// says waits until the plugin has logged the text so many times.
func (p *process) says(text string, times int) {
	p.t.Helper()
	eventually(p.t, fmt.Sprintf("the plugin to say %q %d times", text, times), func() error {
		select {
		case <-p.ended:
			p.t.Fatal("the plugin has ended")
		default:
		}
		if said := len(p.logged(text)); said < times {
			return fmt.Errorf("said %d times", said)
		}
		return nil
	})
}

// What the plugin says to people: internal/plugin.
const (
	isLive        = "the kubelet watches the pool"
	waits         = "waiting for the kubelet to listen"
	standsBy      = "a newer instance of the plugin has the pool, standing by"
	notRegistered = "pool has no devices and is not registered"
	noNUMANode    = "have no NUMA node and others of the pool have"
)

var socketInLog = regexp.MustCompile(`socket=(\S+)`)

// live waits until the kubelet has opened the plugin's streams so many times,
// and returns the sockets' names in that order.
func (p *process) live(times int) (sockets []string) {
	p.t.Helper()
	p.says(isLive, times)
	for _, line := range p.logged(isLive) {
		found := socketInLog.FindStringSubmatch(line)
		if found == nil {
			p.t.Fatalf("no socket in %q", line)
		}
		sockets = append(sockets, filepath.Base(found[1]))
	}
	return sockets
}

// gone waits until a file is gone.
func (n *node) gone(path string) {
	n.t.Helper()
	eventually(n.t, path+" to be gone", func() error {
		switch _, err := os.Lstat(path); {
		case errors.Is(err, os.ErrNotExist):
			return nil
		case err != nil:
			return err
		}
		return errors.New("it is there")
	})
}
