// storm lets loose on a real Kubernetes what may befall one: bursts of pods, and
// kills of everything, on many kubelets; and counts what must not be.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/numalane/numalane/e2e/cluster"
	"github.com/numalane/numalane/e2e/storm"
)

func main() {
	s := storm.Storm{Out: os.Stdout, Err: os.Stderr}
	flag.Float64Var(&s.Minutes, "minutes", 10, "how long the load lasts; start and end take about three more")
	flag.IntVar(&s.Nodes, "nodes", 20, "real kubelets")
	flag.Uint64Var(&s.Seed, "seed", 0, "which storm; 0 draws one")
	flag.BoolVar(&s.Extender, "extender", true, "false: the same load through plain kube-scheduler")
	flag.Parse()
	_, err := cluster.Enter()
	if err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
		defer stop()
		err = run(ctx, &s)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "storm:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, s *storm.Storm) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	s.Bin = filepath.Dir(self)
	s.Deploy = filepath.Join(s.Bin, "..", "..", "..", "deploy")
	s.Keep = filepath.Join(s.Bin, "..", "storm")
	for s.Seed == 0 {
		s.Seed = rand.Uint64() >> 1
	}
	tally, err := s.Run(ctx)
	if err == nil {
		err = tally.Err()
	}
	if stopped := s.Stop(err != nil); stopped != nil {
		err = errors.Join(err, stopped)
	}
	if tally != nil {
		fmt.Printf("storm: outrun %d, refused by a Node that its kubelet had not caught up with %d\n%s\n", tally.Outrun, tally.Behind, tally.Line())
	}
	if err != nil {
		return fmt.Errorf("%w\nseed %d; traces and logs in %s", err, s.Seed, s.Keep)
	}
	return nil
}
