package cluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protojson"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubelettypes "k8s.io/kubelet/pkg/types"
)

// Container is what the kubelet had the runtime make of a pod's container: its
// arguments, variables, mounts and devices.
func (n *Node) Container(ctx context.Context, pod *corev1.Pod, name string) (*runtimeapi.ContainerConfig, error) {
	what := fmt.Sprintf("container %s of pod %s/%s on node %s", name, pod.Namespace, pod.Name, n.Name)
	conn, err := grpc.NewClient("unix://"+n.runtimeSocket(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	defer conn.Close()
	runtime := runtimeapi.NewRuntimeServiceClient(conn)
	list, err := runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{LabelSelector: map[string]string{
		kubelettypes.KubernetesPodUIDLabel: string(pod.UID), kubelettypes.KubernetesContainerNameLabel: name,
	}}})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	if len(list.GetContainers()) != 1 {
		return nil, fmt.Errorf("%s: the runtime has %d of it", what, len(list.GetContainers()))
	}
	status, err := runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: list.GetContainers()[0].GetId(), Verbose: true})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	config := &runtimeapi.ContainerConfig{}
	if err := protojson.Unmarshal([]byte(status.GetInfo()["config"]), config); err != nil {
		return nil, fmt.Errorf("%s: its configuration: %w", what, err)
	}
	return config, nil
}

// RunContainer runs numalane-plugin, which is the only file of its image, as a
// container that the runtime only said to run. host maps folders that its
// mounts mean on a host to those of this node.
func (n *Node) RunContainer(name string, c *runtimeapi.ContainerConfig, network string, host map[string]string) (*Process, error) {
	root := filepath.Join(n.Dir, name)
	if err := os.MkdirAll(root, 0o755); err != nil {
		return nil, err
	}
	const program = "/numalane-plugin"
	args := []string{
		"container", "--root", root, "--net", network,
		// The kubelet's volumes on tmpfs are seen from there alone.
		"--like", fmt.Sprintf("/proc/%d/ns/mnt", n.Kubelet.PID()),
		"--mount", filepath.Join(n.c.opts.Bin, "numalane-plugin") + ":" + program,
		"--mount", filepath.Join(n.Sysfs(), "sys") + ":/sys", "--mount", filepath.Join(n.Sysfs(), "proc") + ":/proc",
	}
	for _, m := range c.GetMounts() {
		source, target := filepath.Clean(m.GetHostPath()), filepath.Clean(m.GetContainerPath())
		if mapped, ok := host[source]; ok {
			source = mapped
		}
		args = append(args, "--mount", source+":"+target)
		if source == n.KubeletDir() {
			args = append(args, "--mount", n.DevicePluginDir()+":"+filepath.Join(target, "device-plugins"))
		}
	}
	for _, e := range c.GetEnvs() {
		args = append(args, "--env", fmt.Sprintf("%s=%s", e.GetKey(), e.GetValue()))
	}
	return n.c.run(name, false, "simnode", append(append(args, "--", program), c.GetArgs()...)...)
}
