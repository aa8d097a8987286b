package vm

import (
	"context"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/numalane/numalane/e2e/cluster"
	"github.com/numalane/numalane/e2e/vm/view"
)

// early is a plugin that is a service of the host, as those are that have to be
// there before the cluster is.
const early = "numalane-early"

// reboot: the whole site was without power, and the API comes back later than the
// node. A kubelet that has its pods at once refuses those with devices, for no
// plugin can have registered (kubernetes issue 109595, devicemanager
// devicesToAllocate): only so it starts them again, with the answers that it kept.
// PF 0 has more VFs than before, so that IOMMU groups of PF 1's have other numbers.
func (s *setting) reboot() act {
	before := map[string]view.Container{}
	var vf, group, container string
	return act{
		{{"the guest reboots, with the API out of its reach", func(ctx context.Context) (_ string, err error) {
			for _, name := range []string{"a", "b", "c", "v"} {
				if before[name], err = s.look(ctx, name); err != nil {
					return "", err
				}
			}
			if vf = strings.Join(held(before["v"], dpdkVF), " "); vf == "" {
				return "", fmt.Errorf("pod v was told of %v", before["v"].Env)
			}
			if group, err = s.group(ctx, vf); err != nil {
				return "", err
			}
			if container, err = s.pluginContainer(ctx); err != nil {
				return "", err
			}
			s.seen.stop()
			if _, err := s.sh(ctx, "cp -r /run/log/journal /lab/journal-before; cp /lab/node/unreachable.conf /etc/nftables.conf; echo 6 >/etc/vfs/"+pfs[0]); err != nil {
				return "", err
			}
			start := time.Now()
			if err := s.machine.Reboot(ctx); err != nil {
				return "", err
			}
			return fmt.Sprintf("up again after %.0f s", time.Since(start).Seconds()), nil
		}}},
		{{"a plugin that is a service of the host tells of the VFs that there are now, and calls that one unhealthy of which a container was given another group", func(ctx context.Context) (string, error) {
			if _, err := s.sh(ctx, "systemd-run --quiet --unit="+early+" numalane-plugin --use-cdi --config-file=/lab/node/pools.yaml --listen=127.0.0.1:8893"); err != nil {
				return "", err
			}
			if err := s.observe(ctx); err != nil {
				return "", err
			}
			if _, err := s.seen.first(ctx, mark{}, 2*time.Minute, "the VFs", func(e view.Event) bool {
				return count(e.Devices, netVF, 0) == 6 && count(e.Devices, netVF, 1) == 3 &&
					len(e.Devices[string(dpdkVF)]) == 1 && !has(e.Devices, dpdkVF, vf)
			}); err != nil {
				return "", err
			}
			now, err := s.group(ctx, vf)
			if err == nil && now == group {
				err = fmt.Errorf("the group is still %s", group)
			}
			return fmt.Sprintf("%s has group %s, before %s", vf, now, group), err
		}}},
		{
			{"once the API is back, pods run again with the kubelet's cached answers", func(ctx context.Context) (string, error) {
				if _, err := s.sh(ctx, "cp /lab/node/nftables.conf /etc/nftables.conf; systemctl reload-or-restart nftables"); err != nil {
					return "", err
				}
				var found []string
				for _, name := range []string{"a", "b"} {
					f, err := s.again(ctx, name, before[name])
					if err != nil {
						return "", err
					}
					found = append(found, f)
				}
				return strings.Join(found, ", "), nil
			}},
			{"one that has its device by CDI with the VFIO group of now", func(ctx context.Context) (string, error) {
				if _, err := s.again(ctx, "c", before["c"]); err != nil {
					return "", err
				}
				return s.groupsOf(ctx, "c")
			}},
			{"and one that would get the VFIO group of another device does not", func(ctx context.Context) (string, error) {
				var message string
				err := cluster.Wait(ctx, 2*time.Minute, "the kubelet to refuse it", func(ctx context.Context) error {
					p, err := s.pod(ctx, "v")
					if err != nil {
						return err
					}
					if message = p.Status.Message; p.Status.Phase != corev1.PodFailed {
						return fmt.Errorf("it is %s %s %v", p.Status.Phase, message, p.Status.ContainerStatuses)
					}
					return nil
				})
				if err == nil && !strings.Contains(message, "no longer healthy") {
					err = fmt.Errorf("the kubelet refused it for another reason: %s", message)
				}
				return message, err
			}},
			{"the DaemonSet's plugin is ready again beside the other, which ends", func(ctx context.Context) (string, error) {
				if err := s.pluginReady(ctx, "containerd://"+container); err != nil {
					return "", err
				}
				_, err := s.sh(ctx, "systemctl stop "+early)
				return "", err
			}},
		},
		{
			{"the Node's annotation has the VFs that there are now", func(ctx context.Context) (string, error) {
				return s.told(ctx, netVF, map[int][2]int{0: {6, 6}, 1: {3, 3}})
			}},
			{"pods' annotations say what they have", func(ctx context.Context) (string, error) { return "", s.same(ctx) }},
			{"a new pod gets that VF by the group that it has now", func(ctx context.Context) (string, error) {
				if err := s.remove(ctx, "v"); err != nil {
					return "", err
				}
				if err := s.create(ctx, "w", want{dpdk: 1, scheduler: ours}); err != nil {
					return "", err
				}
				return s.groupsOf(ctx, "w")
			}},
			{"a capture after the reboot reads as the machine does", s.capture("rebooted")},
		},
	}
}
