// demo shows the problem and the cure: the same pods through plain
// kube-scheduler, and through one with numalane's extender, on real kubelets.
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

	"github.com/numalane/numalane/e2e/cluster"
	"github.com/numalane/numalane/e2e/demo"
)

func main() {
	keep := flag.Bool("keep", false, "leave the cluster running until interrupted")
	flag.Parse()
	box, err := cluster.Enter()
	if err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
		defer stop()
		err = run(ctx, box, *keep)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, box *cluster.Box, keep bool) (err error) {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	bin := filepath.Dir(self)
	d := demo.Demo{Out: os.Stdout, Bin: bin, Deploy: filepath.Join(bin, "..", "..", "..", "deploy")}
	defer func() { err = errors.Join(err, d.Stop()) }()
	line, err := d.Run(ctx)
	if err != nil {
		return err
	}
	if keep {
		if err := d.Keep(ctx, box); err != nil {
			return err
		}
	}
	fmt.Println(line)
	return nil
}
