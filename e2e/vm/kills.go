package vm

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/numalane/numalane/e2e/cluster"
	"github.com/numalane/numalane/e2e/vm/view"
)

// taskPid is where containerd keeps the process of a container.
const taskPid = "/run/containerd/io.containerd.runtime.v2.task/k8s.io/%s/init.pid"

// kills: each of plugin, a pod's container, containerd and kubelet is killed and
// comes back, and what pods have stays. What changes while plugin or kubelet are
// away has to be told after.
func (s *setting) kills() act {
	var free string // VF of PF 0 that no pod holds
	return act{
		{{"the plugin killed: nothing is allocatable at once, and all is again when its container is back", func(ctx context.Context) (string, error) {
			var err error
			if free, err = s.freeVF(ctx, 0); err != nil {
				return "", err
			}
			id, err := s.pluginContainer(ctx)
			if err != nil {
				return "", err
			}
			from := s.seen.now()
			if _, err := s.sh(ctx, fmt.Sprintf("kill -KILL $(cat "+taskPid+"); ", id)+bind(free, "vfio-pci")); err != nil {
				return "", err
			}
			if err := s.c.Client.CoreV1().Pods("default").Delete(ctx, "m", metav1.DeleteOptions{}); err != nil {
				return "", err
			}
			gone, err := s.seen.first(ctx, from, time.Minute, "nothing allocatable", func(e view.Event) bool { return e.Devices != nil && len(e.Devices[string(netVF)]) == 0 })
			if err != nil {
				return "", err
			}
			back, err := s.seen.first(ctx, from, 2*time.Minute, "all VFs", func(e view.Event) bool {
				return e.Time.After(gone.Time) && count(e.Devices, netVF, 0) == 3 && count(e.Devices, netVF, 1) == 3
			})
			if err != nil {
				return "", err
			}
			return fmt.Sprintf("back after %.1f s", back.Time.Sub(gone.Time).Seconds()), s.pluginReady(ctx, "containerd://"+id)
		}}},
		{
			{"the Node's annotation has what changed meanwhile: a VF's driver, and a pod that ended", func(ctx context.Context) (string, error) {
				if _, err := s.told(ctx, netVF, map[int][2]int{0: {3, 3}, 1: {3, 3}}); err != nil {
					return "", err
				}
				if _, err := s.told(ctx, dpdkVF, map[int][2]int{0: {1, 1}, 1: {2, 2}}); err != nil {
					return "", err
				}
				if err := s.gone(ctx, "m"); err != nil {
					return "", err
				}
				return s.free(ctx, netVF, map[int]int{0: 2, 1: 2})
			}},
			{"pods have what they had", func(ctx context.Context) (string, error) { return "", s.same(ctx) }},
			{"a container killed starts again with what its pod was given: the kubelet's cached answer", s.containerKilled},
		},
		{{"containerd killed: the plugin goes on, and pods have what they had", func(ctx context.Context) (string, error) {
			before, err := s.pluginContainer(ctx)
			if err != nil {
				return "", err
			}
			if _, err := s.sh(ctx, "systemctl kill -s KILL --kill-whom=main containerd; sleep 1; systemctl start containerd"); err != nil {
				return "", err
			}
			if err := s.nodeReady(ctx); err != nil {
				return "", err
			}
			after, err := s.pluginContainer(ctx)
			if err != nil {
				return "", err
			}
			if before != after {
				return "", fmt.Errorf("the plugin's container is another one: %s, before %s", after, before)
			}
			return "", s.same(ctx)
		}}},
		{{"the kubelet killed, and a VF's driver changed meanwhile: it has all that there is", func(ctx context.Context) (string, error) {
			from := s.seen.now()
			if _, err := s.sh(ctx, "systemctl kill -s KILL --kill-whom=main kubelet; "+bind(free, "igbvf")); err != nil {
				return "", err
			}
			gone, err := s.seen.first(ctx, from, time.Minute, "the kubelet to be away", func(e view.Event) bool { return e.Gone })
			if err != nil {
				return "", err
			}
			back, err := s.seen.first(ctx, from, 2*time.Minute, "all VFs", func(e view.Event) bool {
				return e.Time.After(gone.Time) && count(e.Devices, netVF, 0) == 4 && count(e.Devices, netVF, 1) == 3 && count(e.Devices, dpdkVF, 1) == 2
			})
			if err != nil {
				return "", err
			}
			return fmt.Sprintf("after %.1f s", back.Time.Sub(gone.Time).Seconds()), nil
		}}},
		{
			{"the Node's annotation has that", func(ctx context.Context) (string, error) {
				return s.told(ctx, netVF, map[int][2]int{0: {4, 4}, 1: {3, 3}})
			}},
			{"pods have what they had", func(ctx context.Context) (string, error) { return "", s.same(ctx) }},
		},
	}
}

// containerKilled kills pod b's process.
func (s *setting) containerKilled(ctx context.Context) (string, error) {
	before, err := s.look(ctx, "b")
	if err != nil {
		return "", err
	}
	pid, err := s.pid(ctx, "b")
	if err != nil {
		return "", err
	}
	if _, err := s.sh(ctx, "kill -KILL "+pid); err != nil {
		return "", err
	}
	return s.again(ctx, "b", before)
}

// again waits until a pod's container has been started again, and holds what it
// was told against what it was told before.
func (s *setting) again(ctx context.Context, name string, before view.Container) (string, error) {
	if err := cluster.Wait(ctx, 2*time.Minute, "pod "+name+" to run again", func(ctx context.Context) error {
		p, err := s.pod(ctx, name)
		if err != nil {
			return err
		}
		if len(p.Status.ContainerStatuses) != 1 || p.Status.ContainerStatuses[0].RestartCount == 0 || p.Status.ContainerStatuses[0].State.Running == nil {
			return fmt.Errorf("it is %s %s %v", p.Status.Phase, p.Status.Message, p.Status.ContainerStatuses)
		}
		return nil
	}); err != nil {
		return "", err
	}
	v, err := s.look(ctx, name)
	if err != nil {
		return "", err
	}
	if !maps.Equal(v.Env, before.Env) {
		return "", fmt.Errorf("pod %s was told %v, before %v", name, v.Env, before.Env)
	}
	return strings.Join(held(v, netVF), " "), nil
}

// pluginContainer is the id of the plugin's container.
func (s *setting) pluginContainer(ctx context.Context) (string, error) {
	list, err := s.c.Client.CoreV1().Pods("numalane").List(ctx, metav1.ListOptions{})
	if err != nil {
		return "", err
	}
	for _, p := range list.Items {
		for _, c := range p.Status.ContainerStatuses {
			return strings.TrimPrefix(c.ContainerID, "containerd://"), nil
		}
	}
	return "", fmt.Errorf("the plugin has no container")
}
