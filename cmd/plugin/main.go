// numalane-plugin advertises SR-IOV virtual functions to the kubelet with the
// NUMA node they sit on, and publishes what the node has and who holds it.
package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/numalane/numalane/internal/daemon"
)

func main() { daemon.Main(newCommand(os.Args[1:])) }

func newCommand(args []string) *cobra.Command {
	o := options{}
	cmd := &cobra.Command{
		Use:   "numalane-plugin",
		Short: "SR-IOV device plugin with NUMA topology",
		Long: `numalane-plugin finds the SR-IOV virtual functions of this node, puts them into
pools by the configuration file (its own format, or that of the SR-IOV network
device plugin), and advertises each pool to the kubelet with the NUMA node of every device. It
publishes what the node has, and which pod holds what, as annotations, for
numalane-extender to place pods by.

Without rights on the API, or without an API, it advertises all the same,
publishes nothing, and says so.`,
		Example: `  # What is on this machine, and why is a device in no pool?
  numalane-plugin inspect --config-file /etc/pcidp/config.json

  # Is this configuration valid?
  numalane-plugin config validate /etc/pcidp/config.json

  # As the DaemonSet runs it
  numalane-plugin --config-file /etc/pcidp/config.json --node-name "$NODE_NAME"`,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       daemon.Version(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, logFile, err := o.logging.logger(&o.log, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			defer logFile.Close()
			if err := o.complete(); err != nil {
				return err
			}
			a, err := newApp(o, log)
			if err != nil {
				return err
			}
			return a.run(cmd.Context())
		},
	}
	o.addFlags(cmd)
	cmd.AddCommand(newInspectCommand(), newConfigCommand())
	cmd.SetArgs(longFlags(cmd, args))
	return cmd
}
