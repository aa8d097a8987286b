package inventory

import (
	"log/slog"

	"github.com/numalane/numalane/pkg/topology"
)

// Facts are what the running kernel tells of network devices by netlink and no
// file of sysfs tells: which of them the node itself needs for its way out,
// and what devlink knows. One goroutine uses them.
type Facts struct {
	devlink *devlinkFacts
}

// NewFacts are those of this process's network namespace.
func NewFacts(log *slog.Logger) *Facts {
	return &Facts{devlink: newDevlinkFacts(kernelDevlink{}, log)}
}

// Add writes them into a host that has just been read. An error means that the
// node's way out is not known: the host is of no use then, or its uplink would
// be given away.
func (f *Facts) Add(h *topology.Host) error {
	if err := addUplinks(h); err != nil {
		return err
	}
	f.devlink.add(h)
	return nil
}

// networkDevices calls back for each device and each subfunction of a host.
func networkDevices(h *topology.Host, visit func(*topology.Device)) {
	for i := range h.Devices {
		visit(&h.Devices[i])
	}
	for i := range h.Subfunctions {
		visit(&h.Subfunctions[i])
	}
}
