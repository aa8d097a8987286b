package vm

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/numalane/numalane/e2e/cluster"
	"github.com/numalane/numalane/e2e/vm/view"
	"github.com/numalane/numalane/pkg/topology"
)

// The PFs, by NUMA node: bus 0x20 and 0x60 are those of the host bridges, and
// the PF is on the one behind it.
var pfs = []string{"0000:21:00.0", "0000:61:00.0"}

// setVFs asks for VFs of a PF, now and after each boot: "4" or "5 3,4", where
// the last are for vfio-pci.
func (s *setting) setVFs(ctx context.Context, pf, want string) error {
	_, err := s.sh(ctx, fmt.Sprintf("echo '%s' >/etc/vfs/%s; /usr/local/sbin/vfs.sh", want, pf))
	return err
}

// vfsCome: the plugin is there before any VF is.
func (s *setting) vfsCome() []check {
	var seen view.Devices
	return []check{
		{"the machine is read as the kernel has it: PFs, drivers, NUMA nodes", s.inspectAgrees},
		{"without VFs the plugin is ready and registers nothing", func(ctx context.Context) (string, error) {
			d, err := s.allocatable(ctx)
			if err == nil && len(d) > 0 {
				err = fmt.Errorf("the kubelet has %v", d)
			}
			return "", err
		}},
		{"VFs made after the plugin's start are in the kubelet's allocatable within a second", func(ctx context.Context) (string, error) {
			o, err := s.observe(ctx)
			if err != nil {
				return "", err
			}
			defer o.stop()
			if err := s.setVFs(ctx, pfs[0], "4"); err != nil {
				return "", err
			}
			all, err := o.first(ctx, time.Minute, "four VFs", func(e view.Event) bool { return count(e.Devices, netVF, 0) == 4 })
			if err != nil {
				return "", err
			}
			seen = all.Devices
			return o.since(all, s.soon(), "the kernel bound the last of them", func(e view.Event) bool { return e.Uevent == "bind" })
		}},
		{"their NUMA nodes are those that the kernel says", func(ctx context.Context) (string, error) { return s.numaAgrees(ctx, seen) }},
		{"they are in the Node with its next status", func(ctx context.Context) (string, error) {
			start := time.Now()
			err := s.inNode(ctx, netVF, 4, 15*time.Second)
			return fmt.Sprintf("after %.1f s, the kubelet tells its status every 10 s", time.Since(start).Seconds()), err
		}},
		{"the Node's annotation has them", func(ctx context.Context) (string, error) {
			return s.told(ctx, netVF, map[int][2]int{0: {4, 4}})
		}},
		{"a capture of this state reads as the machine does", func(ctx context.Context) (string, error) { return s.capture(ctx, "vfs") }},
	}
}

// since tells how long before an event the last other one was, and fails if
// that was longer ago than it may be.
func (o *observer) since(e view.Event, most time.Duration, what string, cause func(view.Event) bool) (string, error) {
	from, err := o.last(e.Time, cause)
	if err != nil {
		return "", fmt.Errorf("%s: %w", what, err)
	}
	took := e.Time.Sub(from.Time)
	if took > most {
		return "", fmt.Errorf("%d ms after %s", took.Milliseconds(), what)
	}
	return fmt.Sprintf("%d ms after %s", took.Milliseconds(), what), nil
}

func (s *setting) inNode(ctx context.Context, r corev1.ResourceName, want int64, most time.Duration) error {
	return cluster.Wait(ctx, most, fmt.Sprintf("%d of %s in the Node", want, r), func(ctx context.Context) error {
		n, err := s.node(ctx)
		if err != nil {
			return err
		}
		if q := n.Status.Allocatable[r]; q.Value() != want {
			return fmt.Errorf("it has %s", q.String())
		}
		return nil
	})
}

// numaAgrees compares devices' NUMA nodes with the kernel's.
func (s *setting) numaAgrees(ctx context.Context, d view.Devices) (string, error) {
	n := 0
	for _, r := range slices.Sorted(maps.Keys(d)) {
		for _, dev := range d[r] {
			kernel, err := s.numaNode(ctx, dev.ID)
			if err != nil {
				return "", err
			}
			if len(dev.NUMA) != 1 || fmt.Sprint(dev.NUMA[0]) != kernel {
				return "", fmt.Errorf("%s: the kubelet was told %v, the kernel says %s", dev.ID, dev.NUMA, kernel)
			}
			n++
		}
	}
	if n == 0 {
		return "", fmt.Errorf("there are no devices")
	}
	return fmt.Sprintf("%d devices", n), nil
}

// inspected is what "numalane-plugin inspect -o json" prints, as far as it is
// looked at here.
type inspected struct {
	Host *topology.Host `json:"host"`
}

func (s *setting) inspect(ctx context.Context, args string) (inspected, string, error) {
	out, err := s.sh(ctx, "numalane-plugin inspect -o json "+args)
	if err != nil {
		return inspected{}, "", err
	}
	var i inspected
	return i, out, json.Unmarshal([]byte(out), &i)
}

func (s *setting) inspectAgrees(ctx context.Context) (string, error) {
	i, _, err := s.inspect(ctx, "")
	if err != nil {
		return "", err
	}
	var found []string
	for node, pf := range pfs {
		at := slices.IndexFunc(i.Host.Devices, func(d topology.Device) bool { return d.ID() == pf })
		if at < 0 {
			return "", fmt.Errorf("inspect does not have PF %s", pf)
		}
		d := i.Host.Devices[at]
		kernel, err := s.numaNode(ctx, pf)
		if err != nil {
			return "", err
		}
		if fmt.Sprint(d.NUMANode) != kernel || d.NUMANode != node || d.Driver != "igb" {
			return "", fmt.Errorf("PF %s: NUMA node %d, driver %s; the kernel says %s", pf, d.NUMANode, d.Driver, kernel)
		}
		found = append(found, fmt.Sprintf("%s on %d", pf, node))
	}
	return strings.Join(found, ", "), nil
}

// capture takes the machine as it is now, and holds what is read from the
// capture against what is read from the machine.
func (s *setting) capture(ctx context.Context, name string) (string, error) {
	if _, err := s.sh(ctx, fmt.Sprintf("mkdir -p /lab/captures /tmp/%[1]s; numalane-plugin inspect --capture /lab/captures/%[1]s.tar.gz; tar xzf /lab/captures/%[1]s.tar.gz -C /tmp/%[1]s", name)); err != nil {
		return "", err
	}
	_, machine, err := s.inspect(ctx, "")
	if err != nil {
		return "", err
	}
	i, captured, err := s.inspect(ctx, "--sysfs-root /tmp/"+name)
	if err != nil {
		return "", err
	}
	if machine != captured {
		return "", fmt.Errorf("the machine reads as\n%s\nthe capture as\n%s", machine, captured)
	}
	return fmt.Sprintf("%d devices", len(i.Host.Devices)), nil
}
