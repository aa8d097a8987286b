package oracle

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"

	"github.com/numalane/numalane/e2e/cadvisor"
	"github.com/numalane/numalane/internal/sysfstest"
	"github.com/numalane/numalane/pkg/topology"
)

// tree is a scenario's machine on disk, read once by each side.
type tree struct {
	root     string
	machine  sysfstest.Machine
	packages map[int]int
	bridges  map[string][]topology.Address

	info json.RawMessage // cAdvisor's MachineInfo
	host *topology.Host
	// drivers are those of the devices that have lost theirs since.
	drivers map[string]string
}

// writeTree makes the machine of a scenario below root, which must not exist.
func writeTree(root string, s *Scenario) (*tree, error) {
	t := &tree{root: root, machine: s.Machine, packages: s.Packages, bridges: s.Bridges}
	if err := s.Machine.Write(root); err != nil {
		return nil, err
	}
	if err := t.movePackages(); err != nil {
		return nil, fmt.Errorf("machine: %w", err)
	}
	info, err := cadvisor.MachineInfo(root)
	if err != nil {
		return nil, err
	}
	if t.info, err = json.Marshal(info); err != nil {
		return nil, fmt.Errorf("encode MachineInfo: %w", err)
	}
	return t, t.read()
}

// fits tells whether the tree is that of the scenario's machine.
func (t *tree) fits(s *Scenario) bool {
	return reflect.DeepEqual(t.machine, s.Machine) && reflect.DeepEqual(t.packages, s.Packages) && reflect.DeepEqual(t.bridges, s.Bridges)
}

func (t *tree) read() error {
	host, err := topology.Read(t.root, topology.WithPrevious(t.host))
	if err != nil {
		return err
	}
	// Those of the tree are one root port a PF.
	for i := range host.Devices {
		d := &host.Devices[i]
		pf := d.Address
		if d.VF != nil {
			pf = d.VF.PF
		}
		if above, ok := t.bridges[pf.String()]; ok {
			d.Upstream = above
		}
	}
	t.host = host
	return nil
}

// movePackages writes the CPUs that are on a package of their own.
func (t *tree) movePackages() error {
	if len(t.packages) == 0 {
		return nil
	}
	for cpu, id := range t.packages {
		file := filepath.Join(t.root, "sys/devices/system/cpu", fmt.Sprintf("cpu%d", cpu), "topology/physical_package_id")
		if _, err := os.Stat(file); os.IsNotExist(err) {
			continue // offline
		}
		if err := os.WriteFile(file, []byte(strconv.Itoa(id)+"\n"), 0o644); err != nil {
			return err
		}
	}
	file := filepath.Join(t.root, "proc/cpuinfo")
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	entry := regexp.MustCompile(`(processor\t: (\d+)\n(?:[^\n]+\n)*?physical id\t: )(\d+)`)
	b = entry.ReplaceAllFunc(b, func(m []byte) []byte {
		parts := entry.FindSubmatch(m)
		cpu, err := strconv.Atoi(string(parts[2]))
		if id, moved := t.packages[cpu]; err == nil && moved {
			return fmt.Appendf(nil, "%s%d", parts[1], id)
		}
		return m
	})
	return os.WriteFile(file, b, 0o644)
}

// setHealth takes the driver from devices, or gives it back, as the host's
// administrator would, and reads the machine anew.
func (t *tree) setHealth(h *Health) error {
	for _, id := range h.Devices {
		var err error
		if h.Healthy {
			err = t.bind(id)
		} else {
			err = t.unbind(id)
		}
		if err != nil {
			return fmt.Errorf("change the health of %s: %w", id, err)
		}
	}
	return t.read()
}

// restore gives every device its driver back, for the next scenario.
func (t *tree) restore() error {
	if len(t.drivers) == 0 {
		return nil
	}
	h := Health{Devices: slices.Collect(maps.Keys(t.drivers)), Healthy: true}
	return t.setHealth(&h)
}

func (t *tree) bind(id string) error {
	driver, lost := t.drivers[id]
	if !lost {
		return nil // as it may be where steps were left out
	}
	delete(t.drivers, id)
	return sysfstest.Bind(t.root, id, driver)
}

func (t *tree) unbind(id string) error {
	if _, lost := t.drivers[id]; lost {
		return nil
	}
	pci := filepath.Join(t.root, "sys/bus/pci")
	link, err := os.Readlink(filepath.Join(pci, "devices", id, "driver"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // nor is the device itself there
	}
	if err != nil {
		return err
	}
	driver := filepath.Base(link)
	if err := os.Remove(filepath.Join(pci, "drivers", driver, id)); err != nil {
		return err
	}
	if t.drivers == nil {
		t.drivers = map[string]string{}
	}
	t.drivers[id] = driver
	return sysfstest.RemoveFile(t.root, id, "driver")
}
