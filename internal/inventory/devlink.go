package inventory

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/numalane/numalane/pkg/topology"
)

// devlink asks the kernel.
type devlink interface {
	// instances are the devices that devlink knows.
	instances() (map[handle]bool, error)
	// info is what a driver tells of its device: `devlink dev info`. Some ask
	// the device's firmware for it.
	info(handle) (map[string]string, error)
	// enableRDMA is the parameter of that name; false without it.
	enableRDMA(handle) (bool, error)
}

// handle names a device as devlink does.
type handle struct{ bus, name string }

func handleOf(d *topology.Device) handle {
	if d.Aux != nil {
		return handle{"auxiliary", d.Aux.Name}
	}
	return handle{"pci", d.Address.String()}
}

// devlinkFacts remember what a device was asked. It is asked again when its
// driver has let it go: then its devlink instance goes too.
type devlinkFacts struct {
	devlink
	ddp, rdma map[handle]answer
	told      novelty
	log       *slog.Logger
}

// answer is one by a driver.
type answer struct {
	driver  string
	profile string
	capable bool
}

func newDevlinkFacts(d devlink, log *slog.Logger) *devlinkFacts {
	return &devlinkFacts{devlink: d, ddp: map[handle]answer{}, rdma: map[handle]answer{}, told: novelty{}, log: log}
}

// ddpKey holds the name of the package that was loaded into the device
// (Documentation/networking/devlink/devlink-info.rst).
const ddpKey = "fw.app.name"

// add writes down what devlink tells. Where it cannot be asked, the last
// answers stay.
func (f *devlinkFacts) add(h *topology.Host) {
	known, err := f.instances()
	if err != nil {
		f.tell("devlink's devices cannot be listed, what they told last stands", err)
	} else {
		for _, answers := range []map[handle]answer{f.ddp, f.rdma} {
			for at := range answers {
				if !known[at] {
					delete(answers, at)
				}
			}
		}
	}
	profiles := map[topology.Address]string{}
	networkDevices(h, func(d *topology.Device) {
		if d.VF == nil && d.Aux == nil {
			d.DDPProfile = f.ask(f.ddp, known, d, func(at handle, a *answer) error {
				info, err := f.info(at)
				a.profile = info[ddpKey]
				return err
			}).profile
			profiles[d.Address] = d.DDPProfile
		}
		// One that has RDMA devices has told all there is to know.
		if len(d.RDMA) > 0 {
			delete(f.rdma, handleOf(d))
			return
		}
		d.RDMACapable = f.ask(f.rdma, known, d, func(at handle, a *answer) (err error) {
			a.capable, err = f.enableRDMA(at)
			return err
		}).capable
	})
	// A package is loaded into the whole card: a VF's is that of its PF.
	networkDevices(h, func(d *topology.Device) {
		switch {
		case d.VF != nil:
			d.DDPProfile = profiles[d.VF.PF]
		case d.Aux != nil:
			d.DDPProfile = profiles[d.Address]
		}
	})
}

// ask asks a device that devlink knows and that has not answered yet.
func (f *devlinkFacts) ask(answers map[handle]answer, known map[handle]bool, d *topology.Device, question func(handle, *answer) error) answer {
	at, driver := handleOf(d), d.Driver
	if d.Aux != nil {
		driver = d.Aux.Driver
	}
	last, answered := answers[at]
	if answered && last.driver == driver || !known[at] {
		return last
	}
	a := answer{driver: driver}
	if err := question(at, &a); err != nil {
		f.tell("devlink does not answer, will ask again", fmt.Errorf("%s/%s: %w", at.bus, at.name, err))
		return last
	}
	answers[at] = a
	return a
}

func (f *devlinkFacts) tell(what string, err error) {
	f.log.Log(context.Background(), f.told.level(err), what, "err", err)
}

// kernelDevlink is the real one.
type kernelDevlink struct{}

// instances lists names alone: the package's own list asks each device for its
// eswitch as well.
func (kernelDevlink) instances() (map[handle]bool, error) {
	family, err := netlink.GenlFamilyGet(nl.GENL_DEVLINK_NAME)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil // a kernel without devlink, or without a driver that has it
	}
	if err != nil {
		return nil, fmt.Errorf("find devlink: %w", err)
	}
	known := map[handle]bool{}
	err = uninterrupted(func() error {
		clear(known)
		req := nl.NewNetlinkRequest(int(family.ID), unix.NLM_F_DUMP)
		req.AddData(&nl.Genlmsg{Command: nl.DEVLINK_CMD_GET, Version: nl.GENL_DEVLINK_VERSION})
		msgs, err := req.Execute(unix.NETLINK_GENERIC, 0)
		if err != nil {
			return err
		}
		for _, m := range msgs {
			if len(m) < nl.SizeofGenlmsg {
				return fmt.Errorf("message of %d bytes", len(m))
			}
			attrs, err := nl.ParseRouteAttrAsMap(m[nl.SizeofGenlmsg:])
			if err != nil {
				return fmt.Errorf("decode: %w", err)
			}
			known[handle{
				unix.ByteSliceToString(attrs[nl.DEVLINK_ATTR_BUS_NAME].Value),
				unix.ByteSliceToString(attrs[nl.DEVLINK_ATTR_DEV_NAME].Value),
			}] = true
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list devlink's devices: %w", err)
	}
	return known, nil
}

func (kernelDevlink) info(at handle) (map[string]string, error) {
	info, err := netlink.DevlinkGetDeviceInfoByNameAsMap(at.bus, at.name)
	if silent(err) {
		return nil, nil
	}
	return info, err
}

func (kernelDevlink) enableRDMA(at handle) (bool, error) {
	p, err := netlink.DevlinkGetDeviceParamByName(at.bus, at.name, "enable_rdma")
	if silent(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	for _, v := range p.Values {
		if on, ok := v.Data.(bool); ok && on {
			return true, nil
		}
	}
	return false, nil
}

// silent tells a driver that does not know what it is asked (net/devlink:
// EOPNOTSUPP for info, EINVAL for a parameter), or has just gone.
func silent(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT)
}
