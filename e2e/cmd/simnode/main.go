// simnode is a node without hardware: "simnode kubelet" is the real kubelet on
// a machine that a file describes, "simnode runtime" is the container runtime
// that it talks to. They are two processes, so that a kubelet can be killed
// and its containers live. The runtime runs nothing; "simnode container" runs
// one program as a runtime would have.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	cmd := &cobra.Command{Use: "simnode", Short: "A node without hardware", SilenceUsage: true, SilenceErrors: true}
	cmd.AddCommand(newKubeletCommand(), newRuntimeCommand(), newContainerCommand())
	if err := cmd.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "simnode:", err)
		os.Exit(1)
	}
}
