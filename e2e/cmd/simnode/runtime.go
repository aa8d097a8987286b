package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	fakeremote "k8s.io/cri-client/pkg/fake"
)

// newRuntimeCommand serves a container runtime that runs nothing: every
// container is running as soon as it is started.
func newRuntimeCommand() *cobra.Command {
	var socket string
	cmd := &cobra.Command{
		Use:   "runtime",
		Short: "Serve a container runtime that runs nothing",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			rt := fakeremote.NewFakeRemoteRuntime()
			rt.RuntimeService.FakeStatus = &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{
				{Type: runtimeapi.RuntimeReady, Status: true},
				{Type: runtimeapi.NetworkReady, Status: true},
			}}
			rt.ImageService.SetFakeImageSize(1)
			// The socket appears when the server is ready to be called.
			making := filepath.Join(filepath.Dir(socket), ".making")
			if err := rt.Start("unix://" + making); err != nil {
				return fmt.Errorf("serve the container runtime: %w", err)
			}
			if err := os.Rename(making, socket); err != nil {
				return fmt.Errorf("serve the container runtime: %w", err)
			}
			<-cmd.Context().Done()
			return nil
		},
	}
	cmd.Flags().StringVar(&socket, "socket", "", "where to listen")
	return cmd
}
