package inventory

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/numalane/numalane/pkg/topology"
)

// fakeDevlink answers for the devices that it has, and notes what it is asked.
type fakeDevlink struct {
	ddp   map[string]string // by bus/name, of devices that devlink knows
	rdma  map[string]bool
	err   error
	asked []string
}

func (f *fakeDevlink) instances() (map[handle]bool, error) {
	known := map[handle]bool{}
	for at := range f.ddp {
		bus, name, _ := strings.Cut(at, "/")
		known[handle{bus, name}] = true
	}
	return known, f.err
}

func (f *fakeDevlink) info(at handle) (map[string]string, error) {
	f.asked = append(f.asked, "info "+at.bus+"/"+at.name)
	return map[string]string{"driver": "ice", ddpKey: f.ddp[at.bus+"/"+at.name]}, f.err
}

func (f *fakeDevlink) enableRDMA(at handle) (bool, error) {
	f.asked = append(f.asked, "enable_rdma "+at.bus+"/"+at.name)
	return f.rdma[at.bus+"/"+at.name], f.err
}

func TestDevlinkFacts(t *testing.T) {
	pf, vf := topology.Address{Bus: 0x3b}, topology.Address{Bus: 0x3b, Device: 1}
	other := topology.Address{Bus: 0x5e}
	machine := func() *topology.Host {
		return &topology.Host{
			Devices: []topology.Device{
				{Address: pf, Driver: "ice", RDMA: []topology.RDMADevice{{Name: "rocep59s0"}}},
				{Address: vf, Driver: "iavf", VF: &topology.VirtualFunction{PF: pf}},
				{Address: other, Driver: "ena"},
			},
			Subfunctions: []topology.Device{{Address: pf, Driver: "ice", Aux: &topology.AuxiliaryDevice{Name: "ice.sf.1", Driver: "ice.sf"}}},
		}
	}
	type facts struct {
		Profile string
		Capable bool
	}
	f := &fakeDevlink{
		ddp:  map[string]string{"pci/0000:3b:00.0": "ICE COMMS Package", "pci/0000:3b:01.0": "", "auxiliary/ice.sf.1": ""},
		rdma: map[string]bool{"pci/0000:3b:01.0": true},
	}
	var log bytes.Buffer
	d := newDevlinkFacts(f, slog.New(slog.NewTextHandler(&log, nil)))
	step := func(what string, h *topology.Host, want []facts, asked ...string) {
		t.Helper()
		f.asked = nil
		d.add(h)
		var got []facts
		networkDevices(h, func(d *topology.Device) { got = append(got, facts{d.DDPProfile, d.RDMACapable}) })
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
		slices.Sort(f.asked)
		if diff := cmp.Diff(asked, f.asked); diff != "" {
			t.Errorf("%s: asked (-want +got):\n%s", what, diff)
		}
	}

	all := []facts{{"ICE COMMS Package", false}, {"ICE COMMS Package", true}, {}, {"ICE COMMS Package", false}}
	step("at first", machine(), all, "enable_rdma auxiliary/ice.sf.1", "enable_rdma pci/0000:3b:01.0", "info pci/0000:3b:00.0")
	step("the next scan asks nothing", machine(), all)

	rebound := machine()
	rebound.Devices[1].Driver = "mlx5_core"
	f.rdma["pci/0000:3b:01.0"] = false
	step("another driver is asked", rebound, []facts{{"ICE COMMS Package", false}, {"ICE COMMS Package", false}, {}, {"ICE COMMS Package", false}},
		"enable_rdma pci/0000:3b:01.0")

	profile := f.ddp["pci/0000:3b:00.0"]
	delete(f.ddp, "pci/0000:3b:00.0")
	step("devlink has let go of it", rebound, make([]facts, 4))
	f.ddp["pci/0000:3b:00.0"] = profile + " 2"
	f.err = errors.New("device is busy")
	step("no answer is none to keep", rebound, make([]facts, 4), "info pci/0000:3b:00.0")
	step("it is asked again", rebound, make([]facts, 4), "info pci/0000:3b:00.0")
	if n := strings.Count(log.String(), "0000:3b:00.0: device is busy"); n != 1 {
		t.Errorf("what does not answer is logged %d times, want 1:\n%s", n, &log)
	}
	f.err = nil
	step("it answers again", rebound, []facts{{profile + " 2", false}, {profile + " 2", false}, {}, {profile + " 2", false}}, "info pci/0000:3b:00.0")
	f.err = fmt.Errorf("devlink is gone")
	step("the last answers stand", rebound, []facts{{profile + " 2", false}, {profile + " 2", false}, {}, {profile + " 2", false}})
}

// TestDevlinkOfThisKernel: a kernel without devlink, and devices that it does
// not know, have nothing to tell, and that is no error.
func TestDevlinkOfThisKernel(t *testing.T) {
	known, err := kernelDevlink{}.instances()
	if err != nil {
		t.Fatalf("instances: %v", err)
	}
	nowhere := handle{"pci", "ffff:ff:1f.7"}
	if known[nowhere] {
		t.Errorf("devlink knows %v", nowhere)
	}
	if info, err := (kernelDevlink{}).info(nowhere); err != nil || len(info) > 0 {
		t.Errorf("info is %v, %v, want none", info, err)
	}
	if on, err := (kernelDevlink{}).enableRDMA(nowhere); err != nil || on {
		t.Errorf("enable_rdma is %v, %v, want false", on, err)
	}
	for at := range known {
		if at.bus == "" || at.name == "" {
			t.Errorf("a device without a name: %+v", at)
		}
		if _, err := (kernelDevlink{}).enableRDMA(at); err != nil {
			t.Errorf("enable_rdma of %v: %v", at, err)
		}
	}
}
