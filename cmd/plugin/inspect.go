package main

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/jaypipes/pcidb"
	"github.com/spf13/cobra"

	"github.com/numalane/numalane/internal/capture"
	"github.com/numalane/numalane/internal/config"
	"github.com/numalane/numalane/internal/inspect"
	"github.com/numalane/numalane/internal/inventory"
	"github.com/numalane/numalane/pkg/topology"
)

func newInspectCommand() *cobra.Command {
	o := options{}
	var output, captureFile string
	var explain bool
	cmd := &cobra.Command{
		Use:   "inspect [DEVICE...]",
		Short: "Print the machine, the pools, and why a device is in the pool it is in",
		Long: `inspect reads the machine once and prints its NUMA nodes, network devices,
accelerators and pools, and of each device its pool, or why it is in none. It
needs neither a cluster nor root.

With a DEVICE (a PCI address, a network interface, a subfunction as
mlx5_core.sf.4) it tells instead what each selector of each pool says of that
device: what holds, and what does not with the device's own value. --explain
tells so of all devices.

With --capture it writes an archive of what it read, for a bug report or as test
data: no more of the machine than that, and the same bytes for the same state.`,
		Example: `  numalane-plugin inspect
  numalane-plugin inspect --config-file config.json -o json
  numalane-plugin inspect --config-file config.json 0000:3b:02.1 eth0
  numalane-plugin inspect --capture machine.tar.gz
  numalane-plugin inspect --sysfs-root ./captured-machine`,
		RunE: func(cmd *cobra.Command, devices []string) error {
			host, err := o.machine(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			if captureFile != "" {
				return writeCapture(cmd.OutOrStdout(), captureFile, o.sysfsRoot, host)
			}
			pools := &config.Config{}
			if o.configFile != "" {
				if pools, err = config.Load(o.configFile, o.resourcePrefix); err != nil {
					return err
				}
			}
			for _, w := range pools.Warnings {
				fmt.Fprintf(cmd.ErrOrStderr(), "%s: warning: %s\n", o.configFile, w)
			}
			if explain || len(devices) > 0 {
				return explainDevices(cmd, output, pools.Explain(host), devices)
			}
			a := pools.Assign(host)
			report := inspect.Report{Host: host, ConfigFile: o.configFile, Pools: a.Pools, Rejections: a.Rejections}
			return inspect.Write(cmd.OutOrStdout(), output, report)
		},
	}
	o.addHostFlags(cmd, "")
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table, json or yaml")
	cmd.Flags().BoolVar(&explain, "explain", false, "tell of each device what each selector says of it")
	cmd.Flags().StringVar(&captureFile, "capture", "", "write what was read to this file, tar with gzip, and print nothing else of it")
	return cmd
}

// machine reads the machine once, with what netlink tells of it: of the running
// one now, of a captured one then.
func (o *options) machine(stderr io.Writer) (*topology.Host, error) {
	host, err := topology.Read(o.sysfsRoot, names()...)
	if err != nil {
		return nil, fmt.Errorf("read the machine: %w", err)
	}
	if !ofThisHost(o.sysfsRoot) {
		return host, capture.Facts(o.sysfsRoot, host)
	}
	log := slog.New(slog.NewTextHandler(stderr, nil))
	if err := inventory.NewFacts(log).Add(host); err != nil {
		log.Warn("which devices the node itself needs is not known", "err", err)
	}
	return host, nil
}

func explainDevices(cmd *cobra.Command, output string, all []config.Explanation, devices []string) error {
	if len(devices) > 0 {
		var err error
		if all, err = inspect.Select(all, devices); err != nil {
			return err
		}
	}
	return inspect.WriteExplanations(cmd.OutOrStdout(), output, all)
}

// names gives devices their names where the machine has a pci.ids file.
func names() []topology.Option {
	db, err := pcidb.New()
	if err != nil {
		return nil
	}
	return []topology.Option{topology.WithPCIDB(db)}
}
