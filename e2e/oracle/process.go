package oracle

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/numalane/numalane/e2e/kubelets/wire"
)

// commandTimeout is far above what any command takes: a kubelet that needs
// longer hangs.
const commandTimeout = time.Minute

// errKubeletEnded is wrapped when the kubelet's process ended, by a panic most
// of all, or had to be ended.
var errKubeletEnded = errors.New("the kubelet's process has ended")

// managers are a kubelet's resource managers, in a process of their own. One
// goroutine at a time.
type managers struct {
	minor  int
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	stderr *tail
	ended  bool
}

// binaryOf is the program of a kubelet in the folder of binaries.
func binaryOf(dir string, minor int) string {
	return filepath.Join(dir, fmt.Sprintf("managers-1.%d", minor))
}

func startManagers(dir string, minor int) (*managers, error) {
	m := &managers{minor: minor, stderr: &tail{most: 16 << 10}}
	m.cmd = exec.Command(binaryOf(dir, minor))
	m.cmd.Stderr = m.stderr
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	in, err := m.cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start kubelet 1.%d: %w", minor, err)
	}
	out, err := m.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start kubelet 1.%d: %w", minor, err)
	}
	if err := m.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start kubelet 1.%d: %w", minor, err)
	}
	m.in, m.out = in, bufio.NewReaderSize(out, 64<<10)
	return m, nil
}

// do gives a command and waits for its answer. The error tells of a broken
// process; what the kubelet refuses is in the answer.
func (m *managers) do(c wire.Command) (wire.Answer, error) {
	if m.ended {
		return wire.Answer{}, errKubeletEnded
	}
	answer, err := m.exchange(c)
	if err != nil {
		m.stop()
		return wire.Answer{}, fmt.Errorf("kubelet 1.%d: %w (%w); the end of its stderr:\n%s", m.minor, errKubeletEnded, err, m.stderr)
	}
	return answer, nil
}

func (m *managers) exchange(c wire.Command) (wire.Answer, error) {
	var answer wire.Answer
	line, err := json.Marshal(c)
	if err != nil {
		return answer, fmt.Errorf("encode command: %w", err)
	}
	watchdog := time.AfterFunc(commandTimeout, func() { m.cmd.Process.Kill() })
	defer watchdog.Stop()
	if _, err := m.in.Write(append(line, '\n')); err != nil {
		return answer, fmt.Errorf("write command: %w", err)
	}
	text, err := m.out.ReadBytes('\n')
	if err != nil {
		return answer, fmt.Errorf("read answer: %w", err)
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		return answer, fmt.Errorf("decode answer %.200q: %w", text, err)
	}
	return answer, nil
}

// must is do for a command that cannot be refused.
func (m *managers) must(c wire.Command) (wire.Answer, error) {
	answer, err := m.do(c)
	if err == nil && answer.Error != "" {
		err = fmt.Errorf("kubelet 1.%d: %s", m.minor, answer.Error)
	}
	return answer, err
}

// stop ends the process.
func (m *managers) stop() {
	if m.ended {
		return
	}
	m.ended = true
	m.in.Close()
	m.cmd.Process.Kill()
	m.cmd.Wait()
}

// tail keeps the end of what is written.
type tail struct {
	most int

	mu   sync.Mutex
	text []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, b...)
	if over := len(t.text) - t.most; over > 0 {
		t.text = append(t.text[:0], t.text[over:]...)
	}
	return len(b), nil
}

// String is what is kept.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.text)
}
