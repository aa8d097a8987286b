package cluster

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// footprint is what of a cluster could be left on a machine.
type footprint struct {
	Processes []string          // those of our binaries
	Mounts    string            // all mounts
	Sysctls   map[string]string // those that a kubelet writes
	Files     []string          // Dir, and what is in the temporary folder
}

func look(t *testing.T, bin string) footprint {
	t.Helper()
	f := footprint{Sysctls: map[string]string{}}
	exes, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		t.Fatal(err)
	}
	for _, exe := range exes {
		if target, err := os.Readlink(exe); err == nil && strings.HasPrefix(target, bin) {
			f.Processes = append(f.Processes, target)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	f.Mounts = string(mounts)
	for name := range sysctls {
		b, err := os.ReadFile(filepath.Join("/proc/sys", name))
		if err != nil {
			t.Fatal(err)
		}
		f.Sysctls[name] = string(b)
	}
	for _, pattern := range []string{Dir, "/var/lib/kubelet/device-plugins/*", filepath.Join(os.TempDir(), "kubelet*")} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		f.Files = append(f.Files, found...)
	}
	return f
}

// TestNothingIsLeft kills a demo in the middle, as hard as can be, and looks
// for processes, mounts, files and kernel settings.
func TestNothingIsLeft(t *testing.T) {
	bin, err := filepath.Abs("../.cache/bin")
	if err != nil {
		t.Fatal(err)
	}
	before := look(t, bin)
	cmd := exec.Command(filepath.Join(bin, "demo"))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	seen := false
	for lines.Scan() && !seen {
		t.Log(lines.Text())
		seen = strings.Contains(lines.Text(), "nodes are ready")
	}
	during := look(t, bin)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	if !seen {
		t.Fatal("the demo ended before its nodes were ready")
	}
	if len(during.Processes) < 12 {
		t.Errorf("only %d processes ran: %v", len(during.Processes), during.Processes)
	}
	err = Wait(context.Background(), 20*time.Second, "the processes to go", func(context.Context) error {
		if diff := cmp.Diff(before, look(t, bin)); diff != "" {
			return errorString(diff)
		}
		return nil
	})
	if err != nil {
		t.Errorf("what is left (-before +after):\n%v", err)
	}
}

type errorString string

func (e errorString) Error() string { return string(e) }
