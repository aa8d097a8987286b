package machine

import (
	"fmt"

	"github.com/numalane/numalane/hack/lab/disk"
)

// kernel is the guest's command line. What costs time under emulation and
// changes nothing that the lab is for is off. The boot tells its steps on the
// console: silence there is how a boot that hangs is known.
//
// QEMU's virtual CPUs read one counter, and the kernel would not believe it of
// two sockets: with the HPET instead each look at the clock goes to QEMU. Where
// the kernel lies decides which NUMA node has less memory, and the kubelet's memory
// manager refuses to start where that is another one than before the reboot.
const kernel = "console=ttyS0 intel_iommu=on iommu=pt systemd.show_status=1 tsc=reliable nokaslr " +
	"mitigations=off lsm=yama audit=0 nowatchdog random.trust_cpu=on init_on_alloc=0"

// cpus are the virtual CPUs by accelerator. With more than 36 bits of physical
// addresses the firmware puts the BARs of VFs where the emulated card does not
// answer, and VFs never get a carrier. Where CPUs are emulated, what is told to be
// fast (rep movsb) copies byte by byte, and a fifth level of page tables, keys and
// guards of pages are work with each access.
var cpus = map[string]string{
	kvm:       "max,phys-bits=36,svm=off",
	emulation: "max,phys-bits=36,svm=off,erms=off,fsrm=off,fsrs=off,fzrm=off,fsrc=off,la57=off,pku=off,smap=off",
}

// args is QEMU's command line: two NUMA nodes, and on each a network card with
// seven VFs behind a root port of a PCI host bridge that belongs to the node.
//
// Every other PCI device names its bus, or QEMU puts it on a bridge of a node.
//
// With eim the kernel speaks to its interrupt controllers by MSRs (x2APIC). By
// memory a write may be lost while another CPU changes what lies where, as each
// enabled BAR of a VF does: a timer's interrupt is never acknowledged, and that
// CPU never gets another (seen with QEMU 10.0, emulated).
func (m *Machine) args(d disk.Disk, accel, overlay string, hostPort int) []string {
	args := []string{
		"-nodefaults", "-display", "none", "-no-reboot",
		"-machine", "q35,kernel-irqchip=split,hpet=off", "-accel", accel, "-cpu", cpus[accel],
		"-m", "6G", "-smp", "4,sockets=2,cores=2,threads=1",
		"-device", "intel-iommu,intremap=on,eim=on,caching-mode=on",
	}
	for node := range 2 {
		args = append(args,
			"-object", fmt.Sprintf("memory-backend-ram,id=m%d,size=3G", node),
			"-numa", fmt.Sprintf("node,nodeid=%d,memdev=m%d,cpus=%d-%d", node, node, node*2, node*2+1),
			"-device", fmt.Sprintf("pxb-pcie,id=pxb%d,bus_nr=%d,bus=pcie.0,numa_node=%d", node, 32+64*node, node),
			"-device", fmt.Sprintf("pcie-root-port,id=rp%d,bus=pxb%d,chassis=%d,slot=%d", node, node, node+1, node+1),
			// One hub: packets of one card's VFs reach the other's.
			"-netdev", fmt.Sprintf("hubport,id=n%d,hubid=1", node),
			"-device", fmt.Sprintf("igb,id=pf%d,bus=rp%d,netdev=n%d,mac=52:54:00:00:00:0%d", node, node, node, node+1),
		)
	}
	if m.config.Files != "" {
		args = append(args, "-drive", "file="+m.files()+",if=none,id=d1,format=raw,readonly=on", "-device", "virtio-blk-pci,drive=d1,bus=pcie.0,addr=0x1e")
	}
	return append(args,
		"-numa", "dist,src=0,dst=1,val=21",
		"-drive", "file="+overlay+",if=none,id=d0,format=qcow2,cache=unsafe", "-device", "virtio-blk-pci,drive=d0,bus=pcie.0",
		"-netdev", fmt.Sprintf("user,id=u0,hostfwd=tcp:127.0.0.1:%d-:%d", hostPort, guestPort), "-device", "virtio-net-pci,netdev=u0,bus=pcie.0",
		"-device", "virtio-rng-pci,bus=pcie.0",
		"-fsdev", "local,id=fs0,path="+m.config.Share+",security_model=none", "-device", "virtio-9p-pci,fsdev=fs0,mount_tag=share,bus=pcie.0",
		"-kernel", d.Kernel, "-initrd", d.Initrd,
		"-append", kernel,
		"-serial", m.serial())
}

func (m *Machine) serial() string {
	if m.config.Console != "" {
		return "file:" + m.config.Console
	}
	return "mon:stdio" // Ctrl-A x ends QEMU
}
