// Package v1alpha1 is numalane's own format of a pool configuration: the types,
// their JSON schema, and an example with all defaults.
//
// It is what the format looks like, and no more: internal/config reads a file
// of it, which tells places that decoding into these types would lose, and
// makes these types of any configuration. The schema is made from the types and
// their comments, and a test holds it.
package v1alpha1

import _ "embed" // the schema and the example

// APIVersion and Kind are what a file begins with.
const (
	APIVersion = "numalane.io/v1alpha1"
	Kind       = "PoolConfiguration"
)

// Schema is the JSON schema of a PoolConfiguration.
//
//go:embed schema.json
var Schema []byte

// Defaults is a PoolConfiguration that says all defaults and explains each key.
//
//go:embed defaults.yaml
var Defaults []byte

// PoolConfiguration says which devices of a node are advertised to the kubelet,
// and under which names.
type PoolConfiguration struct {
	// Always numalane.io/v1alpha1.
	APIVersion string `json:"apiVersion"`
	// Always PoolConfiguration.
	Kind string `json:"kind"`
	// The resources, in this order: a device belongs to the first pool that has a
	// selector for it. None is allowed: then nothing is advertised.
	Pools []Pool `json:"pools"`
}

// Pool is a resource and the rule for its devices.
type Pool struct {
	// What pods ask for, prefix and name: example.com/sriov.
	Resource string `json:"resource"`
	// What the pool is made of: netDevice (PCI class 02, the default), accelerator
	// (PCI class 12) or auxNetDevice (subfunctions of network devices).
	DeviceType string `json:"deviceType,omitempty"`
	// Tell the kubelet no NUMA nodes, so that it does not align this pool. Default
	// false.
	ExcludeTopology bool `json:"excludeTopology,omitempty"`
	// Which of the devices that are equal as to NUMA nodes a pod gets: packed (fill
	// one PF before the next, the default), spread (over as many PFs as there are)
	// or paired (from two PFs, for redundancy).
	AllocationPolicy string `json:"allocationPolicy,omitempty"`
	// What makes a device unhealthy besides being gone or without a driver.
	Health *Health `json:"health,omitempty"`
	// Words for the pods that get a device, by key, in the variable
	// PCIDEVICE_..._INFO: those of "*" for every device, and those of a PCI address
	// or a subfunction's name for that one, which win.
	AdditionalInfo map[string]map[string]string `json:"additionalInfo,omitempty"`
	// Rules for devices: one that meets any of them is in the pool, with what the
	// first it meets asks to be handed out.
	Selectors []Selector `json:"selectors"`
}

// Health is what makes a device unhealthy besides being gone or without a
// driver.
type Health struct {
	// Free devices are unhealthy while their PF has no carrier. Default true;
	// accelerators have no link.
	Link *bool `json:"link,omitempty"`
	// How long a link must have been up, or down, to count: 5s by default.
	HoldDown string `json:"holdDown,omitempty"`
}

// Selector is a rule for devices: every key that is given has to hold, with
// any of its entries. One without keys takes every device of the type.
type Selector struct {
	// PCI vendor ids, four hexadecimal digits: 8086.
	Vendors []string `json:"vendors,omitempty"`
	// PCI device ids, of a VF its own and not its PF's: 154c.
	Devices []string `json:"devices,omitempty"`
	// Names of the bound driver: iavf. Of a subfunction its parent's.
	Drivers []string `json:"drivers,omitempty"`
	// PCI addresses: 0000:3b:02.0. Not for auxNetDevice.
	PCIAddresses []string `json:"pciAddresses,omitempty"`
	// The firmware's indexes of devices, the content of acpi_index.
	ACPIIndexes []string `json:"acpiIndexes,omitempty"`
	// Network interfaces of PFs, with VF indexes if wanted: ens1f0, ens1f0#0-3,5. A
	// device that is no VF counts as its own PF, and of a subfunction the index is
	// its sfnum. Not for accelerator.
	PFNames []string `json:"pfNames,omitempty"`
	// The same with the PF's PCI address: 0000:3b:00.0#0-3. Not for accelerator.
	RootDevices []string `json:"rootDevices,omitempty"`
	// ether or infiniband, of the device's own network interface, or of its PF's
	// where it has none. Not for accelerator.
	LinkTypes []string `json:"linkTypes,omitempty"`
	// Names of the DDP package that is loaded, as devlink tells (fw.app.name). Only
	// for netDevice.
	DDPProfiles []string `json:"ddpProfiles,omitempty"`
	// The first P_Key of an InfiniBand device: 0x8001. Only for netDevice.
	PKeys []string `json:"pKeys,omitempty"`
	// Types of subfunctions; there is one: sf. Only for auxNetDevice, which needs
	// it.
	AuxTypes []string `json:"auxTypes,omitempty"`
	// Only devices that can do RDMA, and hand out their character devices. Not for
	// accelerator.
	RDMA bool `json:"rdma,omitempty"`
	// Only devices with a vDPA device of this type: vhost (which is handed out) or
	// virtio. Only for netDevice, and not with rdma.
	VDPA string `json:"vdpa,omitempty"`
	// Hand out /dev/vhost-net and /dev/net/tun; it selects nothing. Not for
	// accelerator.
	VhostNet bool `json:"vhostNet,omitempty"`
}
