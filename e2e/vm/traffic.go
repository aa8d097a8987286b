package vm

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/numalane/numalane/e2e/cluster"
)

// traffic: pods speak over their VFs. Pod a has one of PF 0, pod b one of PF 1.
func (s *setting) traffic() []check {
	return []check{
		{"pods with VFs of two PFs exchange packets", func(ctx context.Context) (string, error) { return s.ping(ctx, "a", "b") }},
		{"pods with VFs of one PF exchange packets", func(ctx context.Context) (string, error) {
			if err := s.create(ctx, "n", want{net: 1, scheduler: ours}); err != nil {
				return "", err
			}
			p, err := s.running(ctx, "n")
			if err != nil {
				return "", err
			}
			v, err := s.container(ctx, p)
			if err != nil {
				return "", err
			}
			node, err := s.numaNode(ctx, strings.Join(held(v, netVF), " "))
			if err != nil {
				return "", err
			}
			peer := map[string]string{"0": "a", "1": "b"}[node]
			found, err := s.ping(ctx, "n", peer)
			return fmt.Sprintf("PF %s, %s", node, found), err
		}},
		{"the interface comes back to the host when its pod ends, and the VF stays healthy", func(ctx context.Context) (string, error) {
			p, err := s.running(ctx, "n")
			if err != nil {
				return "", err
			}
			v, err := s.container(ctx, p)
			if err != nil {
				return "", err
			}
			o, err := s.observe(ctx)
			if err != nil {
				return "", err
			}
			defer o.stop()
			if err := s.remove(ctx, "n"); err != nil {
				return "", err
			}
			var name string
			for _, pci := range held(v, netVF) {
				if err := cluster.Wait(ctx, 30*time.Second, "the interface of "+pci, func(ctx context.Context) error {
					name, err = s.sh(ctx, "ls /sys/bus/pci/devices/"+pci+"/net")
					return err
				}); err != nil {
					return "", err
				}
			}
			o.mu.Lock()
			defer o.mu.Unlock()
			for _, e := range o.events {
				if e.Devices != nil && count(e.Devices, netVF, 0)+count(e.Devices, netVF, 1) != 7 {
					return "", fmt.Errorf("the kubelet had %v meanwhile", e.Devices)
				}
			}
			return name, nil
		}},
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
	if err := cluster.Wait(ctx, 30*time.Second, "carrier of both interfaces", func(ctx context.Context) error {
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
	out, err := s.sh(ctx, source+" ping -q -i 0.2 -c 10 -W 5 -I net1 "+addr)
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
	p, err := s.running(ctx, name)
	if err != nil {
		return "", err
	}
	id := strings.TrimPrefix(p.Status.ContainerStatuses[0].ContainerID, "containerd://")
	pid, err := s.sh(ctx, "ctr -n k8s.io tasks ls | awk '$1 == \""+id+"\" {print $2}'")
	if err != nil {
		return "", err
	}
	if pid == "" {
		return "", fmt.Errorf("pod %s has no process", name)
	}
	return "nsenter -t " + pid + " -n", nil
}
