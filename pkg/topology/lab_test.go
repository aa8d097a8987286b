package topology_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/numalane/numalane/internal/sysfstest"
	"github.com/numalane/numalane/pkg/topology"
)

// TestLab reads the machine of hack/lab in the states that "make e2e-vm" takes
// it through and captures: no builder made these trees, the kernel did.
func TestLab(t *testing.T) {
	// seen is what a state shows of a PF.
	type seen struct {
		NUMANode int
		Up       bool
		VFs      int
		Away     int // VFs with a kernel driver and no netdev here: a pod has it
		VFIO     int // VFs bound to vfio-pci, each with an IOMMU group
	}
	tests := []struct {
		archive    string
		pf21, pf61 seen
	}{
		{"vfs", seen{NUMANode: 0, Up: true, VFs: 4}, seen{NUMANode: 1}},
		{"held", seen{NUMANode: 0, Up: true, VFs: 4, Away: 3}, seen{NUMANode: 1, Up: true, VFs: 5, Away: 1, VFIO: 2}},
		{"down", seen{NUMANode: 0, VFs: 4, Away: 2}, seen{NUMANode: 1, Up: true, VFs: 5, Away: 1, VFIO: 2}},
		{"gone", seen{NUMANode: 0, Up: true}, seen{NUMANode: 1, Up: true, VFs: 5, Away: 1, VFIO: 2}},
		{"rebooted", seen{NUMANode: 0, Up: true, VFs: 6, Away: 1}, seen{NUMANode: 1, Up: true, VFs: 5, Away: 1, VFIO: 2}},
	}
	for _, tt := range tests {
		t.Run(tt.archive, func(t *testing.T) {
			f, err := os.Open(filepath.Join("testdata/lab", tt.archive+".tar.gz"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			root, err := sysfstest.Unpack(f, t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			host, err := topology.Read(root)
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]seen{}
			for _, d := range host.Devices {
				switch {
				case d.PF != nil:
					s := got[d.ID()]
					s.NUMANode, s.Up, s.VFs = d.NUMANode, len(d.Netdevs) == 1 && d.Netdevs[0].Up, d.PF.NumVFs
					got[d.ID()] = s
					if len(d.PF.VFs) != d.PF.NumVFs || d.PF.TotalVFs != 7 {
						t.Errorf("%s: VFs %v, %d in all of %d", d.ID(), d.PF.VFs, d.PF.NumVFs, d.PF.TotalVFs)
					}
				case d.VF != nil:
					s := got[d.VF.PF.String()]
					if d.NUMANode != s.NUMANode || d.IOMMUGroup == "" {
						t.Errorf("%s: NUMA node %d, IOMMU group %q; its PF is on %d", d.ID(), d.NUMANode, d.IOMMUGroup, s.NUMANode)
					}
					if d.Driver == "vfio-pci" {
						s.VFIO++
					} else if len(d.Netdevs) == 0 {
						s.Away++
					}
					got[d.VF.PF.String()] = s
				}
			}
			if diff := cmp.Diff(map[string]seen{"0000:21:00.0": tt.pf21, "0000:61:00.0": tt.pf61}, got); diff != "" {
				t.Errorf("PFs (-want +got):\n%s", diff)
			}
			if len(host.Problems) > 0 {
				t.Errorf("problems: %v", host.Problems)
			}
		})
	}
}
