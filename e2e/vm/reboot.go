package vm

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/numalane/numalane/e2e/cluster"
	"github.com/numalane/numalane/e2e/vm/view"
)

// reboot: PF 0 has more VFs after it, so that the IOMMU groups of PF 1's have
// other numbers.
func (s *setting) reboot() []check {
	before := map[string]view.Container{}
	var group string
	return []check{
		{"the guest reboots, and the plugin is ready again", func(ctx context.Context) (string, error) {
			for _, name := range []string{"a", "b", "v"} {
				p, err := s.running(ctx, name)
				if err != nil {
					return "", err
				}
				if before[name], err = s.container(ctx, p); err != nil {
					return "", err
				}
			}
			var err error
			if group, err = s.group(ctx, before["v"]); err != nil {
				return "", err
			}
			container, err := s.pluginContainer(ctx)
			if err != nil {
				return "", err
			}
			if _, err := s.sh(ctx, "echo 6 >/etc/vfs/"+pfs[0]); err != nil {
				return "", err
			}
			if err := s.machine.Reboot(ctx); err != nil {
				return "", err
			}
			if err := s.nodeReady(ctx); err != nil {
				return "", err
			}
			return "", s.pluginReady(ctx, "containerd://"+container)
		}},
		{"the Node's annotation has the VFs that there are now", func(ctx context.Context) (string, error) {
			return s.told(ctx, netVF, map[int][2]int{0: {6, 6}, 1: {3, 3}})
		}},
		{"pods of before run again, with the kubelet's cached answers", func(ctx context.Context) (string, error) {
			for _, name := range []string{"a", "b"} {
				if err := cluster.Wait(ctx, 90*time.Second, "pod "+name+" to run again", func(ctx context.Context) error {
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
				p, err := s.pod(ctx, name)
				if err != nil {
					return "", err
				}
				v, err := s.container(ctx, p)
				if err != nil {
					return "", err
				}
				if !maps.Equal(v.Env, before[name].Env) {
					return "", fmt.Errorf("pod %s was told %v, before %v", name, v.Env, before[name].Env)
				}
			}
			return "", s.same(ctx)
		}},
		{"the vfio group of a VF has another number, and a new pod gets the new one", func(ctx context.Context) (string, error) {
			now, err := s.group(ctx, before["v"])
			if err != nil {
				return "", err
			}
			if now == group {
				return "", fmt.Errorf("the group is still %s", group)
			}
			if err := s.remove(ctx, "v"); err != nil {
				return "", err
			}
			if err := s.create(ctx, "w", want{dpdk: 1, scheduler: ours}); err != nil {
				return "", err
			}
			found, err := s.groupOf(ctx, "w")
			return fmt.Sprintf("group %s, before %s; %s", now, group, found), err
		}},
		{"a capture after the reboot reads as the machine does", func(ctx context.Context) (string, error) { return s.capture(ctx, "rebooted") }},
	}
}

// group is the IOMMU group of a container's vfio-pci VF, as the kernel has it.
func (s *setting) group(ctx context.Context, v view.Container) (string, error) {
	vfs := held(v, dpdkVF)
	if len(vfs) != 1 {
		return "", fmt.Errorf("the container was told of %v", v.Env)
	}
	return s.sh(ctx, "basename $(readlink /sys/bus/pci/devices/"+vfs[0]+"/iommu_group)")
}
