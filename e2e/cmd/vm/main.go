// vm checks numalane in a virtual machine with real SR-IOV: "make e2e-vm".
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/numalane/numalane/e2e/cluster"
	"github.com/numalane/numalane/e2e/vm"
)

func main() {
	_, err := cluster.Enter()
	if err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
		defer stop()
		err = run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e-vm:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	bin := filepath.Dir(self)
	root := filepath.Join(bin, "..", "..", "..")
	share := filepath.Join(root, ".cache", "vm")
	if err := os.RemoveAll(share); err != nil {
		return err
	}
	if err := os.MkdirAll(share, 0o755); err != nil {
		return err
	}
	line, err := vm.Run(ctx, vm.Options{
		Bin: bin, Images: filepath.Join(root, "bin"), Deploy: filepath.Join(root, "deploy"),
		Cache: filepath.Join(root, ".cache", "lab"), Share: share, Out: os.Stdout,
	})
	if line != "" {
		fmt.Println(line)
	}
	return err
}
