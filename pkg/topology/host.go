package topology

import (
	"fmt"
	"strconv"
	"strings"

	"k8s.io/utils/cpuset"
)

// NoNUMANode is the NUMA node of a device that does not say where it sits:
// numa_node reads -1, or does not exist.
const NoNUMANode = -1

// Host is one machine as its sysfs tells it. It is not changed after Read.
type Host struct {
	NUMANodes []NUMANode `json:"numaNodes"` // by ID
	CPUs      []CPU      `json:"cpus"`      // by ID, offline ones too
	Devices   []Device   `json:"devices"`   // PCI network devices and accelerators, by address
	// Subfunctions are network devices on the auxiliary bus, by Aux.Name.
	Subfunctions []Device `json:"subfunctions,omitempty"`
	// VhostNet is whether both /dev/vhost-net and /dev/net/tun can be had.
	VhostNet bool      `json:"vhostNet,omitempty"`
	Problems []Problem `json:"problems,omitempty"` // what could not be read
}

// NUMANode is one /sys/devices/system/node/nodeN. Ids may be sparse, and a
// node may have no CPUs (CXL, HBM, GPU memory) or no memory.
type NUMANode struct {
	ID        int         `json:"id"`
	CPUs      CPUSet      `json:"cpus"`                // online ones
	Distances map[int]int `json:"distances,omitempty"` // SLIT, by NUMA id and not by position
	Memory    uint64      `json:"memory"`              // MemTotal, bytes
	Hugepages []Hugepages `json:"hugepages,omitempty"` // by size
}

// Hugepages are the pages of one size on one NUMA node.
type Hugepages struct {
	Size  uint64 `json:"size"`  // bytes a page
	Total uint64 `json:"total"` // pages
	Free  uint64 `json:"free"`  // pages
}

// CPU is one hardware thread.
type CPU struct {
	ID       int  `json:"id"`
	Online   bool `json:"online"`
	NUMANode int  `json:"numaNode"` // NoNUMANode when no node lists it
	// Socket, Core, Threads and CacheID are -1 or empty for an offline CPU:
	// the kernel takes its topology folder away.
	Socket  int    `json:"socket"`
	Core    int    `json:"core"`             // the lowest CPU id of its core, as the kubelet numbers cores
	Threads CPUSet `json:"threads,omitzero"` // online threads of its core
	// CacheID is the uncore cache as the kubelet counts it: the id of the L3
	// cache when it is not exactly that of the NUMA node, else the socket.
	CacheID int `json:"cacheID"`
}

// Device is one PCI network device (class 0x02): a PF, a VF, or a NIC that is
// neither, such as an ENA in a virtual machine whose PF is not to be seen. Or
// it is a processing accelerator (class 0x12), a PF or a VF as well.
//
// Or it is a subfunction: then Aux is set, and Address, Class, Vendor, Product,
// Driver, NUMANode, Upstream and VF are those of its PCI parent. VF is never
// nil for it: where the parent is no VF, VF.PF is the parent itself and
// VF.PFName the parent's own netdev, with Index -1. So the PF of any function
// is VF.PF and VF.PFName; the number that a subfunction is selected by is
// Aux.SFNum. Netdevs, RDMA and VDPA are its own.
type Device struct {
	Address     Address `json:"address"`
	Class       string  `json:"class"`  // six hex digits: 020000
	Vendor      string  `json:"vendor"` // four hex digits, lower case: 8086
	Product     string  `json:"device"` // four hex digits, lower case: 154c
	VendorName  string  `json:"vendorName,omitempty"`
	ProductName string  `json:"deviceName,omitempty"`
	Driver      string  `json:"driver,omitempty"`
	NUMANode    int     `json:"numaNode"`
	IOMMUGroup  string  `json:"iommuGroup,omitempty"`
	// Netdevs are empty while the netdev sits in another network namespace,
	// as that of an allocated VF does, or while a userspace driver is bound.
	Netdevs []Netdev     `json:"netdevs,omitempty"`
	RDMA    []RDMADevice `json:"rdma,omitempty"`
	// RDMACapable is set for a device that lost its RDMA devices to a pod's
	// network namespace and can have them: devlink's enable_rdma.
	RDMACapable bool        `json:"rdmaCapable,omitempty"`
	ACPIIndex   string      `json:"acpiIndex,omitempty"`
	UIO         string      `json:"uio,omitempty"`     // uio0, while a uio driver is bound
	NoIOMMU     bool        `json:"noIOMMU,omitempty"` // IOMMUGroup is VFIO's own, without an IOMMU behind it
	VDPA        *VDPADevice `json:"vdpa,omitempty"`
	DDPProfile  string      `json:"ddpProfile,omitempty"` // devlink's fw.app.name
	// Upstream are the PCI bridges above the device, the nearest first.
	Upstream []Address        `json:"upstream,omitempty"`
	Aux      *AuxiliaryDevice `json:"aux,omitempty"`
	// Uplink says how the node itself needs this device for its way out, as
	// "IPv4 default route by bond0"; empty: it does not.
	Uplink string `json:"uplink,omitempty"`

	PF *PhysicalFunction `json:"pf,omitempty"` // set when the device can have VFs
	VF *VirtualFunction  `json:"vf,omitempty"` // set when the device has a physfn link

	// Problem names what could not be read of this device; empty when all
	// could. A device with a problem is never advertised as healthy.
	Problem string `json:"problem,omitempty"`
}

// Netdev is a network interface of a device.
type Netdev struct {
	Name  string `json:"name"`
	Type  string `json:"type,omitempty"`  // ether, infiniband; empty: another
	Up    bool   `json:"up"`              // carrier
	Speed int    `json:"speed,omitempty"` // Mbit/s, 0 when the link does not tell
}

// RDMADevice is an infiniband device.
type RDMADevice struct {
	Name string `json:"name"` // mlx5_0
	// CharDevices are the names below /dev/infiniband, sorted: issm0, umad0, uverbs0.
	CharDevices []string `json:"charDevices,omitempty"`
	PKey        string   `json:"pKey,omitempty"` // entry 0 of port 1: 0xffff
}

// VDPADevice is the vDPA device of a VF.
type VDPADevice struct {
	Name   string `json:"name"`             // vdpa0
	Driver string `json:"driver,omitempty"` // vhost_vdpa, virtio_vdpa
	// CharDevice is the name below /dev, vhost-vdpa-0, with vhost_vdpa.
	CharDevice string `json:"charDevice,omitempty"`
}

// AuxiliaryDevice is what a subfunction is on the auxiliary bus.
type AuxiliaryDevice struct {
	Name   string `json:"name"`             // mlx5_core.sf.4
	Type   string `json:"type"`             // the middle of the name: sf
	SFNum  int    `json:"sfnum"`            // the user's number; -1: it has none
	Driver string `json:"driver,omitempty"` // mlx5_core.sf
}

// ID is what the kubelet and the pod call the device: the PCI address, of a
// subfunction the name.
func (dev *Device) ID() string {
	if dev.Aux != nil {
		return dev.Aux.Name
	}
	return dev.Address.String()
}

// Accelerator tells a processing accelerator from a network device.
func (dev *Device) Accelerator() bool { return strings.HasPrefix(dev.Class, acceleratorClass) }

// PhysicalFunction is the SR-IOV capability of a PF.
type PhysicalFunction struct {
	TotalVFs int       `json:"totalVFs"` // sriov_totalvfs
	NumVFs   int       `json:"numVFs"`   // virtfn links
	VFs      []Address `json:"vfs,omitempty"`
}

// VirtualFunction links a VF to its PF.
type VirtualFunction struct {
	PF     Address `json:"pf"`
	PFName string  `json:"pfName,omitempty"` // the PF's own netdev, in switchdev mode its uplink
	Index  int     `json:"index"`            // N of the PF's virtfnN link; -1 when no link points here
}

// Problem is something of the machine that could not be read.
type Problem struct {
	Path string `json:"path"`
	Text string `json:"text"`
}

// Device finds a device by its address.
func (h *Host) Device(a Address) (*Device, bool) {
	for i := range h.Devices {
		if h.Devices[i].Address == a {
			return &h.Devices[i], true
		}
	}
	return nil, false
}

// CPUSet is a cpuset that travels as the kernel's list form, "0-3,8".
type CPUSet struct{ cpuset.CPUSet }

// NewCPUSet is the set of these CPUs.
func NewCPUSet(cpus ...int) CPUSet { return CPUSet{cpuset.New(cpus...)} }

// maxCPUs bounds the ids and the length of a CPU list, well above the 8,192 of
// the largest kernels, so that a list from elsewhere cannot fill the memory.
const maxCPUs = 1 << 16

// ParseCPUSet reads the kernel's list form, "0-3,8". An empty list is an empty set.
func ParseCPUSet(s string) (CPUSet, error) {
	if s == "" {
		return CPUSet{}, nil
	}
	var ids []int
	for part := range strings.SplitSeq(s, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		lo, errLo := strconv.ParseUint(first, 10, 31)
		hi, errHi := strconv.ParseUint(last, 10, 31)
		if errLo != nil || errHi != nil || lo > hi {
			return CPUSet{}, fmt.Errorf("CPU list %.40q: %.40q is not an id or a range of ids", s, part)
		}
		if hi >= maxCPUs || len(ids)+int(hi-lo) >= maxCPUs {
			return CPUSet{}, fmt.Errorf("CPU list %.40q: more than %d CPUs", s, maxCPUs)
		}
		for id := lo; id <= hi; id++ {
			ids = append(ids, int(id))
		}
	}
	return NewCPUSet(ids...), nil
}

// MarshalText is the list form.
func (c CPUSet) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText is ParseCPUSet.
func (c *CPUSet) UnmarshalText(b []byte) error {
	p, err := ParseCPUSet(string(b))
	if err != nil {
		return err
	}
	*c = p
	return nil
}

// Equal compares members, also for go-cmp. (cpuset's Equals tells the zero
// value from another empty set.)
func (c CPUSet) Equal(o CPUSet) bool { return c.Size() == o.Size() && c.IsSubsetOf(o.CPUSet) }

// IsZero tells the empty set, for omitzero.
func (c CPUSet) IsZero() bool { return c.IsEmpty() }
