package main

import (
	"fmt"

	"github.com/jaypipes/pcidb"
	"github.com/spf13/cobra"

	"github.com/numalane/numalane/internal/capture"
	"github.com/numalane/numalane/internal/config"
	"github.com/numalane/numalane/internal/inspect"
	"github.com/numalane/numalane/pkg/topology"
)

func newInspectCommand() *cobra.Command {
	o := options{}
	var output, captureFile string
	cmd := &cobra.Command{
		Use:   "inspect",
		Short: "Print the machine, the pools, and why a device is in no pool",
		Long: `inspect reads the machine once and prints its NUMA nodes, network devices and
pools, and for each network device that is in no pool the reason. It needs
neither a cluster nor root.

With --capture it writes an archive of what it read, for a bug report or as test
data: no more of the machine than that, and the same bytes for the same state.`,
		Example: `  numalane-plugin inspect
  numalane-plugin inspect --config-file config.json -o json
  numalane-plugin inspect --capture machine.tar.gz
  numalane-plugin inspect --sysfs-root ./captured-machine`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			host, err := topology.Read(o.sysfsRoot, names()...)
			if err != nil {
				return fmt.Errorf("read the machine: %w", err)
			}
			if err := capture.Facts(o.sysfsRoot, host); err != nil {
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
			a := pools.Assign(host)
			report := inspect.Report{Host: host, ConfigFile: o.configFile, Pools: a.Pools, Rejections: a.Rejections}
			return inspect.Write(cmd.OutOrStdout(), output, report)
		},
	}
	o.addHostFlags(cmd, "")
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table, json or yaml")
	cmd.Flags().StringVar(&captureFile, "capture", "", "write what was read to this file, tar with gzip, and print nothing else of it")
	return cmd
}

// names gives devices their names where the machine has a pci.ids file.
func names() []topology.Option {
	db, err := pcidb.New()
	if err != nil {
		return nil
	}
	return []topology.Option{topology.WithPCIDB(db)}
}
