// Command lab is a virtual machine with real SR-IOV and two NUMA nodes: Linux's
// own drivers, IOMMU groups and VFs, without such hardware and without KVM.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/numalane/numalane/hack/lab/debian"
	"github.com/numalane/numalane/hack/lab/disk"
	"github.com/numalane/numalane/hack/lab/guest"
	"github.com/numalane/numalane/hack/lab/machine"
)

const usage = `usage: lab [flags] build           install what is missing and make the guest's disk
       lab [flags] shell           a shell in the machine; "poweroff" or Ctrl-A x ends it
       lab [flags] run FILE ARG…   run a script or a static program in the machine

run ends with the exit code of what it ran. The folder of -share is /lab in the
machine: there goes what the program needs, and what it leaves is there
afterwards. Nothing else of the machine outlives it.

`

type options struct {
	cache, share string
	timeout      time.Duration
}

func main() {
	// The machine starts this program as its agent.
	if len(os.Args) == 3 && os.Args[1] == "agent" {
		exit(serve(os.Args[2]))
	}
	var o options
	flag.StringVar(&o.cache, "cache", filepath.Join(".cache", "lab"), "folder of the guest's disk and of package lists")
	flag.StringVar(&o.share, "share", "", "folder that the machine shares (default one that goes with it)")
	flag.DurationVar(&o.timeout, "timeout", 15*time.Minute, "longest time for run")
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(), usage)
		flag.PrintDefaults()
	}
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	exit(do(ctx, o, flag.Args()))
}

// exit ends as the program in the guest did.
func exit(err error) {
	if err == nil {
		os.Exit(0)
	}
	fmt.Fprintln(os.Stderr, "lab:", err)
	var of *guest.ExitError
	if errors.As(err, &of) && of.Code > 0 {
		os.Exit(of.Code)
	}
	os.Exit(1)
}

func serve(tokenFile string) error {
	token, err := os.ReadFile(tokenFile)
	if err != nil {
		return err
	}
	return guest.Serve(fmt.Sprintf(":%d", guest.Port), string(token))
}

func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, "lab: "+format+"\n", args...) }

func do(ctx context.Context, o options, args []string) error {
	if len(args) == 0 || args[0] == "run" && len(args) == 1 {
		flag.Usage()
		return errors.New("what to do?")
	}
	if err := os.MkdirAll(o.cache, 0o755); err != nil {
		return err
	}
	if err := debian.Ensure(ctx, o.cache, progress); err != nil {
		return err
	}
	d, err := disk.Ensure(ctx, o.cache, progress)
	if err != nil {
		return err
	}
	switch args[0] {
	case "build":
		progress("the guest's disk: %s", d.Image)
		return nil
	case "shell", "run":
		return o.boot(ctx, d, args[1:])
	}
	flag.Usage()
	return fmt.Errorf("%q: want build, shell or run", args[0])
}

// boot boots a machine and runs a program in it; without one it has a shell.
func (o options) boot(ctx context.Context, d disk.Disk, program []string) (err error) {
	if o.share == "" {
		if o.share, err = os.MkdirTemp("", "numalane-lab-share-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(o.share)) }()
	}
	c := machine.Config{Disk: d, Share: o.share, Progress: progress}
	if len(program) > 0 {
		ctx, cancel := context.WithTimeoutCause(ctx, o.timeout, fmt.Errorf("longer than %s", o.timeout))
		defer cancel()
		return runIn(ctx, c, program)
	}
	m, err := machine.New(ctx, c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	progress("the machine boots: half a minute under emulation; \"poweroff\" or Ctrl-A x ends it")
	if err := m.Start(); err != nil {
		return err
	}
	select {
	case <-m.Ended():
	case <-ctx.Done():
	}
	return nil
}

func runIn(ctx context.Context, c machine.Config, program []string) (err error) {
	if c.Agent, err = os.Executable(); err != nil {
		return err
	}
	c.Console = filepath.Join(c.Share, "console.log")
	m, err := machine.New(ctx, c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	b, err := os.ReadFile(program[0])
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(c.Share, "program"), b, 0o755); err != nil {
		return err
	}
	progress("the machine boots: half a minute under emulation")
	if err := m.Boot(ctx); err != nil {
		return err
	}
	if err := m.Guest().Run(ctx, guest.Command{Args: append([]string{"/lab/program"}, program[1:]...)}, os.Stdout, os.Stderr); err != nil {
		return errors.Join(err, context.Cause(ctx))
	}
	return m.PowerOff(ctx)
}
