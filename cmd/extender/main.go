// numalane-extender answers kube-scheduler whether, and how well, a pod would
// sit on a node, as that node's kubelet will see it; and binds pods.
package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"github.com/numalane/numalane/internal/daemon"
)

func main() { daemon.Main(newCommand()) }

func newCommand() *cobra.Command {
	o := options{}
	cmd := &cobra.Command{
		Use:   "numalane-extender",
		Short: "Scheduler extender that foretells NUMA alignment",
		Long: `numalane-extender answers kube-scheduler, before a pod is bound, what the
kubelet of each node will answer: whether the pod's exclusive CPUs, memory and
devices are free together on one NUMA node. It knows the nodes by what
numalane-plugin publishes, and what is on its way to them by binding pods itself.

Run it beside a kube-scheduler of its own, over loopback: whoever reaches its
address can have pods bound. The kube-scheduler's configuration needs
nodeCacheCapable: true and the verbs filter, prioritize and bind.`,
		Example: `  # Beside a kube-scheduler, in its pod
  numalane-extender --health-listen :8891

  # On a workstation, against the cluster of a kubeconfig
  numalane-extender --kubeconfig ~/.kube/config --log-level debug
  curl -s '127.0.0.1:8890/readyz?verbose'`,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       daemon.Version(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return run(cmd.Context(), o, cmd.ErrOrStderr())
		},
	}
	o.addFlags(cmd)
	return cmd
}

func run(ctx context.Context, o options, stderr io.Writer) error {
	log, err := o.log.Logger(stderr)
	if err != nil {
		return err
	}
	policy, err := o.policy()
	if err != nil {
		return err
	}
	client, err := o.client()
	if err != nil {
		return err
	}
	d, err := newApp(o, policy, client, log)
	if err != nil {
		return err
	}
	return d.run(ctx)
}
