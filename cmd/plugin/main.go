// numalane-plugin advertises SR-IOV virtual functions to the kubelet with the
// NUMA node they sit on, and publishes what the node has and who holds it.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
	"k8s.io/klog/v2"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal kills
	if err := newCommand().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "numalane-plugin:", err)
		os.Exit(1)
	}
}

func newCommand() *cobra.Command {
	o := options{}
	cmd := &cobra.Command{
		Use:   "numalane-plugin",
		Short: "SR-IOV device plugin with NUMA topology",
		Long: `numalane-plugin finds the SR-IOV virtual functions of this node, puts them into
pools by the configuration file (that of the SR-IOV network device plugin), and
advertises each pool to the kubelet with the NUMA node of every device. It
publishes what the node has, and which pod holds what, as annotations, for
numalane-extender to place pods by.

Without rights on the API, or without an API, it advertises all the same,
publishes nothing, and says so.`,
		Example: `  # What is on this machine, and why is a device in no pool?
  numalane-plugin inspect --config-file /etc/pcidp/config.json

  # As the DaemonSet runs it
  numalane-plugin --config-file /etc/pcidp/config.json --node-name "$NODE_NAME"`,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       version(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := o.logger(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			klog.SetSlogLogger(log)
			return run(cmd.Context(), o, log)
		},
	}
	o.addFlags(cmd)
	cmd.AddCommand(newInspectCommand())
	return cmd
}

func (o *options) logger(w interface{ Write([]byte) (int, error) }) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(o.logLevel)); err != nil {
		return nil, fmt.Errorf("--log-level: %w", err)
	}
	h := &slog.HandlerOptions{Level: level}
	switch o.logFormat {
	case "text":
		return slog.New(slog.NewTextHandler(w, h)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, h)), nil
	}
	return nil, fmt.Errorf("--log-format %q: want text or json", o.logFormat)
}

func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	return info.Main.Version + " " + info.GoVersion
}
