package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	fakeremote "k8s.io/cri-client/pkg/fake"
)

// newRuntimeCommand serves a container runtime that runs nothing: every
// container is running as soon as it is started, and ends when its script says so.
func newRuntimeCommand() *cobra.Command {
	var socket string
	cmd := &cobra.Command{
		Use:   "runtime",
		Short: "Serve a container runtime that runs nothing",
		Long: `runtime says that it runs containers, and runs none. A container runs until
it is stopped, at once; one whose command is "script" ends otherwise:

  command: [script], args: [ENDS, LINGERS]

ENDS is the time after which it exits with code 0, 0s for at once and "never";
LINGERS, which may be left out, the time that it takes to stop when it is told to.

What the kubelet had a container made of, its variables, mounts and devices, is
in the answer to a verbose ContainerStatus, under "config".`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return serveRuntime(cmd.Context(), socket) },
	}
	cmd.Flags().StringVar(&socket, "socket", "", "where to listen")
	return cmd
}

func serveRuntime(ctx context.Context, socket string) error {
	rt := &containers{RemoteRuntime: fakeremote.NewFakeRemoteRuntime(), made: map[string]made{}}
	rt.RuntimeService.FakeStatus = &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{
		{Type: runtimeapi.RuntimeReady, Status: true},
		{Type: runtimeapi.NetworkReady, Status: true},
	}}
	rt.ImageService.SetFakeImageSize(1)
	server := grpc.NewServer()
	runtimeapi.RegisterRuntimeServiceServer(server, rt)
	runtimeapi.RegisterImageServiceServer(server, rt)
	// The socket appears when the server is ready to be called.
	making := filepath.Join(filepath.Dir(socket), ".making")
	l, err := net.Listen("unix", making)
	if err != nil {
		return fmt.Errorf("serve the container runtime: %w", err)
	}
	context.AfterFunc(ctx, server.Stop)
	if err := os.Rename(making, socket); err != nil {
		return fmt.Errorf("serve the container runtime: %w", err)
	}
	if err := server.Serve(l); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serve the container runtime: %w", err)
	}
	return nil
}

// containers is the fake runtime of Kubernetes, with containers that end.
type containers struct {
	*fakeremote.RemoteRuntime

	mu   sync.Mutex
	made map[string]made // by container id
}

// made is a container as it was asked for.
type made struct {
	script script
	config *runtimeapi.ContainerConfig
}

// script is what a container does.
type script struct {
	ends    time.Duration
	endless bool
	lingers time.Duration
}

func parseScript(command, args []string) (script, error) {
	s := script{endless: true}
	if len(command) == 0 || command[0] != "script" {
		return s, nil
	}
	if len(args) == 0 || len(args) > 2 {
		return s, fmt.Errorf("script %q: want one or two arguments", args)
	}
	var err error
	if s.endless = args[0] == "never"; !s.endless {
		if s.ends, err = time.ParseDuration(args[0]); err != nil {
			return s, fmt.Errorf("script: %w", err)
		}
	}
	if len(args) == 2 {
		if s.lingers, err = time.ParseDuration(args[1]); err != nil {
			return s, fmt.Errorf("script: %w", err)
		}
	}
	return s, nil
}

func (c *containers) CreateContainer(ctx context.Context, req *runtimeapi.CreateContainerRequest) (*runtimeapi.CreateContainerResponse, error) {
	s, err := parseScript(req.GetConfig().GetCommand(), req.GetConfig().GetArgs())
	if err != nil {
		return nil, err
	}
	resp, err := c.RemoteRuntime.CreateContainer(ctx, req)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.made[resp.GetContainerId()] = made{s, req.GetConfig()}
	return resp, nil
}

func (c *containers) StartContainer(ctx context.Context, req *runtimeapi.StartContainerRequest) (*runtimeapi.StartContainerResponse, error) {
	resp, err := c.RemoteRuntime.StartContainer(ctx, req)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	s := c.made[req.GetContainerId()].script
	c.mu.Unlock()
	if !s.endless {
		time.AfterFunc(s.ends, func() { c.exit(req.GetContainerId()) })
	}
	return resp, nil
}

// exit ends a container that still runs.
func (c *containers) exit(id string) {
	fake := c.RuntimeService
	fake.Lock()
	defer fake.Unlock()
	fake.Called = nil // every call is noted down, and nobody reads it
	if ct := fake.Containers[id]; ct != nil && ct.State == runtimeapi.ContainerState_CONTAINER_RUNNING {
		ct.State, ct.FinishedAt, ct.Reason = runtimeapi.ContainerState_CONTAINER_EXITED, time.Now().UnixNano(), "Completed"
	}
}

// ContainerStatus tells, when it is asked to be verbose, the configuration too,
// as runtimes do.
func (c *containers) ContainerStatus(ctx context.Context, req *runtimeapi.ContainerStatusRequest) (*runtimeapi.ContainerStatusResponse, error) {
	resp, err := c.RemoteRuntime.ContainerStatus(ctx, req)
	if err != nil || !req.GetVerbose() {
		return resp, err
	}
	c.mu.Lock()
	config := c.made[req.GetContainerId()].config
	c.mu.Unlock()
	text, err := protojson.Marshal(config)
	if err != nil {
		return nil, fmt.Errorf("configuration of container %s: %w", req.GetContainerId(), err)
	}
	resp.Info = map[string]string{"config": string(text)}
	return resp, nil
}

func (c *containers) StopContainer(ctx context.Context, req *runtimeapi.StopContainerRequest) (*runtimeapi.StopContainerResponse, error) {
	c.mu.Lock()
	lingers := c.made[req.GetContainerId()].script.lingers
	c.mu.Unlock()
	select {
	case <-time.After(min(lingers, time.Duration(req.GetTimeout())*time.Second)):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return c.RemoteRuntime.StopContainer(ctx, req)
}

func (c *containers) RemoveContainer(ctx context.Context, req *runtimeapi.RemoveContainerRequest) (*runtimeapi.RemoveContainerResponse, error) {
	c.mu.Lock()
	delete(c.made, req.GetContainerId())
	c.mu.Unlock()
	return c.RemoteRuntime.RemoveContainer(ctx, req)
}
