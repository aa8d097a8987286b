package capture

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/numalane/numalane/pkg/topology"
)

// factsFile is the place of what no sysfs tells, below the archive's root.
const factsFile = "numalane/facts.json"

// facts are what netlink told of a device.
type facts struct {
	DDPProfile  string `json:"ddpProfile,omitempty"`
	RDMACapable bool   `json:"rdmaCapable,omitempty"`
	Uplink      string `json:"uplink,omitempty"`
}

type document struct {
	Devices map[string]facts `json:"devices"` // by Device.ID
}

// devices are all of a host, to be changed.
func devices(host *topology.Host) map[string]*topology.Device {
	all := make(map[string]*topology.Device, len(host.Devices)+len(host.Subfunctions))
	for _, list := range [][]topology.Device{host.Devices, host.Subfunctions} {
		for i := range list {
			all[list[i].ID()] = &list[i]
		}
	}
	return all
}

// encodeFacts is nil when there are none.
func encodeFacts(host *topology.Host) ([]byte, error) {
	d := document{Devices: map[string]facts{}}
	for id, dev := range devices(host) {
		f := facts{DDPProfile: dev.DDPProfile, RDMACapable: dev.RDMACapable, Uplink: dev.Uplink}
		if f != (facts{}) {
			d.Devices[id] = f
		}
	}
	if len(d.Devices) == 0 {
		return nil, nil
	}
	b, err := json.MarshalIndent(d, "", "  ")
	return append(b, '\n'), err
}

// Facts gives a host that was read from an unpacked archive what netlink told
// where it was captured. Another root has none.
func Facts(root string, host *topology.Host) error {
	file := filepath.Join(root, factsFile)
	b, err := read(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("facts of the capture: %w", err)
	}
	var d document
	if err := json.Unmarshal(b, &d); err != nil {
		return fmt.Errorf("facts of the capture: %s: %w", file, err)
	}
	all := devices(host)
	for id, f := range d.Devices {
		dev, ok := all[id]
		if !ok {
			return fmt.Errorf("facts of the capture: %s: no device %s below %s: unpack the whole archive", file, id, root)
		}
		dev.DDPProfile, dev.RDMACapable, dev.Uplink = f.DDPProfile, f.RDMACapable, f.Uplink
	}
	return nil
}
