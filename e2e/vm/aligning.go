package vm

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/numalane/numalane/e2e/cluster"
)

// aligning: pods get all of one NUMA node, or wait. Of four CPUs the first is
// the system's: NUMA node 0 has one to give and NUMA node 1 has two. Of the PFs
// only that of NUMA node 0 has VFs at first.
func (s *setting) aligning() []check {
	return []check{
		{"plain kube-scheduler has a pod refused that no NUMA node can take", func(ctx context.Context) (string, error) {
			if err := s.create(ctx, "plain", want{cpus: 2, net: 1, scheduler: plain}); err != nil {
				return "", err
			}
			var reason string
			err := cluster.Wait(ctx, time.Minute, "the kubelet to refuse the pod", func(ctx context.Context) error {
				p, err := s.pod(ctx, "plain")
				if err != nil {
					return err
				}
				if reason = p.Status.Reason; p.Status.Phase != corev1.PodFailed || reason != "TopologyAffinityError" {
					return fmt.Errorf("it is %s %s", p.Status.Phase, reason)
				}
				return nil
			})
			if err != nil {
				return "", err
			}
			return reason, s.remove(ctx, "plain")
		}},
		{"with our extender the same pod waits, and its event says why", func(ctx context.Context) (string, error) {
			if err := s.create(ctx, "late", want{cpus: 2, net: 1, scheduler: ours}); err != nil {
				return "", err
			}
			var message string
			err := cluster.Wait(ctx, time.Minute, "the pod's event", func(ctx context.Context) error {
				events, err := s.c.Client.CoreV1().Events("default").List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=late,reason=FailedScheduling"})
				if err != nil {
					return err
				}
				for _, e := range events.Items {
					if message = e.Message; strings.Contains(message, "could not align the pod") {
						return nil
					}
				}
				return fmt.Errorf("there are %d events, the last says %q", len(events.Items), message)
			})
			if err != nil {
				return "", err
			}
			p, err := s.pod(ctx, "late")
			if err == nil && (p.Status.Phase != corev1.PodPending || p.Spec.NodeName != "") {
				err = fmt.Errorf("the pod is %s on %q", p.Status.Phase, p.Spec.NodeName)
			}
			return message, err
		}},
		{"VFs that come on the other NUMA node place it, aligned", func(ctx context.Context) (string, error) {
			if err := s.setVFs(ctx, pfs[1], "5 3,4"); err != nil {
				return "", err
			}
			return s.alignedRunning(ctx, "late", 1, netVF)
		}},
		{"its annotation says the same", func(ctx context.Context) (string, error) {
			if _, err := s.annotated(ctx, "late", 1, netVF); err != nil {
				return "", err
			}
			return "", s.remove(ctx, "late")
		}},
		{"a guaranteed pod gets CPUs, memory and VFs of one NUMA node, by its own cgroup and environment", func(ctx context.Context) (string, error) {
			return s.alignedPod(ctx, "a", want{cpus: 1, net: 1, scheduler: ours}, 0, netVF)
		}},
		{"its annotation says the same", func(ctx context.Context) (string, error) { return s.annotated(ctx, "a", 0, netVF) }},
		{"the next one gets all of the other NUMA node", func(ctx context.Context) (string, error) {
			return s.alignedPod(ctx, "b", want{cpus: 1, net: 1, scheduler: ours}, 1, netVF)
		}},
		{"the host-device CNI plugin has moved the VF's interface into the pod", func(ctx context.Context) (string, error) {
			return s.moved(ctx, "a")
		}},
		{"a VF whose interface is in a pod is never called unhealthy", func(ctx context.Context) (string, error) {
			d, err := s.allocatable(ctx)
			if err != nil {
				return "", err
			}
			if n, m := count(d, netVF, 0), count(d, netVF, 1); n != 4 || m != 3 {
				return "", fmt.Errorf("the kubelet has %d of 4 VFs and %d of 3", n, m)
			}
			return s.told(ctx, netVF, map[int][2]int{0: {4, 4}, 1: {3, 3}})
		}},
		{"a capture with an interface in a pod reads as the machine does", func(ctx context.Context) (string, error) { return s.capture(ctx, "held") }},
		{"VFs bound to vfio-pci are a pool of their own, on the kernel's NUMA node", func(ctx context.Context) (string, error) {
			if _, err := s.told(ctx, dpdkVF, map[int][2]int{1: {2, 2}}); err != nil {
				return "", err
			}
			d, err := s.allocatable(ctx)
			if err != nil {
				return "", err
			}
			return s.numaAgrees(ctx, d)
		}},
		{"a pod with a vfio-pci VF has its /dev/vfio/GROUP, and it opens", func(ctx context.Context) (string, error) {
			if err := s.create(ctx, "v", want{dpdk: 1, scheduler: ours}); err != nil {
				return "", err
			}
			return s.groupOf(ctx, "v")
		}},
		{"a capture with vfio-pci reads as the machine does", func(ctx context.Context) (string, error) { return s.capture(ctx, "vfio") }},
	}
}

func (s *setting) alignedPod(ctx context.Context, name string, w want, node int, r ...corev1.ResourceName) (string, error) {
	if err := s.create(ctx, name, w); err != nil {
		return "", err
	}
	return s.alignedRunning(ctx, name, node, r...)
}

// alignedRunning waits for a pod to run and looks where it has what it has.
func (s *setting) alignedRunning(ctx context.Context, name string, node int, resources ...corev1.ResourceName) (string, error) {
	p, err := s.running(ctx, name)
	if err != nil {
		return "", err
	}
	v, err := s.container(ctx, p)
	if err != nil {
		return "", err
	}
	on, err := s.aligned(ctx, v, resources...)
	if err != nil {
		return "", err
	}
	if on != node {
		return "", fmt.Errorf("all is of NUMA node %d, want %d", on, node)
	}
	var devices []string
	for _, r := range resources {
		devices = append(devices, held(v, r)...)
	}
	return fmt.Sprintf("CPUs %s, memory of %s, %s, all of NUMA node %d", v.CPUs, v.Mems, strings.Join(devices, " "), node), nil
}

// annotated holds a pod's annotation against what its container sees.
func (s *setting) annotated(ctx context.Context, name string, node int, resources ...corev1.ResourceName) (string, error) {
	p, err := s.pod(ctx, name)
	if err != nil {
		return "", err
	}
	v, err := s.container(ctx, p)
	if err != nil {
		return "", err
	}
	return "", s.acknowledged(ctx, name, v, node, resources...)
}

// moved looks for a pod's interface in the pod, and not on the host.
func (s *setting) moved(ctx context.Context, name string) (string, error) {
	p, err := s.running(ctx, name)
	if err != nil {
		return "", err
	}
	v, err := s.container(ctx, p)
	if err != nil {
		return "", err
	}
	if !slices.Contains(v.Interfaces, "net1") {
		return "", fmt.Errorf("the container has interfaces %v", v.Interfaces)
	}
	for _, pci := range held(v, netVF) {
		left, err := s.sh(ctx, "ls /sys/bus/pci/devices/"+pci+"/net 2>/dev/null || :")
		if err != nil {
			return "", err
		}
		if left != "" {
			return "", fmt.Errorf("%s still has %s on the host", pci, left)
		}
	}
	return strings.Join(v.Interfaces, " "), nil
}

// groupOf compares the container's vfio nodes with the IOMMU group that the
// kernel has for its VF.
func (s *setting) groupOf(ctx context.Context, name string) (string, error) {
	p, err := s.running(ctx, name)
	if err != nil {
		return "", err
	}
	v, err := s.container(ctx, p)
	if err != nil {
		return "", err
	}
	vfs := held(v, dpdkVF)
	if len(vfs) != 1 {
		return "", fmt.Errorf("the container was told of %v", v.Env)
	}
	group, err := s.sh(ctx, "basename $(readlink /sys/bus/pci/devices/"+vfs[0]+"/iommu_group)")
	if err != nil {
		return "", err
	}
	if want := []string{group, "vfio"}; !slices.Equal(v.VFIO, want) || len(v.Faults) > 0 {
		return "", fmt.Errorf("/dev/vfio has %v, want %v; %v", v.VFIO, want, v.Faults)
	}
	return fmt.Sprintf("%s, /dev/vfio/%s", vfs[0], group), nil
}
