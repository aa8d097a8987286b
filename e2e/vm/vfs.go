package vm

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"
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
func (s *setting) vfsCome() act {
	var seen view.Devices
	return act{
		{
			{"the machine is read as the kernel has it: PFs, drivers, NUMA nodes", s.inspectAgrees},
			{"without VFs the plugin is ready and registers nothing", func(ctx context.Context) (string, error) {
				d, err := s.allocatable(ctx)
				if err == nil && len(d) > 0 {
					err = fmt.Errorf("the kubelet has %v", d)
				}
				return "", err
			}},
		},
		{{"VFs made after the plugin's start are soon in the kubelet's allocatable", func(ctx context.Context) (string, error) {
			from := s.seen.now()
			if err := s.setVFs(ctx, pfs[0], "4"); err != nil {
				return "", err
			}
			all, err := s.seen.first(ctx, from, time.Minute, "four VFs", func(e view.Event) bool { return count(e.Devices, netVF, 0) == 4 })
			if err != nil {
				return "", err
			}
			seen = all.Devices
			return s.since(ctx, from, 0, all, netVF, "the kernel bound the last of them", func(e view.Event) bool { return e.Uevent == "bind" })
		}}},
		{
			{"their NUMA nodes are those that the kernel says", func(ctx context.Context) (string, error) { return s.numaAgrees(ctx, seen) }},
			{"they are in the Node with its next status", func(ctx context.Context) (string, error) {
				start := time.Now()
				err := s.inNode(ctx, netVF, 4, 30*time.Second)
				return fmt.Sprintf("after %.1f s, the kubelet tells its status every 10 s", time.Since(start).Seconds()), err
			}},
			{"the Node's annotation has them", func(ctx context.Context) (string, error) {
				return s.told(ctx, netVF, map[int][2]int{0: {4, 4}})
			}},
			{"a capture of this state reads as the machine does", s.capture("vfs")},
		},
	}
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
	kernel, err := s.numaNodes(ctx)
	if err != nil {
		return "", err
	}
	n := 0
	for _, r := range slices.Sorted(maps.Keys(d)) {
		for _, dev := range d[r] {
			if len(dev.NUMA) != 1 || fmt.Sprint(dev.NUMA[0]) != kernel[dev.ID] {
				return "", fmt.Errorf("%s: the kubelet was told %v, the kernel says %s", dev.ID, dev.NUMA, kernel[dev.ID])
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

func (s *setting) inspectAgrees(ctx context.Context) (string, error) {
	out, err := s.sh(ctx, "numalane-plugin inspect -o json")
	if err != nil {
		return "", err
	}
	var i inspected
	if err := json.Unmarshal([]byte(out), &i); err != nil {
		return "", err
	}
	kernel, err := s.numaNodes(ctx)
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
		if fmt.Sprint(d.NUMANode) != kernel[pf] || d.NUMANode != node || d.Driver != "igb" {
			return "", fmt.Errorf("PF %s: NUMA node %d, driver %s; the kernel says %s", pf, d.NUMANode, d.Driver, kernel[pf])
		}
		found = append(found, fmt.Sprintf("%s on %d", pf, node))
	}
	return strings.Join(found, ", "), nil
}

// capture takes the machine as it is then, and holds what is read from the
// capture, outside, against what is read from the machine.
func (s *setting) capture(name string) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		dir := filepath.Join(s.o.Share, "captures")
		root := filepath.Join(dir, name)
		if err := os.MkdirAll(root, 0o755); err != nil {
			return "", err
		}
		machine, err := s.sh(ctx, fmt.Sprintf("numalane-plugin inspect --capture /lab/captures/%s.tar.gz >/dev/null & numalane-plugin inspect -o json; wait $!", name))
		if err != nil {
			return "", err
		}
		if out, err := exec.CommandContext(ctx, "tar", "xzf", root+".tar.gz", "-C", root).CombinedOutput(); err != nil {
			return "", fmt.Errorf("unpack the capture: %w: %s", err, out)
		}
		cmd := exec.CommandContext(ctx, filepath.Join(s.o.Bin, "numalane-plugin"), "inspect", "-o", "json", "--sysfs-root", root)
		cmd.Env = append(os.Environ(), "PCIDB_CHROOT="+root) // the guest knows no vendors' names either
		captured, err := cmd.Output()
		if err != nil {
			return "", fmt.Errorf("read the capture: %w", err)
		}
		var i inspected
		if err := json.Unmarshal(captured, &i); err != nil {
			return "", err
		}
		if diff := cmp.Diff(machine, strings.TrimSpace(string(captured))); diff != "" {
			return "", fmt.Errorf("the machine (-) reads otherwise than the capture (+)\n%s", diff)
		}
		return fmt.Sprintf("%d devices", len(i.Host.Devices)), os.RemoveAll(root)
	}
}
