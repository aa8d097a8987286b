package topology

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/jaypipes/ghw"
	"github.com/jaypipes/ghw/pkg/pci"
	"github.com/jaypipes/pcidb"
)

// PCI base classes: network controllers (pci_ids.h, PCI_BASE_CLASS_NETWORK) and
// processing accelerators (PCI_BASE_CLASS_ACCELERATOR in pci.ids).
const (
	networkClass     = "02"
	acceleratorClass = "12"
)

// modalias is pci:v00008086d0000154Csv00008086sd00000000bc02sc00i00 (file2alias.c).
var modalias = regexp.MustCompile(`^pci:v0000(\w{4})d0000(\w{4})sv\w{8}sd\w{8}bc(\w\w)sc(\w\w)i(\w\w)`)

// devices is the PCI part of a scan.
type devices struct {
	*reader
	dir string // bus/pci/devices
	// VFs by address, as the virtfnN links of their PFs name them.
	virtfn map[Address]virtfn
	// Bridges above a folder: the VFs of a PF are in one.
	above map[string][]Address
	// Own netdevs of the devices that are no VF.
	uplink map[Address]string
	// What other buses and classes hang below devices, by their names.
	uio  map[string]string
	vdpa map[string]vdpaDevice
	// rdmaCM is whether the RDMA connection manager has its one device.
	rdmaCM bool
}

// virtfn is a PF's link to one of its VFs.
type virtfn struct {
	pf    Address
	index int
}

// ghwOptions point ghw at the same sysfs, whatever GHW_CHROOT says. It logs
// nothing: what it meets, the Host tells.
func (r *reader) ghwOptions() []any {
	return []any{
		ghw.WithChroot("/"),
		ghw.WithPathOverrides(map[string]string{"/sys": r.sys, "/proc": r.proc}),
		ghw.WithDisableTools(),
		ghw.WithLogger(slog.New(slog.DiscardHandler)),
		ghw.WithPCIDB(r.db),
	}
}

// inventory is ghw's account of the PCI devices. It is empty, without an error,
// as soon as one device has no modalias, as a VF on its way out.
func (r *reader) inventory() []*pci.Device {
	info, err := ghw.PCI(append(r.ghwOptions(), ghw.WithDisableTopology())...)
	if err != nil {
		return nil // not on Linux: a capture is decoded device by device
	}
	return info.Devices
}

// readDevices reads the PCI network devices and accelerators. The folder's own
// list, taken after the inventory, says what there is; a device that the
// inventory does not tell is decoded by itself.
func (r *reader) readDevices(inventory []*pci.Device) error {
	d := devices{
		reader: r, dir: filepath.Join(r.sys, "bus/pci/devices"),
		virtfn: map[Address]virtfn{}, above: map[string][]Address{}, uplink: map[Address]string{},
		uio: r.uioDevices(), vdpa: r.vdpaDevices(), rdmaCM: r.misc("rdma_cm"),
	}
	known := map[string]*pci.Device{}
	for _, dev := range inventory {
		known[dev.Address] = dev
	}
	entries, err := os.ReadDir(d.dir)
	if missing(err) {
		r.problem(d.dir, errors.New("no PCI bus: no device is to be seen"))
		return nil
	}
	if err != nil {
		return fmt.Errorf("list PCI devices: %w", err)
	}
	d.readAll(entries, known)
	slices.SortFunc(r.host.Devices, func(a, b Device) int { return a.Address.Compare(b.Address) })
	d.linkFunctions()
	d.readSubfunctions()
	d.checkNUMANodes()
	return nil
}

// fewest is how many devices are worth a goroutine.
const fewest = 64

// readAll reads the devices of a folder, each processor its share: a thousand
// VFs are twenty thousand system calls, and a link that goes down shall be told
// at once.
func (d *devices) readAll(entries []os.DirEntry, known map[string]*pci.Device) {
	shares := max(1, min(runtime.GOMAXPROCS(0), len(entries)/fewest))
	size := max(1, (len(entries)+shares-1)/shares)
	var parts []*devices
	var running sync.WaitGroup
	for entries := range slices.Chunk(entries, size) {
		part, own := *d, *d.reader
		part.reader, own.host = &own, Host{}
		part.virtfn, part.above, part.uplink = map[Address]virtfn{}, map[string][]Address{}, map[Address]string{}
		parts = append(parts, &part)
		running.Go(func() { part.readEach(entries, known) })
	}
	running.Wait()
	for _, part := range parts {
		d.host.Devices = append(d.host.Devices, part.host.Devices...)
		d.host.Problems = append(d.host.Problems, part.host.Problems...)
		maps.Copy(d.virtfn, part.virtfn)
		maps.Copy(d.uplink, part.uplink)
	}
}

func (d *devices) readEach(entries []os.DirEntry, known map[string]*pci.Device) {
	for _, e := range entries {
		addr, err := ParseAddress(e.Name())
		if err != nil {
			d.problem(d.dir+"/"+e.Name(), err)
			continue
		}
		d.read(addr, e.Name(), known[e.Name()])
	}
}

// read adds one device to the host when it is a network device or an accelerator.
func (d *devices) read(addr Address, name string, known *pci.Device) {
	dir := d.dir + "/" + name
	dev := Device{Address: addr, NUMANode: NoNUMANode}
	var err error
	if known != nil {
		dev.identify(known)
	} else {
		err = d.decode(dir, &dev)
	}
	if dev.Class != "" {
		if !strings.HasPrefix(dev.Class, networkClass) && !dev.Accelerator() {
			return
		}
		err = errors.Join(err, d.readFunction(dir, name, &dev))
	}
	if err != nil {
		if _, gone := os.Stat(dir); missing(gone) {
			err = errors.New("went away during the scan")
			dev.Class = ""
		}
		if dev.Class == "" {
			d.problem(dir, err)
			return
		}
		dev.addProblem(err)
	}
	d.host.Devices = append(d.host.Devices, dev)
}

// addProblem adds to what could not be read of a device.
func (dev *Device) addProblem(err error) {
	s := cause(err)
	if dev.Problem != "" {
		s = dev.Problem + "; " + s
	}
	dev.Problem = s
}

// identify takes over what ghw decoded.
func (dev *Device) identify(g *pci.Device) {
	dev.Class = g.Class.ID + g.Subclass.ID + g.ProgrammingInterface.ID
	dev.Vendor, dev.Product = g.Vendor.ID, g.Product.ID
	dev.name(g.Vendor, g.Product)
	dev.Driver, dev.IOMMUGroup = g.Driver, g.IOMMUGroup
}

func (dev *Device) name(v *pcidb.Vendor, p *pcidb.Product) {
	const unknown = "unknown" // ghw's word for what pci.ids does not list
	if v != nil && v.Name != unknown {
		dev.VendorName = v.Name
	}
	if p != nil && p.Name != unknown {
		dev.ProductName = p.Name
	}
}

// decode identifies a device by its modalias, and one that has none by its
// other files. Without a class it is not known to be a network device.
func (d *devices) decode(dir string, dev *Device) error {
	defer func() { dev.name(d.db.Vendors[dev.Vendor], d.db.Products[dev.Vendor+dev.Product]) }()
	alias, err := text(dir + "/modalias")
	if m := modalias.FindStringSubmatch(alias); m != nil {
		dev.Vendor, dev.Product = strings.ToLower(m[1]), strings.ToLower(m[2])
		dev.Class = strings.ToLower(m[3] + m[4] + m[5])
		return nil
	}
	if err == nil {
		err = fmt.Errorf("%q is not that of a PCI device", alias)
	}
	errs := []error{fileError("modalias", err)}
	for _, f := range []struct {
		name  string
		field *string
	}{{"class", &dev.Class}, {"vendor", &dev.Vendor}, {"device", &dev.Product}} {
		s, err := text(dir + "/" + f.name)
		if err != nil {
			errs = append(errs, fileError(f.name, err))
			continue
		}
		*f.field = strings.ToLower(strings.TrimPrefix(s, "0x"))
	}
	return errors.Join(errs...)
}

func fileError(file string, err error) error { return fmt.Errorf("%s: %s", file, cause(err)) }

// readFunction reads what ghw does not tell, or not reliably: the NUMA node
// (ghw's is nil for -1 and on machines of one node alike), SR-IOV, a driver
// whose folder is not there, and what hangs below the device or above it.
func (d *devices) readFunction(dir, name string, dev *Device) error {
	t := torn{}
	follow := func(link string, to *string) {
		if *to == "" {
			*to = t.follow(dir, link)
		}
	}
	follow("driver", &dev.Driver)
	follow("iommu_group", &dev.IOMMUGroup)
	if strings.Contains(dev.Driver, "vfio") && dev.IOMMUGroup != "" {
		// The groups of VFIO's own exist while its driver is bound, and have
		// this name (drivers/vfio/group.c, vfio_noiommu_group_alloc).
		group, err := text(filepath.Join(d.sys, "kernel/iommu_groups", dev.IOMMUGroup, "name"))
		t.note("iommu_group/name", err)
		dev.NoIOMMU = group == "vfio-noiommu"
	}

	node, err := number(dir + "/numa_node")
	switch {
	case err == nil:
		dev.NUMANode = max(node, NoNUMANode)
	case missing(err) && d.noNUMA:
		// The kernel has the file under CONFIG_NUMA only (pci-sysfs.c).
	default:
		t = append(t, fileError("numa_node", err))
	}

	target, err := os.Readlink(dir + "/physfn")
	if err == nil {
		dev.VF = &VirtualFunction{Index: -1}
		dev.VF.PF, err = ParseAddress(filepath.Base(target))
	} else if missing(err) {
		t = append(t, d.readPF(dir, dev))
	}
	t.note("physfn", err)

	place, err := os.Readlink(dir)
	t.note("link to its place", err)
	dev.Upstream = d.bridges(place)
	dev.ACPIIndex, err = text(dir + "/acpi_index")
	t.note("acpi_index", err)
	dev.UIO = d.uio[name]
	t = append(t, d.readInterfaces(dir, name, dev))
	return errors.Join(t...)
}

// readInterfaces reads what a function of either bus is used by.
func (d *devices) readInterfaces(dir, name string, dev *Device) error {
	t := torn{}
	var own string
	var err error
	dev.Netdevs, own, err = netdevs(dir, dev)
	t.note("net", err)
	if dev.VF == nil && own != "" {
		d.uplink[dev.Address] = own
	}
	dev.RDMA, err = d.rdmaDevices(dir)
	t = append(t, err)
	if v, ok := d.vdpa[name]; ok {
		dev.VDPA = &v.VDPADevice
		t = append(t, v.err)
	}
	return errors.Join(t...)
}

// torn gathers what of a device is there and could not be read.
type torn []error

func (t *torn) note(file string, err error) {
	if err != nil && !missing(err) {
		*t = append(*t, fileError(file, err))
	}
}

// follow is the name of what a link leads to; empty without the link.
func (t *torn) follow(dir, link string) string {
	target, err := os.Readlink(dir + "/" + link)
	t.note(link, err)
	if err != nil {
		return ""
	}
	return filepath.Base(target)
}

// bridges are the PCI functions that a device sits below, the nearest first,
// by its place in the tree: ../../../devices/pci0000:3a/0000:3a:00.0/0000:3b:00.0.
// A VF's parent is that of its PF (drivers/pci/iov.c, pci_iov_add_virtfn).
func (d *devices) bridges(place string) []Address {
	parent := filepath.Dir(place)
	above, known := d.above[parent]
	if known {
		return above
	}
	defer func() { d.above[parent] = above }()
	for dir := parent; filepath.Dir(dir) != dir; dir = filepath.Dir(dir) {
		if a, ok := parseAddress(filepath.Base(dir)); ok {
			above = append(above, a)
		}
	}
	return above
}

// checkNUMANodes notes the NUMA nodes that devices name and that the machine
// does not have, once each. The numbers stay with the devices.
func (d *devices) checkNUMANodes() {
	told := map[int]bool{NoNUMANode: true}
	for _, n := range d.host.NUMANodes {
		told[n.ID] = true
	}
	for i := range d.host.Devices {
		dev := &d.host.Devices[i]
		if !told[dev.NUMANode] {
			told[dev.NUMANode] = true
			d.problem(filepath.Join(d.dir, dev.Address.String(), "numa_node"),
				fmt.Errorf("NUMA node %d is not among the machine's", dev.NUMANode))
		}
	}
}
