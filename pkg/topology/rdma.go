package topology

import (
	"errors"
	"path/filepath"
	"slices"
)

// rdmaDevices reads the infiniband devices of a function with their character
// devices, which hang below the same function: uverbsN, and for management
// datagrams umadN and issmN (drivers/infiniband/core/uverbs_main.c, user_mad.c).
func (d *devices) rdmaDevices(dir string) ([]RDMADevice, error) {
	found, err := names(dir + "/infiniband")
	if err != nil {
		return nil, fileError("infiniband", err)
	}
	if len(found) == 0 {
		return nil, nil
	}
	t := torn{}
	chars := map[string][]string{}
	for _, class := range []string{"infiniband_verbs", "infiniband_mad"} {
		nodes, err := names(filepath.Join(dir, class))
		t.note(class, err)
		for _, node := range nodes {
			// One function can have several infiniband devices.
			owner, err := text(filepath.Join(dir, class, node, "ibdev"))
			t.note(class+"/"+node+"/ibdev", err)
			chars[owner] = append(chars[owner], node)
		}
	}
	var all []RDMADevice
	for _, name := range found {
		dev := RDMADevice{Name: name, CharDevices: chars[name]}
		if d.rdmaCM {
			dev.CharDevices = append(dev.CharDevices, "rdma_cm")
		}
		slices.Sort(dev.CharDevices)
		dev.PKey, err = text(filepath.Join(dir, "infiniband", name, "ports/1/pkeys/0"))
		t.note("infiniband/"+name+"/ports/1/pkeys/0", err)
		all = append(all, dev)
	}
	return all, errors.Join(t...)
}
