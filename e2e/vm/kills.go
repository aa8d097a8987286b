package vm

import (
	"context"
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/numalane/numalane/e2e/cluster"
	"github.com/numalane/numalane/e2e/vm/view"
)

// kills: each of plugin, containerd and kubelet is killed, comes back, and what
// pods have stays.
func (s *setting) kills() []check {
	all := map[int][2]int{0: {4, 4}, 1: {3, 3}}
	return []check{
		{"the plugin killed: nothing is allocatable at once, and all is again when its container is back", func(ctx context.Context) (string, error) {
			o, err := s.observe(ctx)
			if err != nil {
				return "", err
			}
			defer o.stop()
			id, err := s.pluginContainer(ctx)
			if err != nil {
				return "", err
			}
			if _, err := s.sh(ctx, "ctr -n k8s.io tasks kill -s SIGKILL "+id); err != nil {
				return "", err
			}
			gone, err := o.first(ctx, 30*time.Second, "nothing allocatable", func(e view.Event) bool { return e.Devices != nil && len(e.Devices[string(netVF)]) == 0 })
			if err != nil {
				return "", err
			}
			back, err := o.first(ctx, 90*time.Second, "all VFs", func(e view.Event) bool {
				return e.Time.After(gone.Time) && count(e.Devices, netVF, 0) == 4 && count(e.Devices, netVF, 1) == 3
			})
			if err != nil {
				return "", err
			}
			return fmt.Sprintf("back after %.1f s", back.Time.Sub(gone.Time).Seconds()), s.pluginReady(ctx, "containerd://"+id)
		}},
		{"the Node's annotation has them right after, and pods what they had", func(ctx context.Context) (string, error) {
			if err := s.same(ctx); err != nil {
				return "", err
			}
			return s.told(ctx, netVF, all)
		}},
		{"containerd killed: the plugin goes on, and pods have what they had", func(ctx context.Context) (string, error) {
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
		}},
		{"the kubelet killed: it has all VFs again, and pods have what they had", func(ctx context.Context) (string, error) {
			if _, err := s.sh(ctx, "systemctl kill -s KILL --kill-whom=main kubelet"); err != nil {
				return "", err
			}
			start := time.Now()
			if err := cluster.Wait(ctx, 90*time.Second, "all VFs", func(ctx context.Context) error {
				d, err := s.allocatable(ctx)
				if err != nil {
					return err
				}
				if count(d, netVF, 0) != 4 || count(d, netVF, 1) != 3 || count(d, dpdkVF, 1) != 2 {
					return fmt.Errorf("the kubelet has %v", d)
				}
				return nil
			}); err != nil {
				return "", err
			}
			return fmt.Sprintf("after %.1f s", time.Since(start).Seconds()), s.same(ctx)
		}},
		{"the Node's annotation has them right after", func(ctx context.Context) (string, error) { return s.told(ctx, netVF, all) }},
	}
}

// same holds pods' annotations against what their containers were told when
// they started.
func (s *setting) same(ctx context.Context) error {
	for node, name := range []string{"a", "b"} {
		if _, err := s.annotated(ctx, name, node, netVF); err != nil {
			return err
		}
	}
	return nil
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
