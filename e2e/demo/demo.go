// Package demo deploys the same latency-sensitive pods twice on a real
// Kubernetes, through plain kube-scheduler and through one with numalane's
// extender, and counts what the kubelets make of them.
package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	kubeletconfig "k8s.io/kubelet/config/v1beta1"
	"sigs.k8s.io/yaml"

	"github.com/numalane/numalane/e2e/cluster"
)

// Demo is one run. Set Out, Bin and Deploy.
type Demo struct {
	Out    io.Writer
	Bin    string // folder of the binaries
	Deploy string // the repository's deploy/

	c        *cluster.Cluster
	nodes    []*cluster.Node
	plugins  []*cluster.Process
	extender *cluster.Process
	resource corev1.ResourceName
	began    time.Time
}

// Run does it all and returns the last line.
func (d *Demo) Run(ctx context.Context) (string, error) {
	d.began = time.Now()
	if err := d.start(ctx); err != nil {
		return "", err
	}
	lanes, err := d.lanes(ctx)
	if err != nil {
		return "", err
	}
	d.title("The machines, as their kubelets report them")
	if err := WriteLanes(d.Out, lanes); err != nil {
		return "", err
	}
	pods, looked := Most(lanes, shapes[:])
	d.title("The pods")
	for _, s := range shapes {
		fmt.Fprintf(d.Out, "  %s: guaranteed, %d exclusive CPUs and %d VFs of %s\n", s.Name, s.CPUs, s.VFs, d.resource)
	}
	fmt.Fprintf(d.Out, "  %d of them in turn are the most that any placement aligns (exhaustive search, %d mixes)\n", pods, looked)
	fmt.Fprintln(d.Out, "  They are pods of their own: a Deployment would replace refused pods without end.")

	if _, err := d.c.StartScheduler(ctx, "kube-scheduler", "", ""); err != nil {
		return "", err
	}
	plain, err := d.deploy(ctx, "plain kube-scheduler", corev1.DefaultSchedulerName, pods)
	if err != nil {
		return "", err
	}
	var addr string
	if d.extender, addr, err = d.c.StartExtender(ctx); err != nil {
		return "", err
	}
	if _, err := d.c.StartScheduler(ctx, "numalane-scheduler", filepath.Join(d.Deploy, "scheduler-config.yaml"), addr); err != nil {
		return "", err
	}
	cured, err := d.deploy(ctx, "kube-scheduler with numalane", "numalane", pods)
	if err != nil {
		return "", err
	}
	if err := d.memory(); err != nil {
		return "", err
	}
	fmt.Fprintf(d.Out, "\n%.0f s in all\n", time.Since(d.began).Seconds())
	return LastLine(plain, cured), nil
}

// Stop ends everything.
func (d *Demo) Stop() error {
	if d.c == nil {
		return nil
	}
	return d.c.Stop()
}

// Keep tells what to try, and waits for the end.
func (d *Demo) Keep(ctx context.Context, box *cluster.Box) error {
	kubectl := filepath.Join(d.Bin, "kubectl")
	fmt.Fprintf(d.Out, `
The cluster runs until you interrupt this (Ctrl-C). In another terminal:

  export KUBECONFIG=%s
  alias kubectl=%s

  kubectl get pods -o wide                                    # where the pods are
  kubectl get node edge-1 -o jsonpath='{.metadata.annotations}'   # what a node publishes
  kubectl get pod worker-00 -o jsonpath='{.metadata.annotations}'  # what a pod holds
  kubectl delete pod worker-00                                 # make room, then
  kubectl apply -f %s    # watch a pod find it
`, box.Outside(d.c.Kubeconfig), kubectl, filepath.Join(d.Deploy, "example-cnf.yaml"))
	<-ctx.Done()
	return nil
}

func (d *Demo) title(format string, args ...any) {
	fmt.Fprintf(d.Out, "\n%s\n", strings.ToUpper(fmt.Sprintf(format, args...)))
}

func (d *Demo) progress(format string, args ...any) {
	fmt.Fprintf(d.Out, "%5.1fs  %s\n", time.Since(d.began).Seconds(), fmt.Sprintf(format, args...))
}

// start brings the cluster up, with our plugin on every node.
func (d *Demo) start(ctx context.Context) error {
	var err error
	if d.c, err = cluster.Start(ctx, cluster.Options{Bin: d.Bin, Progress: d.progress}); err != nil {
		return err
	}
	pools, err := d.pools()
	if err != nil {
		return err
	}
	vfs := map[string]int64{}
	for _, m := range machines() {
		n, err := d.c.StartNode(ctx, cluster.NodeSpec{Name: m.name, Machine: m.machine, Kubelet: reserveCore(m)})
		if err != nil {
			return err
		}
		d.nodes = append(d.nodes, n)
		for _, nic := range m.machine.NICs {
			vfs[n.Name] += int64(nic.VFs)
		}
		p, err := n.StartPlugin(pools)
		if err != nil {
			return err
		}
		d.plugins = append(d.plugins, p)
	}
	for _, n := range d.nodes {
		if err := n.Ready(ctx); err != nil {
			return err
		}
		if err := n.Allocatable(ctx, d.resource, vfs[n.Name]); err != nil {
			return err
		}
	}
	d.progress("%d nodes are ready", len(d.nodes))
	return nil
}

// reserveCore keeps the first core of a machine for the system.
func reserveCore(m namedMachine) func(*kubeletconfig.KubeletConfiguration) {
	var ids []string
	for _, c := range m.machine.CPUs() {
		if c.Core == 0 {
			ids = append(ids, fmt.Sprint(c.ID))
		}
	}
	return func(c *kubeletconfig.KubeletConfiguration) {
		c.SystemReserved = nil
		c.ReservedSystemCPUs = strings.Join(ids, ",")
	}
}

// pools writes the pool configuration of deploy/configmap.yaml to a file, and
// learns the resource's name.
func (d *Demo) pools() (file string, err error) {
	var cm corev1.ConfigMap
	if err := d.read("configmap.yaml", &cm); err != nil {
		return "", err
	}
	text := cm.Data["config.json"]
	var config struct {
		ResourceList []struct{ ResourceName, ResourcePrefix string }
	}
	if err := json.Unmarshal([]byte(text), &config); err != nil {
		return "", fmt.Errorf("configmap.yaml: %w", err)
	}
	if len(config.ResourceList) == 0 {
		return "", errors.New("configmap.yaml: no pool")
	}
	r := config.ResourceList[0]
	d.resource = corev1.ResourceName(r.ResourcePrefix + "/" + r.ResourceName)
	file = filepath.Join(cluster.Dir, "pools.json")
	return file, os.WriteFile(file, []byte(text), 0o644)
}

// pod is the example workload's pod, in a shape.
func (d *Demo) pod(name string, s Shape, scheduler string) (*corev1.Pod, error) {
	var example appsv1.Deployment
	if err := d.read("example-cnf.yaml", &example); err != nil {
		return nil, err
	}
	p := &corev1.Pod{ObjectMeta: example.Spec.Template.ObjectMeta, Spec: example.Spec.Template.Spec}
	p.Name = name
	p.Labels["shape"] = s.Name
	p.Spec.SchedulerName = scheduler
	none := int64(0)
	p.Spec.TerminationGracePeriodSeconds = &none // there are no processes to end
	for i := range p.Spec.Containers {
		rr := &p.Spec.Containers[i].Resources
		for _, list := range []corev1.ResourceList{rr.Requests, rr.Limits} {
			list[corev1.ResourceCPU] = quantity(s.CPUs)
			list[d.resource] = quantity(s.VFs)
		}
	}
	return p, nil
}

func (d *Demo) read(name string, into any) error {
	b, err := os.ReadFile(filepath.Join(d.Deploy, name))
	if err != nil {
		return err
	}
	if err := yaml.UnmarshalStrict(b, into); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func (d *Demo) memory() error {
	var most int64
	for _, p := range d.plugins {
		r, err := p.Resident()
		if err != nil {
			return err
		}
		most = max(most, r)
	}
	extender, err := d.extender.Resident()
	if err != nil {
		return err
	}
	d.title("Memory")
	fmt.Fprintf(d.Out, "  numalane-plugin %d MB at most, numalane-extender %d MB, resident\n", most>>20, extender>>20)
	return nil
}
