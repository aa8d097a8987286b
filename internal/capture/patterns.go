package capture

import (
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/numalane/numalane/pkg/topology"
)

// What Read reads, below the sysfs. The tests hold that it is enough: every
// machine reads the same from its capture.
var (
	machinePatterns = []string{
		"devices/system/cpu/online",
		"devices/system/cpu/cpu[0-9]*",
		"devices/system/cpu/cpu[0-9]*/online",
		"devices/system/cpu/cpu[0-9]*/topology/core_id",
		"devices/system/cpu/cpu[0-9]*/topology/physical_package_id",
		"devices/system/cpu/cpu[0-9]*/cache/index[0-9]*/level",
		"devices/system/cpu/cpu[0-9]*/cache/index[0-9]*/id",
		"devices/system/cpu/cpu[0-9]*/cache/index[0-9]*/shared_cpu_list",
		"devices/system/cpu/cpu[0-9]*/cache/index[0-9]*/shared_cpu_map",
		"devices/system/node/online",
		"devices/system/node/node[0-9]*",
		"devices/system/node/node[0-9]*/cpu[0-9]*", // for ghw's account
		"devices/system/node/node[0-9]*/cpulist",
		"devices/system/node/node[0-9]*/cpumap",
		"devices/system/node/node[0-9]*/distance",
		"devices/system/node/node[0-9]*/meminfo",
		"devices/system/node/node[0-9]*/hugepages/*/nr_hugepages",
		"devices/system/node/node[0-9]*/hugepages/*/free_hugepages",
		"devices/system/node/node[0-9]*/hugepages/*/surplus_hugepages", // for ghw's account
		"bus/pci/devices",
		"bus/pci/devices/*",
		"bus/pci/devices/*/modalias",
		"bus/pci/devices/*/class",
		"bus/pci/devices/*/vendor",
		"bus/pci/devices/*/device",
		"class/misc/rdma_cm",
		"class/misc/vhost-net",
		"class/misc/tun",
		"class/uio/*",
		"bus/vdpa/devices/*",
		"bus/vdpa/devices/*/driver",
		"bus/vdpa/devices/*/vhost-vdpa-*",
		"bus/auxiliary/devices/*.sf.*",
		"bus/auxiliary/devices/*.sf.*/driver",
		"bus/auxiliary/devices/*.sf.*/sfnum",
	}

	// functionPatterns are below a PCI device of the Host.
	functionPatterns = []string{
		"driver", "iommu_group", "iommu_group/name", "numa_node", "acpi_index",
		"physfn", "virtfn[0-9]*", "sriov_totalvfs", "sriov_numvfs",
	}

	// interfacePatterns are below a function of either bus. A virtio NIC's are
	// one level down.
	interfacePatterns = []string{
		"net", "net/*", "net/*/type", "net/*/carrier", "net/*/speed", "net/*/phys_port_name",
		"infiniband/*", "infiniband/*/ports/1/pkeys/0",
		"infiniband_verbs/*/ibdev", "infiniband_mad/*/ibdev",
	}

	// mayFail are files whose reads fail on a sound machine: those of a network
	// interface that is down, or that has no port name.
	mayFail = map[string]bool{"carrier": true, "speed": true, "phys_port_name": true}
)

func patterns(host *topology.Host) []string {
	all := machinePatterns
	below := func(dir string, patterns []string) {
		for _, p := range patterns {
			all = append(all[:len(all):len(all)], dir+"/"+p)
		}
	}
	for i := range host.Devices {
		dir := "bus/pci/devices/" + host.Devices[i].Address.String()
		below(dir, functionPatterns)
		below(dir, interfacePatterns)
		below(dir+"/virtio[0-9]*", interfacePatterns)
	}
	below("bus/auxiliary/devices/*.sf.*", interfacePatterns)
	return all
}

// match lists what of the sysfs a pattern names.
func (m *machine) match(pattern string) []string {
	found := []string{"."}
	for segment := range strings.SplitSeq(pattern, "/") {
		var next []string
		for _, dir := range found {
			next = append(next, m.step(dir, segment)...)
		}
		found = next
	}
	return found
}

func (m *machine) step(dir, segment string) []string {
	if !strings.ContainsAny(segment, "*[") {
		name := filepath.Join(dir, segment)
		if _, err := os.Lstat(filepath.Join(m.sys, name)); err != nil {
			return nil
		}
		return []string{name}
	}
	entries, err := os.ReadDir(filepath.Join(m.sys, dir))
	if err != nil {
		return nil // not there, or no folder: Read will tell
	}
	var found []string
	for _, e := range entries {
		if ok, err := path.Match(segment, e.Name()); err == nil && ok {
			found = append(found, filepath.Join(dir, e.Name()))
		}
	}
	return found
}
