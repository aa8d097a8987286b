package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// container is where a program runs that the container runtime only says it runs.
type container struct {
	like   string   // mount namespace
	net    string   // network namespace
	root   string   // its root folder
	mounts []string // SOURCE:TARGET
	env    []string
}

// newContainerCommand runs one program as a container runtime would.
func newContainerCommand() *cobra.Command {
	var c container
	cmd := &cobra.Command{
		Use:   "container [flags] -- PROGRAM [ARG...]",
		Short: "Run a program where a container would run",
		Long: `container becomes a program, in a mount namespace of its own, and where asked
for in a network namespace that is there already.

With --root the program sees that folder alone and what is mounted in it, and its
environment is --env; without, both are the caller's. Targets are made.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			// All of this is of the thread, and exec makes that the process.
			runtime.LockOSThread()
			return fmt.Errorf("run %s in a container: %w", args[0], c.become(args))
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.like, "like", "", "mount namespace to start from, as a file: sources are looked up there")
	f.StringVar(&c.net, "net", "", "network namespace to run in, as a file")
	f.StringVar(&c.root, "root", "", "folder that is to be the program's root")
	f.StringArrayVar(&c.mounts, "mount", nil, "SOURCE:TARGET: file or folder to mount, and where")
	f.StringArrayVar(&c.env, "env", nil, "NAME=VALUE, with --root")
	return cmd
}

// become returns only when something failed.
func (c *container) become(args []string) error {
	if err := c.enter(); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	for _, m := range c.mounts {
		source, target, ok := cutLast(m)
		if !ok {
			return fmt.Errorf("--mount %s: want SOURCE:TARGET", m)
		}
		if err := bind(source, filepath.Join("/", c.root, target)); err != nil {
			return fmt.Errorf("mount %s: %w", m, err)
		}
	}
	env := os.Environ()
	if c.root != "" {
		if err := unix.Chroot(c.root); err != nil {
			return fmt.Errorf("change the root to %s: %w", c.root, err)
		}
		if err := unix.Chdir("/"); err != nil {
			return err
		}
		env = c.env
	}
	return unix.Exec(args[0], args, env)
}

// enter goes into the namespaces. The network's first: its file may be one of
// a process that the other mount namespace does not show.
func (c *container) enter() error {
	if c.net != "" {
		if err := setns(c.net, unix.CLONE_NEWNET); err != nil {
			return err
		}
	}
	if c.like != "" {
		// A thread that shares its root with others may not leave (setns(2)).
		if err := errors.Join(unix.Unshare(unix.CLONE_FS), setns(c.like, unix.CLONE_NEWNS)); err != nil {
			return err
		}
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("make a mount namespace: %w", err)
	}
	return nil
}

func setns(path string, kind int) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("enter a namespace: %w", err)
	}
	defer f.Close()
	if err := unix.Setns(int(f.Fd()), kind); err != nil {
		return fmt.Errorf("enter namespace %s: %w", path, err)
	}
	return nil
}

// cutLast splits at the last colon: a source may be named after a PCI address.
func cutLast(m string) (source, target string, ok bool) {
	i := strings.LastIndexByte(m, ':')
	if i < 0 {
		return "", "", false
	}
	return m[:i], m[i+1:], true
}

// bind mounts a file or a folder, with what is mounted below it.
func bind(source, target string) error {
	info, err := os.Stat(source)
	if err != nil {
		return err
	}
	if _, err := os.Stat(target); errors.Is(err, os.ErrNotExist) {
		if info.IsDir() {
			err = os.MkdirAll(target, 0o755)
		} else if err = os.MkdirAll(filepath.Dir(target), 0o755); err == nil {
			err = os.WriteFile(target, nil, 0o644)
		}
		if err != nil {
			return err
		}
	}
	return unix.Mount(source, target, "", unix.MS_BIND|unix.MS_REC, "")
}
