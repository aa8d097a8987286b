package vm

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/numalane/numalane/e2e/cluster"
)

// traffic: pods speak over their VFs. Pod a has one of PF 0, pod b one of PF 1,
// and pod n one of either.
func (s *setting) traffic() act {
	var from mark
	return act{
		{
			{"pods with VFs of two PFs exchange packets", func(ctx context.Context) (string, error) { return s.ping(ctx, "a", "b") }},
			{"pods with VFs of one PF exchange packets", func(ctx context.Context) (string, error) {
				v, err := s.look(ctx, "n")
				if err != nil {
					return "", err
				}
				kernel, err := s.numaNodes(ctx)
				if err != nil {
					return "", err
				}
				node := kernel[strings.Join(held(v, netVF), " ")]
				found, err := s.ping(ctx, "n", map[string]string{"0": "a", "1": "b"}[node])
				return fmt.Sprintf("PF %s, %s", node, found), err
			}},
		},
		{{"the interface comes back to the host when its pod ends", func(ctx context.Context) (string, error) {
			v, err := s.look(ctx, "n")
			if err != nil {
				return "", err
			}
			from = s.seen.now()
			if err := s.remove(ctx, "n"); err != nil {
				return "", err
			}
			var name string
			for _, pci := range held(v, netVF) {
				if err := cluster.Wait(ctx, time.Minute, "the interface of "+pci, func(ctx context.Context) error {
					name, err = s.sh(ctx, "ls /sys/bus/pci/devices/"+pci+"/net")
					return err
				}); err != nil {
					return "", err
				}
			}
			return name, nil
		}}},
		{{"and the VF was called healthy all the time", func(context.Context) (string, error) {
			return s.seen.alwaysHealthy(from, netVF, 7)
		}}},
	}
}

// ping sends packets from one pod's first VF to another's.
func (s *setting) ping(ctx context.Context, from, to string) (string, error) {
	source, err := s.inPod(ctx, from)
	if err != nil {
		return "", err
	}
	target, err := s.inPod(ctx, to)
	if err != nil {
		return "", err
	}
	addr, err := s.sh(ctx, target+" ip -4 -o addr show net1 | sed 's|.*inet \\([^/]*\\)/.*|\\1|'")
	if err != nil {
		return "", err
	}
	// An interface that was moved takes seconds to have its carrier again.
	if err := cluster.Wait(ctx, time.Minute, "carrier of both interfaces", func(ctx context.Context) error {
		for _, in := range []string{source, target} {
			up, err := s.sh(ctx, in+" ip -br link show net1")
			if err != nil {
				return err
			}
			if !strings.Contains(up, "LOWER_UP") {
				return fmt.Errorf("%s", up)
			}
		}
		return nil
	}); err != nil {
		return "", err
	}
	out, err := s.sh(ctx, source+" ping -q -i 0.2 -c 10 -W 10 -I net1 "+addr)
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	if !strings.Contains(out, "10 received") {
		return "", fmt.Errorf("packets were lost: %s", out)
	}
	return fmt.Sprintf("%s to %s at %s, 10 of 10", from, to, addr), nil
}

// inPod is what runs a command in a pod's network namespace.
func (s *setting) inPod(ctx context.Context, name string) (string, error) {
	pid, err := s.pid(ctx, name)
	return "nsenter -t " + pid + " -n", err
}

// pid is that of a pod's process, in the guest.
func (s *setting) pid(ctx context.Context, name string) (string, error) {
	p, err := s.running(ctx, name)
	if err != nil {
		return "", err
	}
	id := strings.TrimPrefix(p.Status.ContainerStatuses[0].ContainerID, "containerd://")
	pid, err := s.sh(ctx, fmt.Sprintf("cat "+taskPid, id))
	if err == nil && pid == "" {
		err = fmt.Errorf("pod %s has no process", name)
	}
	return pid, err
}
