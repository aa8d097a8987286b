// vmguest is what runs inside the virtual machine of e2e/vm besides Kubernetes:
// the agent that the host speaks to, the container that stays and tells what it
// was given, the network plugin that gives pods their VFs, and an eye on kernel
// and kubelet that puts a time to what it sees. As a container without an
// argument it is the pause container.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/numalane/numalane/e2e/vm/view"
	"github.com/numalane/numalane/hack/lab/guest"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "vmguest:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if os.Getenv("CNI_COMMAND") != "" {
		return network(ctx, os.Stdin, os.Stdout)
	}
	switch {
	case len(args) == 0:
		<-ctx.Done()
		return nil
	case args[0] == "agent" && len(args) == 2:
		token, err := os.ReadFile(args[1])
		if err != nil {
			return err
		}
		return guest.Serve(fmt.Sprintf(":%d", guest.Port), string(token))
	case args[0] == "hold":
		return hold(ctx, os.Stdout)
	case args[0] == "watch":
		return watch(ctx, os.Stdout)
	case args[0] == "work":
		took, err := view.Work()
		fmt.Println(took)
		return err
	case args[0] == "allocatable":
		return allocatable(ctx, os.Stdout)
	}
	return fmt.Errorf("unknown: %q", args)
}
