package vm

import (
	"context"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/numalane/numalane/e2e/vm/view"
)

// drivers: a free VF changes its driver, and VFs are taken away from under a
// running pod.
func (s *setting) drivers() act {
	var free string // VF of PF 0 that no pod holds
	return act{
		{{"a VF that is bound to vfio-pci soon changes its pool", func(ctx context.Context) (string, error) {
			var err error
			if free, err = s.freeVF(ctx, 0); err != nil {
				return "", err
			}
			return s.rebind(ctx, free, "vfio-pci", netVF, dpdkVF)
		}}},
		{{"the Node's annotation has that right after", func(ctx context.Context) (string, error) {
			return s.told(ctx, dpdkVF, map[int][2]int{0: {1, 1}, 1: {2, 2}})
		}}},
		{{"and changes it back with its driver", func(ctx context.Context) (string, error) {
			return s.rebind(ctx, free, "igbvf", dpdkVF, netVF)
		}}},
		{{"sriov_numvfs of 0 under a running pod: its PF's VFs are soon gone for new pods, the other's are not", func(ctx context.Context) (string, error) {
			from := s.seen.now()
			if _, err := s.sh(ctx, "echo 0 >/sys/bus/pci/devices/"+pfs[0]+"/sriov_numvfs"); err != nil {
				return "", err
			}
			gone, err := s.seen.first(ctx, from, time.Minute, "no VF of the PF", func(e view.Event) bool {
				return e.Devices != nil && count(e.Devices, netVF, 0) == 0
			})
			if err != nil {
				return "", err
			}
			if n := count(gone.Devices, netVF, 1); n != 3 {
				return "", fmt.Errorf("of the other PF's three VFs the kubelet has %d", n)
			}
			return s.since(ctx, from, 0, gone, netVF, "the kernel removed the last", func(e view.Event) bool { return e.Uevent == "remove" })
		}}},
		{
			{"the pod goes on, and its VF stays in the Node's annotation, unhealthy, as long as it is held", func(ctx context.Context) (string, error) {
				found, err := s.told(ctx, netVF, map[int][2]int{0: {1, 0}, 1: {3, 3}})
				if err != nil {
					return "", err
				}
				p, err := s.pod(ctx, "a")
				if err == nil && p.Status.Phase != corev1.PodRunning {
					err = fmt.Errorf("pod a is %s", p.Status.Phase)
				}
				return found, err
			}},
			{"a capture of this state reads as the machine does", s.capture("gone")},
		},
		{{"VFs that come back under the same addresses are given away again", func(ctx context.Context) (string, error) {
			if err := s.setVFs(ctx, pfs[0], "4"); err != nil {
				return "", err
			}
			return s.told(ctx, netVF, map[int][2]int{0: {4, 4}, 1: {3, 3}})
		}}},
	}
}

// freeVF is a VF with an interface on the host: no pod has it.
func (s *setting) freeVF(ctx context.Context, pf int) (string, error) {
	out, err := s.sh(ctx, "ls -d /sys/bus/pci/devices/"+pfs[pf]+"/virtfn*/net | tail -1 | sed 's|/net||' | xargs readlink -f | xargs basename")
	if err == nil && out == "" {
		err = fmt.Errorf("no VF of %s has an interface on the host", pfs[pf])
	}
	return out, err
}

// bind is a shell command that gives a VF another driver.
func bind(vf, driver string) string {
	return strings.NewReplacer("DIR", "/sys/bus/pci/devices/"+vf, "DRIVER", driver, "PCI", vf).Replace(
		"echo DRIVER >DIR/driver_override; echo PCI >DIR/driver/unbind; echo PCI >/sys/bus/pci/drivers_probe")
}

// rebind gives a VF another driver and waits until it has changed its pool.
func (s *setting) rebind(ctx context.Context, vf, driver string, from, to corev1.ResourceName) (string, error) {
	start := s.seen.now()
	if _, err := s.sh(ctx, bind(vf, driver)); err != nil {
		return "", err
	}
	changed, err := s.seen.first(ctx, start, time.Minute, vf+" in the other pool", func(e view.Event) bool {
		return e.Devices != nil && !has(e.Devices, from, vf) && has(e.Devices, to, vf)
	})
	if err != nil {
		return "", err
	}
	return s.since(ctx, start, 0, changed, to, "the kernel bound "+vf, func(e view.Event) bool { return e.Uevent == "bind" && e.PCI == vf })
}

func has(d view.Devices, r corev1.ResourceName, id string) bool {
	for _, dev := range d[string(r)] {
		if dev.ID == id {
			return true
		}
	}
	return false
}
