package handout

import (
	"encoding/json"
	"strings"

	"github.com/numalane/numalane/internal/config"
)

// deviceInfoVersion is that of the Network Plumbing Working Group's "Device
// Information Specification", and the version which its own library writes.
const deviceInfoVersion = "1.1.0"

type info struct {
	Type    string    `json:"type"`
	Version string    `json:"version"`
	PCI     *pciInfo  `json:"pci,omitempty"`
	VDPA    *vdpaInfo `json:"vdpa,omitempty"`
}

type pciInfo struct {
	Address string `json:"pci-address"`
	RDMA    string `json:"rdma-device,omitempty"`
}

type vdpaInfo struct {
	Parent  string `json:"parent-device"` // of the interface: the vDPA device itself
	Driver  string `json:"driver"`        // vhost, virtio
	Path    string `json:"path,omitempty"`
	Address string `json:"pci-address"`
}

// deviceInfo tells Multus and the CNI plugins of a network device. Only what
// its pool is for is told: of an RDMA device where the pool hands it out.
func deviceInfo(d *config.AssignedDevice) []byte {
	doc := info{Type: "pci", Version: deviceInfoVersion, PCI: &pciInfo{Address: d.Address.String()}}
	if d.By.RDMA {
		names := make([]string, len(d.RDMA))
		for i, r := range d.RDMA {
			names[i] = r.Name
		}
		doc.PCI.RDMA = strings.Join(names, ",")
	}
	if d.By.VDPA != "" {
		v := &vdpaInfo{Parent: d.VDPA.Name, Driver: d.By.VDPA, Address: d.Address.String()}
		if d.By.VDPA == "vhost" {
			v.Path = "/dev/" + d.VDPA.CharDevice
		}
		doc = info{Type: "vdpa", Version: deviceInfoVersion, VDPA: v}
	}
	text, _ := json.Marshal(doc) // strings alone: never fails
	return text
}
