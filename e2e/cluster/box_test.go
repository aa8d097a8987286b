package cluster

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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
	Files     []string          // Dir, and what a kubelet makes at paths that its code fixes
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
	for _, pattern := range []string{
		Dir, "/var/lib/kubelet", "/var/lib/kubelet/device-plugins/*", "/var/log/containers", "/var/log/pods",
		"/usr/libexec/kubernetes", "/etc/kubernetes", filepath.Join(os.TempDir(), "kubelet*"),
	} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		f.Files = append(f.Files, found...)
	}
	return f
}

// reach is what a kubelet could change on its host.
type reach struct {
	Writable []string // mounts outside the node's folder that are not read-only
	Folder   string   // the one it works in
}

// reaches looks at the kubelets that run, by the name of their node.
func reaches(t *testing.T, bin string) map[string]reach {
	t.Helper()
	found := map[string]reach{}
	procs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, proc := range procs {
		// A process that is no longer there is none of the kubelets.
		cmdline, _ := os.ReadFile(filepath.Join(proc, "cmdline"))
		args := strings.Split(string(cmdline), "\x00")
		at := slices.Index(args, "--name")
		if args[0] != filepath.Join(bin, "simnode") || at < 0 {
			continue
		}
		name := args[at+1]
		own := filepath.Join(Dir, name)
		var r reach
		if r.Folder, err = os.Readlink(filepath.Join(proc, "cwd")); err != nil {
			t.Fatal(err)
		}
		mounts, err := os.ReadFile(filepath.Join(proc, "mountinfo"))
		if err != nil {
			t.Fatal(err)
		}
		// proc(5): the fifth field is the place, the sixth the mount's own options.
		for line := range strings.Lines(string(mounts)) {
			f := strings.Fields(line)
			place, options := f[4], strings.Split(f[5], ",")
			if place != own && !strings.HasPrefix(place, own+"/") && !slices.Contains(options, "ro") {
				r.Writable = append(r.Writable, place)
			}
		}
		slices.Sort(r.Writable)
		found[name] = r
	}
	return found
}

// TestNothingIsLeft kills a demo in the middle, as hard as can be, and looks
// for processes, mounts, files and kernel settings. Before, it looks at what
// the kubelets could change on their host: nothing.
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
	during, kubelets := look(t, bin), reaches(t, bin)
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
	if len(kubelets) < 4 {
		t.Errorf("only %d kubelets ran", len(kubelets))
	}
	for name, got := range kubelets {
		want := reach{Writable: []string{"/var/lib/kubelet/device-plugins", "/var/log"}, Folder: filepath.Join(Dir, name, "work")}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("what the kubelet of %s could change (-want +got):\n%s", name, diff)
		}
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
