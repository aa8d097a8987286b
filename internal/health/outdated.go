package health

import (
	"fmt"
	"slices"
	"strings"

	"github.com/numalane/numalane/internal/config"
	"github.com/numalane/numalane/internal/handout"
	"github.com/numalane/numalane/pkg/topology"
)

// vfioGroups is where VFIO has its groups. Their numbers are those of IOMMU
// groups, which the kernel gives anew at each boot, in the order in which it
// meets devices (drivers/iommu/iommu.c, iommu_group_alloc).
const vfioGroups = "/dev/vfio/"

// Outdated are the devices that a container was given by a VFIO group which is
// another one now, as it may be after a reboot, and why. The kubelet would give
// the container that node again, and with it somebody else's device, or none:
// it does not start one that holds an unhealthy device. Of devices that came by
// CDI, given names no node, and the container runtime looks them up anew.
func Outdated(pools []config.AssignedPool, host *topology.Host, given map[string][]string) map[string]string {
	out := map[string]string{}
	for _, p := range pools {
		for i := range p.Devices {
			d := &p.Devices[i]
			nodes := slices.DeleteFunc(slices.Clone(given[d.ID()]), func(n string) bool { return !isGroup(n) })
			if len(nodes) == 0 {
				continue
			}
			for _, n := range handout.Of(d, p.Pool, host).Nodes {
				if isGroup(n.Host) && !slices.Contains(nodes, n.Host) {
					out[d.ID()] = fmt.Sprintf("a container was given it as %s, and it is %s now: delete the pod", strings.Join(nodes, " and "), n.Host)
				}
			}
		}
	}
	return out
}

// isGroup tells the node of a group from that of VFIO itself.
func isGroup(node string) bool {
	name, below := strings.CutPrefix(node, vfioGroups)
	return below && name != "vfio"
}
