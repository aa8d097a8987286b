package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/klog/v2"

	"github.com/numalane/numalane/e2e/oracle"
	"github.com/numalane/numalane/internal/kubelet"
)

type options struct {
	oracle.Options
	kubelets []string
	replay   string
	shrink   string
}

func newCommand() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "oracle",
		Short: "Hold what is foretold against real kubelets' resource managers",
		Long: `oracle brings random pods to the resource managers of real kubelets, on random
machines and with random pools, and holds each answer, and all that the node
then holds, against what the allocator foretells from what the node publishes.

What was not foretold is shrunk and written to the cache, to be replayed. An
interrupted run goes on where it was with --resume. The last line of the output
says how many cases there were, and how many were not foretold.`,
		Example: `  # A quick look at one version
  oracle --cases 2000 --kubelets 1.37

  # What was not foretold, step by step
  oracle --replay .cache/oracle/mismatch-1-1.37-42.json`,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return run(cmd, &o) },
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.IntVar(&o.Cases, "cases", 10000, "admissions in all, the same number for each kubelet")
	f.Uint64Var(&o.Seed, "seed", 0, "which cases; 0 draws one")
	f.StringSliceVar(&o.kubelets, "kubelets", []string{"1.34", "1.35", "1.36", "1.37"}, "versions")
	f.IntVar(&o.Workers, "workers", runtime.NumCPU(), "scenarios at a time")
	f.BoolVar(&o.Resume, "resume", false, "go on with the run of the state file")
	f.StringVar(&o.State, "state", "", "file of finished scenarios (default CACHE/state.json)")
	f.StringVar(&o.Binaries, "bin", filepath.Join(".cache", "bin"), "folder of the kubelets' programs")
	f.StringVar(&o.Cache, "cache", filepath.Join(".cache", "oracle"), "folder for what was not foretold")
	f.StringVar(&o.replay, "replay", "", "live the scenario of this file instead, and tell all of it")
	f.StringVar(&o.shrink, "shrink", "", "make the mismatch of this file smaller instead")
	return cmd
}

func run(cmd *cobra.Command, o *options) error {
	// What cAdvisor says of every NUMA node without CPUs is no news.
	klog.SetSlogLogger(slog.New(slog.DiscardHandler))
	if o.replay != "" {
		s, err := oracle.LoadScenario(o.replay)
		if err != nil {
			return err
		}
		return oracle.Replay(cmd.Context(), o.Binaries, s, cmd.OutOrStdout())
	}
	if o.shrink != "" {
		return shrink(cmd, o)
	}
	if err := o.complete(); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "oracle: seed %d\n", o.Seed)
	o.Progress = os.Stderr
	report, err := oracle.Run(cmd.Context(), o.Options)
	if err != nil {
		return err
	}
	return tell(cmd.OutOrStdout(), o, report)
}

func shrink(cmd *cobra.Command, o *options) error {
	s, err := oracle.LoadScenario(o.shrink)
	if err != nil {
		return err
	}
	m, err := oracle.Shrink(cmd.Context(), o.Binaries, s)
	if err != nil {
		return err
	}
	if m == nil {
		fmt.Fprintln(cmd.OutOrStdout(), "all of it is foretold")
		return nil
	}
	m.Print(cmd.OutOrStdout())
	return m.Write(o.shrink)
}

func tell(out io.Writer, o *options, report *oracle.Report) error {
	report.Print(out)
	const most = 5
	for i := range report.Mismatches {
		if i == most {
			fmt.Fprintf(out, "and %d more in %s\n", len(report.Mismatches)-most, o.Cache)
			break
		}
		report.Mismatches[i].Print(out)
	}
	fmt.Fprintf(out, "seed %d\n", report.Seed)
	if !report.Done {
		return fmt.Errorf("interrupted after %d cases; go on with --resume --seed %d", report.Cases, report.Seed)
	}
	fmt.Fprintln(out, report.Line())
	if len(report.Mismatches) > 0 {
		return errors.New("the kubelets did not do what was foretold")
	}
	return nil
}

// complete fills in what follows from other flags, and checks.
func (o *options) complete() error {
	for _, v := range o.kubelets {
		minor, err := kubelet.ParseMinor("v" + strings.TrimPrefix(strings.TrimSpace(v), "v"))
		if err != nil {
			return fmt.Errorf("--kubelets: %w", err)
		}
		o.Options.Kubelets = append(o.Options.Kubelets, minor)
	}
	if o.Cases < 1 || o.Workers < 1 || len(o.kubelets) == 0 {
		return errors.New("want at least one case, one worker and one kubelet")
	}
	if o.State == "" {
		o.State = filepath.Join(o.Cache, "state.json")
	}
	if o.Seed == 0 && o.Resume {
		o.Seed, _ = oracle.SavedSeed(o.State)
	}
	for o.Seed == 0 {
		o.Seed = rand.Uint64() >> 1
	}
	return nil
}
