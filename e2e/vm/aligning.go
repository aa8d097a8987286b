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
	"github.com/numalane/numalane/pkg/topology"
)

// aligning: pods get all of one NUMA node, or wait. Of four CPUs the first is
// the system's: NUMA node 0 has one to give and NUMA node 1 has two. Of the PFs
// only that of NUMA node 0 has VFs at first: with pod a there is no NUMA node any
// more that has both.
//
// The pods stay: a and b have a CPU of a NUMA node each; n and m have a VF each
// and no CPU of their own, and go in later acts; v has one bound to vfio-pci.
func (s *setting) aligning() act {
	var from mark
	one := want{cpus: 1, net: 1, scheduler: ours}
	return act{
		{
			{"a guaranteed pod gets CPU, memory and a VF of one NUMA node, by its own cgroup and environment", func(ctx context.Context) (string, error) {
				if err := s.create(ctx, "a", one); err != nil {
					return "", err
				}
				return s.alignedRunning(ctx, "a", 0, netVF)
			}},
			{"plain kube-scheduler has a pod refused that no NUMA node can take", func(ctx context.Context) (string, error) {
				if err := s.admitted(ctx, "a"); err != nil {
					return "", err
				}
				return s.refused(ctx)
			}},
			{"with our extender the same pod waits, and its event says why", func(ctx context.Context) (string, error) {
				if err := s.admitted(ctx, "a"); err != nil {
					return "", err
				}
				if err := s.create(ctx, "b", one); err != nil {
					return "", err
				}
				return s.waits(ctx, "b")
			}},
		},
		{{"VFs that come on the other NUMA node place it", func(ctx context.Context) (string, error) {
			if err := s.setVFs(ctx, pfs[1], "5 3,4"); err != nil {
				return "", err
			}
			start := time.Now()
			err := cluster.Wait(ctx, time.Minute, "the pod to have a node", func(ctx context.Context) error {
				p, err := s.pod(ctx, "b")
				if err == nil && p.Spec.NodeName == "" {
					err = fmt.Errorf("it is %s", p.Status.Phase)
				}
				return err
			})
			if err != nil {
				return "", err
			}
			found := fmt.Sprintf("%.1f s after they were made", time.Since(start).Seconds())
			// From when the observer has seen that all is there.
			return found, cluster.Wait(ctx, time.Minute, "seven healthy VFs", func(context.Context) error {
				from = s.seen.now()
				_, err := s.seen.alwaysHealthy(from, netVF, 7)
				return err
			})
		}}},
		{
			{"it has CPU, memory and a VF of that NUMA node", func(ctx context.Context) (string, error) {
				return s.alignedRunning(ctx, "b", 1, netVF)
			}},
			{"VFs bound to vfio-pci are a pool of their own, and a pod has its /dev/vfio/GROUP, which opens", func(ctx context.Context) (string, error) {
				if _, err := s.told(ctx, dpdkVF, map[int][2]int{1: {2, 2}}); err != nil {
					return "", err
				}
				if err := s.create(ctx, "v", want{dpdk: 1, scheduler: ours}); err != nil {
					return "", err
				}
				return s.groupsOf(ctx, "v")
			}},
			{"pods without CPUs of their own get VFs as well", func(ctx context.Context) (string, error) {
				var found []string
				for _, name := range []string{"n", "m"} {
					if err := s.create(ctx, name, want{net: 1, scheduler: ours}); err != nil {
						return "", err
					}
				}
				for _, name := range []string{"n", "m"} {
					v, err := s.look(ctx, name)
					if err != nil {
						return "", err
					}
					if len(held(v, netVF)) != 1 {
						return "", fmt.Errorf("pod %s was told of %v", name, v.Env)
					}
					found = append(found, held(v, netVF)...)
				}
				return strings.Join(found, ", "), nil
			}},
		},
		{
			{"pods' annotations say the same", func(ctx context.Context) (string, error) { return "", s.same(ctx) }},
			{"the Node's annotation says what is left", func(ctx context.Context) (string, error) {
				net, err := s.free(ctx, netVF, map[int]int{0: 1, 1: 2})
				if err != nil {
					return "", err
				}
				dpdk, err := s.free(ctx, dpdkVF, map[int]int{1: 1})
				return net + ", " + dpdk, err
			}},
			{"all NUMA nodes are those that the kernel says", func(ctx context.Context) (string, error) {
				d, err := s.allocatable(ctx)
				if err != nil {
					return "", err
				}
				return s.numaAgrees(ctx, d)
			}},
			{"the host-device CNI plugin has moved the VFs' interfaces into the pods", s.moved},
			{"a capture with interfaces in pods and VFs on vfio-pci reads as the machine does", s.capture("held")},
		},
		{{"VFs whose interfaces have gone into pods were called healthy all the time", func(context.Context) (string, error) {
			return s.seen.alwaysHealthy(from, netVF, 7)
		}}},
	}
}

// admitted waits until the kubelet has given a pod what it asks for.
func (s *setting) admitted(ctx context.Context, name string) error {
	return cluster.Wait(ctx, time.Minute, "the annotation of pod "+name, func(ctx context.Context) error {
		p, err := s.pod(ctx, name)
		if err == nil && p.Annotations[topology.AllocationAnnotation] == "" {
			err = fmt.Errorf("it has none, and is %s %s", p.Status.Phase, p.Status.Reason)
		}
		return err
	})
}

// refused has the kubelet refuse a pod that kube-scheduler alone has placed.
func (s *setting) refused(ctx context.Context) (string, error) {
	if err := s.create(ctx, "plain", want{cpus: 1, net: 1, scheduler: plain}); err != nil {
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
}

// waits waits until a pod's event says why it waits, and looks whether it does.
func (s *setting) waits(ctx context.Context, name string) (string, error) {
	var message string
	err := cluster.Wait(ctx, time.Minute, "the pod's event", func(ctx context.Context) error {
		events, err := s.c.Client.CoreV1().Events("default").List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=" + name + ",reason=FailedScheduling"})
		if err != nil {
			return err
		}
		for _, e := range events.Items {
			if message = e.Message; strings.Contains(message, "not enough free CPUs, memory and devices together on their NUMA nodes") {
				return nil
			}
		}
		return fmt.Errorf("there are %d events, the last says %q", len(events.Items), message)
	})
	if err != nil {
		return "", err
	}
	p, err := s.pod(ctx, name)
	if err == nil && (p.Status.Phase != corev1.PodPending || p.Spec.NodeName != "") {
		err = fmt.Errorf("the pod is %s on %q", p.Status.Phase, p.Spec.NodeName)
	}
	return message, err
}

// alignedRunning waits for a pod to run and looks where it has what it has.
func (s *setting) alignedRunning(ctx context.Context, name string, node int, resources ...corev1.ResourceName) (string, error) {
	v, err := s.look(ctx, name)
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

// same holds pods' annotations against what their containers were told when
// they started.
func (s *setting) same(ctx context.Context) error {
	for node, name := range []string{"a", "b"} {
		v, err := s.look(ctx, name)
		if err != nil {
			return err
		}
		if err := s.acknowledged(ctx, name, v, node, netVF); err != nil {
			return err
		}
	}
	return nil
}

// moved looks for pods' interfaces in the pods, and not on the host.
func (s *setting) moved(ctx context.Context) (string, error) {
	var found []string
	for _, name := range []string{"a", "b", "n", "m"} {
		v, err := s.look(ctx, name)
		if err != nil {
			return "", err
		}
		if !slices.Contains(v.Interfaces, "net1") {
			return "", fmt.Errorf("the container of pod %s has interfaces %v", name, v.Interfaces)
		}
		for _, pci := range held(v, netVF) {
			left, err := s.sh(ctx, "ls /sys/bus/pci/devices/"+pci+"/net 2>/dev/null || :")
			if err != nil {
				return "", err
			}
			if left != "" {
				return "", fmt.Errorf("%s still has %s on the host", pci, left)
			}
			found = append(found, pci)
		}
	}
	return strings.Join(found, " "), nil
}

// groupsOf compares the container's vfio nodes with the IOMMU groups that the
// kernel has for its VFs.
func (s *setting) groupsOf(ctx context.Context, name string) (string, error) {
	v, err := s.look(ctx, name)
	if err != nil {
		return "", err
	}
	want := []string{"vfio"}
	for _, vf := range held(v, dpdkVF) {
		g, err := s.group(ctx, vf)
		if err != nil {
			return "", err
		}
		want = append(want, g)
	}
	slices.Sort(want)
	if !slices.Equal(v.VFIO, want) || len(v.Faults) > 0 || len(want) < 2 {
		return "", fmt.Errorf("/dev/vfio has %v, want %v; %v", v.VFIO, want, v.Faults)
	}
	return fmt.Sprintf("%s, /dev/vfio has %s", strings.Join(held(v, dpdkVF), " "), strings.Join(v.VFIO, " ")), nil
}

// group is the IOMMU group of a VF, as the kernel has it.
func (s *setting) group(ctx context.Context, vf string) (string, error) {
	return s.sh(ctx, "basename $(readlink /sys/bus/pci/devices/"+vf+"/iommu_group)")
}
