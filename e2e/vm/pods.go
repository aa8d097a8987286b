package vm

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/numalane/numalane/e2e/cluster"
	"github.com/numalane/numalane/e2e/vm/view"
	"github.com/numalane/numalane/pkg/topology"
)

const (
	ours  = "numalane"
	plain = "default-scheduler"

	netVF  corev1.ResourceName = "numalane.io/net"  // VFs with an interface
	dpdkVF corev1.ResourceName = "numalane.io/dpdk" // VFs bound to vfio-pci
)

// want is what a pod asks for. With CPUs it is guaranteed, and gets memory of
// its NUMA node too.
type want struct {
	cpus, net, dpdk int64
	scheduler       string
}

func (s *setting) create(ctx context.Context, name string, w want) error {
	list := corev1.ResourceList{}
	if w.cpus > 0 {
		list[corev1.ResourceCPU] = *resource.NewQuantity(w.cpus, resource.DecimalSI)
		list[corev1.ResourceMemory] = resource.MustParse("64Mi")
	}
	if w.net > 0 {
		list[netVF] = *resource.NewQuantity(w.net, resource.DecimalSI)
	}
	if w.dpdk > 0 {
		list[dpdkVF] = *resource.NewQuantity(w.dpdk, resource.DecimalSI)
	}
	grace := int64(1)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			SchedulerName: w.scheduler, TerminationGracePeriodSeconds: &grace,
			Containers: []corev1.Container{{
				Name: "main", Image: "numalane.test/vmguest:1", Args: []string{"hold"},
				Resources: corev1.ResourceRequirements{Requests: list, Limits: list},
			}},
		},
	}
	_, err := s.c.Client.CoreV1().Pods("default").Create(ctx, pod, metav1.CreateOptions{})
	return err
}

func (s *setting) pod(ctx context.Context, name string) (*corev1.Pod, error) {
	return s.c.Client.CoreV1().Pods("default").Get(ctx, name, metav1.GetOptions{})
}

// running waits until a pod runs and returns it.
func (s *setting) running(ctx context.Context, name string) (p *corev1.Pod, err error) {
	err = cluster.Wait(ctx, 2*time.Minute, "pod "+name+" to run", func(ctx context.Context) error {
		if p, err = s.pod(ctx, name); err != nil {
			return err
		}
		for _, c := range p.Status.ContainerStatuses {
			if c.State.Running != nil {
				return nil
			}
		}
		return fmt.Errorf("it is %s %s %v", p.Status.Phase, p.Status.Reason, p.Status.ContainerStatuses)
	})
	return p, err
}

// remove ends a pod and waits until it is gone.
func (s *setting) remove(ctx context.Context, names ...string) error {
	for _, name := range names {
		if err := s.c.Client.CoreV1().Pods("default").Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
			return err
		}
	}
	return s.gone(ctx, names...)
}

// gone waits until pods are.
func (s *setting) gone(ctx context.Context, names ...string) error {
	return cluster.Wait(ctx, 2*time.Minute, fmt.Sprintf("pods %v to go", names), func(ctx context.Context) error {
		for _, name := range names {
			if _, err := s.pod(ctx, name); err == nil {
				return fmt.Errorf("pod %s is still there", name)
			}
		}
		return nil
	})
}

// look waits until a pod runs and returns what its container sees.
func (s *setting) look(ctx context.Context, name string) (view.Container, error) {
	p, err := s.running(ctx, name)
	if err != nil {
		return view.Container{}, err
	}
	return s.container(ctx, p)
}

// container is what the pod's container printed last about itself.
func (s *setting) container(ctx context.Context, p *corev1.Pod) (v view.Container, err error) {
	err = cluster.Wait(ctx, 30*time.Second, "what pod "+p.Name+" prints", func(ctx context.Context) error {
		out, err := s.sh(ctx, fmt.Sprintf("cat $(ls -t /var/log/pods/default_%s_%s/main/*.log | head -1)", p.Name, p.UID))
		if err != nil {
			return err
		}
		lines := strings.Split(out, "\n")
		// TIME stdout F {…}
		parts := strings.SplitN(lines[len(lines)-1], " ", 4)
		if len(parts) != 4 {
			return fmt.Errorf("it printed %q", out)
		}
		v = view.Container{}
		return json.Unmarshal([]byte(parts[3]), &v)
	})
	return v, err
}

// env is the variable that names the pod's devices of a resource.
func env(r corev1.ResourceName) string {
	return "PCIDEVICE_" + strings.ToUpper(strings.NewReplacer(".", "_", "/", "_").Replace(string(r)))
}

// held are the devices of a resource that a container was told of.
func held(v view.Container, r corev1.ResourceName) []string {
	if v.Env[env(r)] == "" {
		return nil
	}
	return strings.Split(v.Env[env(r)], ",")
}

// numaNodes are those of all PCI devices, as the kernel has them.
func (s *setting) numaNodes(ctx context.Context) (map[string]string, error) {
	out, err := s.sh(ctx, "cd /sys/bus/pci/devices; grep . */numa_node")
	if err != nil {
		return nil, err
	}
	all := map[string]string{}
	for line := range strings.Lines(out) {
		pci, node, _ := strings.Cut(strings.TrimSpace(line), "/numa_node:")
		all[pci] = node
	}
	return all, nil
}

// pools is the Node's annotation.
func (s *setting) pools(ctx context.Context) (topology.NodePools, error) {
	n, err := s.node(ctx)
	if err != nil {
		return topology.NodePools{}, err
	}
	return topology.Decode[topology.NodePools](n.Annotations[topology.PoolsAnnotation])
}

// told waits until the Node's annotation has, of a resource by NUMA node, so
// many devices and so many of them healthy. It returns how long that took.
func (s *setting) told(ctx context.Context, r corev1.ResourceName, want map[int][2]int) (string, error) {
	start := time.Now()
	err := s.sums(ctx, r, func(got map[int]topology.Group) error {
		has := map[int][2]int{}
		for node, g := range got {
			has[node] = [2]int{g.Total, g.Healthy}
		}
		if !maps.Equal(has, want) {
			return fmt.Errorf("it has of %s by NUMA node [total healthy] %v, want %v", r, has, want)
		}
		return nil
	})
	return fmt.Sprintf("%v by NUMA node [total healthy], seen after %d ms", want, time.Since(start).Milliseconds()), err
}

// free waits until the Node's annotation has so many free devices of a resource,
// by NUMA node. That is for people, and written some seconds later than the rest.
func (s *setting) free(ctx context.Context, r corev1.ResourceName, want map[int]int) (string, error) {
	err := s.sums(ctx, r, func(got map[int]topology.Group) error {
		has := map[int]int{}
		for node, g := range got {
			has[node] = g.Free
		}
		if !maps.Equal(has, want) {
			return fmt.Errorf("it has of %s by NUMA node %v free, want %v", r, has, want)
		}
		return nil
	})
	return fmt.Sprintf("free of %s by NUMA node %v", r, want), err
}

// sums waits until the Node's annotation, summed up by NUMA node, holds.
func (s *setting) sums(ctx context.Context, r corev1.ResourceName, holds func(map[int]topology.Group) error) error {
	return cluster.Wait(ctx, time.Minute, "the annotation "+topology.PoolsAnnotation, func(ctx context.Context) error {
		p, err := s.pools(ctx)
		if err != nil {
			return err
		}
		got := map[int]topology.Group{}
		for _, of := range p.Pools {
			if of.Resource != string(r) {
				continue
			}
			for _, g := range of.Groups {
				if len(g.NUMANodes) != 1 {
					return fmt.Errorf("a group of %s on NUMA nodes %v", r, g.NUMANodes)
				}
				sum := got[g.NUMANodes[0]]
				sum.Total, sum.Healthy, sum.Free = sum.Total+g.Total, sum.Healthy+g.Healthy, sum.Free+g.Free
				got[g.NUMANodes[0]] = sum
			}
		}
		return holds(got)
	})
}

// acknowledged waits until the pod's annotation names these devices and these
// CPUs of this NUMA node.
func (s *setting) acknowledged(ctx context.Context, name string, v view.Container, node int, resources ...corev1.ResourceName) error {
	return cluster.Wait(ctx, time.Minute, "the annotation of pod "+name, func(ctx context.Context) error {
		p, err := s.pod(ctx, name)
		if err != nil {
			return err
		}
		a, err := topology.Decode[topology.Allocation](p.Annotations[topology.AllocationAnnotation])
		if err != nil {
			return err
		}
		if a.UID != string(p.UID) || len(a.Containers) != 1 {
			return fmt.Errorf("it is of %s, with %d containers", a.UID, len(a.Containers))
		}
		c := a.Containers[0]
		if got := c.CPUs[node]; got.String() != v.CPUs {
			return fmt.Errorf("CPUs %s of NUMA node %d, the container has %s", got.String(), node, v.CPUs)
		}
		var got, want []string
		for _, d := range c.Devices {
			got = append(got, d.IDs...)
		}
		for _, r := range resources {
			want = append(want, held(v, r)...)
		}
		if strings.Join(got, " ") != strings.Join(want, " ") {
			return fmt.Errorf("devices %v, the container has %v", got, want)
		}
		return nil
	})
}

// aligned tells on which NUMA node a container has all that it was given, as its
// cgroup, its environment and the kernel have it.
func (s *setting) aligned(ctx context.Context, v view.Container, resources ...corev1.ResourceName) (int, error) {
	kernel, err := s.numaNodes(ctx)
	if err != nil {
		return 0, err
	}
	nodes := map[string]bool{v.Mems: true}
	for _, r := range resources {
		if len(held(v, r)) == 0 {
			return 0, fmt.Errorf("the container was told of no %s: %v", r, v.Env)
		}
		for _, pci := range held(v, r) {
			nodes[kernel[pci]] = true
		}
	}
	// Two CPUs a node: 0-1 and 2-3, as the kernel says itself.
	out, err := s.sh(ctx, "cat /sys/devices/system/node/node[01]/cpulist")
	if err != nil {
		return 0, err
	}
	for node, list := range strings.Fields(out) {
		inside, err := within(v.CPUs, list)
		if err != nil {
			return 0, err
		}
		if inside && len(nodes) == 1 && nodes[fmt.Sprint(node)] {
			return node, nil
		}
	}
	return 0, fmt.Errorf("CPUs %s, memory of NUMA nodes %s, devices of %v", v.CPUs, v.Mems, nodes)
}
