package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
)

// boxed marks, by an environment variable, the process that Enter started.
const boxed = "NUMALANE_E2E_BOXED"

// Dir is where everything of the cluster is, inside the box. It is short: the
// path of a Unix socket must stay below 108 bytes.
const Dir = "/var/lib/nl"

// sysctls are what a kubelet sets on its host unless it reads these
// (cm/container_manager_linux.go, setupKernelTunables).
var sysctls = map[string]string{
	"vm/overcommit_memory":      "1",
	"vm/panic_on_oom":           "0",
	"kernel/panic":              "10",
	"kernel/panic_on_oops":      "1",
	"kernel/keys/root_maxkeys":  "1000000",
	"kernel/keys/root_maxbytes": "25000000",
}

// Box is where the program runs now.
type Box struct {
	pid string // of the box's first process, outside
}

// Outside is the path by which a file of the box can be read from outside, as
// long as the box is there.
func (b *Box) Outside(path string) string { return filepath.Join("/proc", b.pid, "root", path) }

// Enter runs the program again as the first process of a box, and never
// returns: it exits as that process does. In the box it sets the box up and
// returns. Call it first of all in main or TestMain; it needs root.
func Enter() (*Box, error) {
	if os.Getenv(boxed) == "" {
		code, err := start()
		if err != nil {
			return nil, err
		}
		os.Exit(code)
	}
	// /proc is still that of outside.
	pid, err := os.Readlink("/proc/self")
	if err != nil {
		return nil, err
	}
	return &Box{pid: pid}, furnish()
}

// start runs this program in new namespaces and passes signals on. The kernel
// kills the box's first process, and with it all others, when this one dies.
func start() (code int, err error) {
	// The parent-death signal belongs to the thread that forked.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if os.Geteuid() != 0 {
		return 0, errors.New("root is needed: kubelets get a mount namespace of their own")
	}
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), boxed+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:   syscall.CLONE_NEWPID | syscall.CLONE_NEWNS,
		Unshareflags: syscall.CLONE_NEWNS, // makes the new mounts private
		Pdeathsig:    syscall.SIGKILL,
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("start in new namespaces: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case s := <-signals:
			// An interrupt of the terminal reaches the whole group by itself.
			if s != syscall.SIGINT {
				cmd.Process.Signal(s)
			}
		case err := <-ended:
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				return 0, err
			}
			if code := cmd.ProcessState.ExitCode(); code >= 0 {
				return code, nil
			}
			return 128 + int(cmd.ProcessState.Sys().(syscall.WaitStatus).Signal()), nil
		}
	}
}

// furnish makes the box's mounts: none is seen outside.
func furnish() error {
	if os.Getpid() != 1 {
		return fmt.Errorf("%s is set and this is no box: unset it", boxed)
	}
	os.Unsetenv(boxed)
	mounts := []struct {
		source, target, fstype string
		flags                  uintptr
		data                   string
	}{
		{"", "/", "", syscall.MS_REC | syscall.MS_PRIVATE, ""},
		{"proc", "/proc", "proc", syscall.MS_NOSUID | syscall.MS_NODEV | syscall.MS_NOEXEC, ""},
		// No kernel setting can be written in the box, not even by root.
		{"/proc/sys", "/proc/sys", "", syscall.MS_BIND, ""},
		{"", "/proc/sys", "", syscall.MS_BIND | syscall.MS_REMOUNT | syscall.MS_RDONLY, ""},
		{"tmpfs", filepath.Dir(Dir), "tmpfs", syscall.MS_NOSUID | syscall.MS_NODEV, "mode=0755"},
	}
	for _, m := range mounts {
		if err := syscall.Mount(m.source, m.target, m.fstype, m.flags, m.data); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	for name, value := range sysctls {
		file := filepath.Join(filepath.Dir(Dir), "sysctl", filepath.Base(filepath.Dir(name))+"-"+filepath.Base(name))
		if err := writeFile(file, value+"\n"); err != nil {
			return err
		}
		if err := syscall.Mount(file, filepath.Join("/proc/sys", name), "", syscall.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount over sysctl %s: %w", name, err)
		}
	}
	return nil
}

func writeFile(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o600)
}
