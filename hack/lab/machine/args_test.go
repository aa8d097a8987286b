package machine

import (
	"slices"
	"strings"
	"testing"

	"github.com/numalane/numalane/hack/lab/disk"
)

// TestBuses: a PCI device that names no bus lands on a host bridge of a NUMA
// node, and QEMU stops.
func TestBuses(t *testing.T) {
	m := &Machine{config: Config{Share: "/share", Files: "/files", Console: "/console"}, dir: "/dir"}
	args := m.args(disk.Disk{}, emulation, "/overlay", 1)
	devices := 0
	for i, a := range args {
		if a != "-device" {
			continue
		}
		devices++
		if d := args[i+1]; !strings.HasPrefix(d, "intel-iommu,") && !strings.Contains(d, "bus=") {
			t.Errorf("no bus: %s", d)
		}
	}
	if devices != 12 {
		t.Errorf("%d devices", devices)
	}
	if !slices.Contains(args, "file:/console") {
		t.Errorf("the console is not in its file: %v", args)
	}
}
