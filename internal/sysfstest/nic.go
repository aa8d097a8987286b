package sysfstest

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/numalane/numalane/pkg/topology"
)

// NIC is one PCI network function, or an accelerator, and its VFs. The functions named after a
// model fill it as that model shows itself.
type NIC struct {
	Address  string
	NUMANode int    // -1: it does not say
	Netdev   string // by default after the address, as systemd does: enp59s0f0
	Speed    int    // Mbit/s
	Down     bool   // no carrier

	Vendor, Device, Driver string // hexadecimal, four digits
	Subsystem              [2]string
	Class                  string // six digits, 020000 when empty; an accelerator's has no netdevs
	RDMA                   bool   // has an infiniband device, as have its VFs
	InfiniBand             bool   // its network interfaces are of that link type
	PKey                   string // entry 0 of the partition table, 0xffff when empty
	ACPIIndex              string
	// Bridges are the PCI bridges above it, from the root port down. By default
	// it is a root port on the bus before.
	Bridges []string
	// Subfunctions are the sfnums of its subfunctions on the auxiliary bus.
	Subfunctions []int
	// Switchdev gives the PF a representor for each VF among its netdevs.
	Switchdev bool

	VFs                int
	TotalVFs           int // 0: no SR-IOV capability
	VFDevice, VFDriver string
	VFOffset, VFStride int // of function 0
	// VFsOnVFIO are the indexes of VFs that are bound to vfio-pci.
	VFsOnVFIO []int
}

// X710 is a port of an Intel Ethernet Controller X710.
func X710(address string, numaNode, vfs int) NIC {
	return NIC{
		Address: address, NUMANode: numaNode, Speed: 10000,
		Vendor: "8086", Device: "1572", Driver: "i40e", Subsystem: [2]string{"8086", "0008"},
		VFs: vfs, TotalVFs: 64, VFDevice: "154c", VFDriver: "iavf", VFOffset: 16, VFStride: 1,
	}
}

// Intel82599 is a port of an Intel 82599ES.
func Intel82599(address string, numaNode, vfs int) NIC {
	return NIC{
		Address: address, NUMANode: numaNode, Speed: 10000,
		Vendor: "8086", Device: "10fb", Driver: "ixgbe", Subsystem: [2]string{"8086", "7a11"},
		VFs: vfs, TotalVFs: 63, VFDevice: "10ed", VFDriver: "ixgbevf", VFOffset: 128, VFStride: 2,
	}
}

// E810 is a port of an Intel Ethernet Controller E810-C.
func E810(address string, numaNode, vfs int) NIC {
	return NIC{
		Address: address, NUMANode: numaNode, Speed: 100000,
		Vendor: "8086", Device: "1592", Driver: "ice", Subsystem: [2]string{"8086", "0002"},
		VFs: vfs, TotalVFs: 128, VFDevice: "1889", VFDriver: "iavf", VFOffset: 8, VFStride: 1,
	}
}

// ConnectX4Lx is a port of a Mellanox MT27710, with RDMA.
func ConnectX4Lx(address string, numaNode, vfs int) NIC {
	return NIC{
		Address: address, NUMANode: numaNode, Speed: 25000, RDMA: true,
		Vendor: "15b3", Device: "1015", Driver: "mlx5_core", Subsystem: [2]string{"15b3", "0003"},
		VFs: vfs, TotalVFs: 64, VFDevice: "1016", VFDriver: "mlx5_core", VFOffset: 2, VFStride: 1,
	}
}

// ConnectX5 is a port of a Mellanox MT27800, with RDMA.
func ConnectX5(address string, numaNode, vfs int) NIC {
	return NIC{
		Address: address, NUMANode: numaNode, Speed: 100000, RDMA: true,
		Vendor: "15b3", Device: "1017", Driver: "mlx5_core", Subsystem: [2]string{"15b3", "0007"},
		VFs: vfs, TotalVFs: 64, VFDevice: "1018", VFDriver: "mlx5_core", VFOffset: 2, VFStride: 1,
	}
}

// ConnectX6 is an InfiniBand port of a Mellanox MT28908.
func ConnectX6(address string, numaNode, vfs int) NIC {
	return NIC{
		Address: address, NUMANode: numaNode, Speed: 200000, RDMA: true, InfiniBand: true,
		Vendor: "15b3", Device: "101b", Driver: "mlx5_core", Subsystem: [2]string{"15b3", "0006"}, Class: "020700",
		VFs: vfs, TotalVFs: 16, VFDevice: "101c", VFDriver: "mlx5_core", VFOffset: 1, VFStride: 1,
	}
}

// ACC100 is an Intel FEC accelerator.
func ACC100(address string, numaNode, vfs int) NIC {
	return NIC{
		Address: address, NUMANode: numaNode, Class: "120001",
		Vendor: "8086", Device: "0d5c", Driver: "igb_uio", Subsystem: [2]string{"8086", "0000"},
		VFs: vfs, TotalVFs: 16, VFDevice: "0d5d", VFDriver: "vfio-pci", VFOffset: 16, VFStride: 1,
	}
}

// ENA is an Elastic Network Adapter of a virtual machine: a VF whose PF is not
// to be seen, and that does not say its speed.
func ENA(address string, numaNode int) NIC {
	return NIC{
		Address: address, NUMANode: numaNode,
		Vendor: "1d0f", Device: "ec20", Driver: "ena", Subsystem: [2]string{"1d0f", "ec20"},
	}
}

// VFAddress is the address of VF number i, which need not exist.
func (n NIC) VFAddress(i int) (topology.Address, error) {
	pf, err := topology.ParseAddress(n.Address)
	if err != nil {
		return pf, err
	}
	// The functions of one card share its bus: each starts its VFs where
	// those of the function before it end, unless they interleave.
	first := n.VFOffset
	if n.VFStride == 1 {
		first += int(pf.Function) * (n.TotalVFs - 1)
	}
	rid := routingID(pf) + first + i*n.VFStride
	if rid>>16 != 0 {
		return pf, fmt.Errorf("NIC %s: VF %d is beyond the last bus", n.Address, i)
	}
	return topology.Address{Domain: pf.Domain, Bus: uint8(rid >> 8), Device: uint8(rid >> 3 & 31), Function: uint8(rid & 7)}, nil
}

func routingID(a topology.Address) int {
	return int(a.Bus)<<8 | int(a.Device)<<3 | int(a.Function)
}

// addresses are those of the PF and its VFs.
func (n NIC) addresses() ([]topology.Address, error) {
	pf, err := topology.ParseAddress(n.Address)
	if err != nil {
		return nil, err
	}
	if n.VFs < 0 || n.VFs > n.TotalVFs {
		return nil, fmt.Errorf("NIC %s: %d VFs of %d", n.Address, n.VFs, n.TotalVFs)
	}
	all := []topology.Address{pf}
	for i := range n.VFs {
		a, err := n.VFAddress(i)
		if err != nil {
			return nil, err
		}
		all = append(all, a)
	}
	return all, nil
}

// class is the PCI class of the PF and its VFs.
func (n NIC) class() string { return cmp.Or(n.Class, "020000") }

// netdev is the PF's interface name; empty for an accelerator.
func (n NIC) netdev(a topology.Address) string {
	prefix := "en"
	if n.InfiniBand {
		prefix = "ib"
	}
	switch {
	case !strings.HasPrefix(n.class(), "02"):
		return ""
	case n.Netdev != "":
		return n.Netdev
	case a.Domain != 0:
		return fmt.Sprintf("%sP%xp%ds%df%d", prefix, a.Domain, a.Bus, a.Device, a.Function)
	}
	return fmt.Sprintf("%sp%ds%df%d", prefix, a.Bus, a.Device, a.Function)
}

// rdma is the infiniband device beside an interface; none without RDMA.
func (n NIC) rdma(netdev string) string {
	switch {
	case !n.RDMA || netdev == "":
		return ""
	case n.InfiniBand:
		return netdev
	}
	return "roce" + netdev[2:]
}
