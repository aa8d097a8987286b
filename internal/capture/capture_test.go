package capture_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/numalane/numalane/internal/capture"
	"github.com/numalane/numalane/internal/sysfstest"
	"github.com/numalane/numalane/pkg/topology"
)

func read(t *testing.T, root string) *topology.Host {
	t.Helper()
	h, err := topology.Read(root)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func archive(t *testing.T, root string, h *topology.Host) ([]byte, capture.Contents) {
	t.Helper()
	var b bytes.Buffer
	c, err := capture.Write(&b, root, h)
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), c
}

// roundTrip holds that a machine reads the same from its capture, facts
// included, and that the capture of the capture is the same bytes.
func roundTrip(t *testing.T, root string) capture.Contents {
	t.Helper()
	h := read(t, root)
	for i := range h.Devices {
		if i%3 == 0 {
			h.Devices[i].DDPProfile, h.Devices[i].RDMACapable = "COMMS", true
		}
	}
	for i := range h.Subfunctions {
		h.Subfunctions[i].Uplink = "IPv6 default route by bond0"
	}
	first, contents := archive(t, root, h)
	unpacked, err := sysfstest.Unpack(bytes.NewReader(first), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	again := read(t, unpacked)
	if err := capture.Facts(unpacked, again); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(h, again) {
		t.Errorf("the capture reads differently (-machine +capture):\n%s", cmp.Diff(h, again))
	}
	second, _ := archive(t, unpacked, again)
	if !bytes.Equal(first, second) {
		t.Errorf("the capture of the capture has %d bytes, the first %d; names differ:\n%s",
			len(second), len(first), cmp.Diff(members(t, first), members(t, second)))
	}
	return contents
}

// members are the names and what each holds.
func members(t *testing.T, archive []byte) map[string]string {
	t.Helper()
	zip, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for tr := tar.NewReader(zip); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		if !h.ModTime.IsZero() && h.ModTime.Unix() != 0 || h.Uid != 0 || h.Uname != "" {
			t.Errorf("%s tells of %v and %d %q", h.Name, h.ModTime, h.Uid, h.Uname)
		}
		all[h.Name] = h.Linkname + string(b)
	}
}

// everything is a machine with one of each.
func everything() sysfstest.Machine {
	cx := sysfstest.ConnectX5("0000:5e:00.0", 1, 3)
	cx.Switchdev, cx.Subfunctions = true, []int{4, 88}
	ib := sysfstest.ConnectX6("0000:82:00.0", 1, 2)
	ib.PKey, ib.ACPIIndex = "0x8001", "7"
	e810 := sysfstest.E810("0000:3c:00.0", 0, 2)
	e810.Bridges = []string{"0000:38:01.0", "0000:39:00.0", "0000:3a:04.0"}
	e810.Down = true
	m := sysfstest.Uniform(2, 4, 2, cx, ib, e810, sysfstest.X710("10000:01:00.0", -1, 3),
		sysfstest.ACC100("0000:b0:00.0", 1, 2), sysfstest.ENA("0000:00:05.0", -1))
	m.NICs[3].VFsOnVFIO = []int{1}
	m.NUMANodes[1].L3Caches = 2
	m.NUMANodes[0].Hugepages = []sysfstest.Hugepages{{Size: 2 << 20, Total: 8, Free: 3}}
	m.NUMANodes = append(m.NUMANodes, sysfstest.NUMANode{ID: 5, Memory: 1 << 30})
	m.Offline = []int{3, 11}
	m.Misc = []string{"rdma_cm", "tun"}
	return m
}

func build(t *testing.T, m sysfstest.Machine) string {
	t.Helper()
	dir := t.TempDir()
	if err := m.Write(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestMachines: synthetic machines, whole and broken.
func TestMachines(t *testing.T) {
	noIOMMU, noNUMA := everything(), everything()
	noIOMMU.NoIOMMU, noNUMA.NoNUMA = true, true
	const vf = "0000:5e:00.2"
	tests := []struct {
		name    string
		machine sysfstest.Machine
		change  func(dir string) error
	}{
		{"everything", everything(), func(dir string) error {
			return errors.Join(
				sysfstest.AddVDPA(dir, vf, "vdpa0", "vhost_vdpa"),
				sysfstest.AddVDPA(dir, "mlx5_core.sf.6", "vdpa1", "virtio_vdpa"),
				sysfstest.RemoveNetdev(dir, "enp94s0f0v1"),
				os.MkdirAll(filepath.Join(dir, "dev"), 0o755),
				os.WriteFile(filepath.Join(dir, "dev/vhost-net"), nil, 0o600),
			)
		}},
		{"no IOMMU", noIOMMU, func(dir string) error { return sysfstest.Bind(dir, vf, "vfio-pci") }},
		{"no NUMA", noNUMA, nil},
		{"nothing", sysfstest.Uniform(1, 1, 1), nil},
		{"a device without its files", everything(), func(dir string) error {
			return errors.Join(
				sysfstest.RemoveFile(dir, vf, "modalias"), sysfstest.MakeUnreadable(dir, vf, "vendor"),
				sysfstest.RemoveFile(dir, "0000:3c:00.0", "numa_node"), sysfstest.Relink(dir, "0000:3c:00.0", "virtfn1", "nowhere"),
				sysfstest.RemoveFile(dir, "10000:01:00.0", "modalias"), sysfstest.RemoveFile(dir, "10000:01:00.0", "class"),
				os.Symlink("../../../devices/gone", filepath.Join(dir, "sys/bus/pci/devices/0000:01:00.0")),
				os.Symlink("../../../../elsewhere", filepath.Join(dir, "sys/bus/pci/devices/whatever")),
			)
		}},
		{"CPUs that came during the scan", everything(), func(dir string) error {
			return os.Remove(filepath.Join(dir, "sys/devices/system/node/node0/cpu1"))
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := build(t, tt.machine)
			if tt.change != nil {
				if err := tt.change(dir); err != nil {
					t.Fatal(err)
				}
			}
			if c := roundTrip(t, dir); len(c.Unread) > 0 || c.Files == 0 {
				t.Errorf("%d files, left out: %v", c.Files, c.Unread)
			}
		})
	}
}

// TestCorpus: every captured machine.
func TestCorpus(t *testing.T) {
	archives, err := filepath.Glob("../../pkg/topology/testdata/machines/*.tar.*")
	if err != nil || len(archives) < 10 {
		t.Fatalf("%d archives, %v", len(archives), err)
	}
	for _, file := range archives {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			f, err := os.Open(file)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			root, err := sysfstest.Unpack(f, t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			roundTrip(t, root)
		})
	}
}

// FuzzMachines: random machines, some files of which are gone.
func FuzzMachines(f *testing.F) {
	f.Add(uint8(3), uint8(2), uint16(0), uint16(0), false)
	f.Add(uint8(0), uint8(0), uint16(7), uint16(40), true)
	f.Add(uint8(5), uint8(1), uint16(201), uint16(77), false)
	f.Fuzz(func(t *testing.T, vfs, sfs uint8, gone, unreadable uint16, noIOMMU bool) {
		nic := sysfstest.ConnectX5("0000:5e:00.0", 1, int(vfs%6))
		nic.Switchdev = vfs%2 == 0
		for i := range int(sfs % 4) {
			nic.Subfunctions = append(nic.Subfunctions, i)
		}
		m := sysfstest.Uniform(2, 2, 2, nic, sysfstest.X710("0000:3b:00.0", 0, int(vfs%3)))
		m.NoIOMMU = noIOMMU
		dir := build(t, m)
		var files []string
		err := filepath.WalkDir(filepath.Join(dir, "sys/devices/pci0000:5d"), func(path string, d os.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				files = append(files, path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if gone > 0 {
			if err := os.Remove(files[int(gone)%len(files)]); err != nil {
				t.Fatal(err)
			}
		}
		if file := files[int(unreadable)%len(files)]; unreadable > 0 && unreadable != gone {
			if err := errors.Join(os.RemoveAll(file), os.Mkdir(file, 0o755)); err != nil {
				t.Fatal(err)
			}
		}
		roundTrip(t, dir)
	})
}

// TestOnlyWhatIsRead: nothing else of the machine is in the archive.
func TestOnlyWhatIsRead(t *testing.T) {
	dir := build(t, everything())
	secret := func(rel string) {
		t.Helper()
		path := filepath.Join(dir, rel)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte("secret\n"), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	for _, rel := range []string{
		"sys/class/dmi/id/product_serial", "sys/bus/pci/devices/0000:3c:00.0/vpd", "sys/bus/pci/devices/0000:3c:00.0/config",
		"sys/bus/pci/devices/0000:5e:00.0/infiniband/rocep94s0f0/node_guid", "sys/kernel/notes", "proc/cmdline", "etc/hostname", "dev/mem",
	} {
		secret(rel)
	}
	if err := os.WriteFile(filepath.Join(dir, "proc/meminfo"), []byte("MemTotal: 8 kB\nMemFree: 5 kB\nHugepagesize: 2048 kB\nHugetlb: 0 kB\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	b, c := archive(t, dir, read(t, dir))
	all := members(t, b)
	for name, content := range all {
		base := filepath.Base(name)
		if strings.Contains(content, "secret") || slices.Contains([]string{"address", "uevent", "subsystem_vendor", "local_cpulist"}, base) {
			t.Errorf("%s is in the archive: %q", name, content)
		}
	}
	if got, want := all["proc/meminfo"], "MemTotal: 8 kB\nHugepagesize: 2048 kB\nHugetlb: 0 kB\n"; got != want {
		t.Errorf("meminfo %q, want %q", got, want)
	}
	if _, ok := all["numalane/facts.json"]; ok {
		t.Error("facts of a host that has none")
	}
	if c.Bytes == 0 || c.Links < 100 || len(all) < c.Files+c.Links {
		t.Errorf("%+v with %d members", c, len(all))
	}
	// The root may be the sysfs itself.
	sys := filepath.Join(dir, "sys")
	b, _ = archive(t, sys, read(t, sys))
	delete(all, "proc/meminfo")
	if diff := cmp.Diff(all, members(t, b)); diff != "" {
		t.Errorf("the sysfs itself (-root +sysfs):\n%s", diff)
	}
}

func TestFacts(t *testing.T) {
	dir := build(t, sysfstest.Uniform(1, 1, 1, sysfstest.E810("0000:3b:00.0", 0, 0)))
	h := read(t, dir)
	if err := capture.Facts(dir, h); err != nil {
		t.Errorf("a root without facts: %v", err)
	}
	facts := func(content string) error {
		t.Helper()
		file := filepath.Join(dir, "numalane/facts.json")
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(content), 0o644)); err != nil {
			t.Fatal(err)
		}
		return capture.Facts(dir, h)
	}
	for content, want := range map[string]string{
		"{": "facts.json: unexpected end of JSON input",
		`{"devices": {"0000:af:00.0": {"uplink": "x"}}}`: "no device 0000:af:00.0",
	} {
		if err := facts(content); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", content, err, want)
		}
	}
	if err := facts(`{"devices": {"0000:3b:00.0": {"uplink": "IPv4 default route by bond0", "ddpProfile": "COMMS", "rdmaCapable": true}}}`); err != nil {
		t.Fatal(err)
	}
	if d := h.Devices[0]; d.Uplink != "IPv4 default route by bond0" || d.DDPProfile != "COMMS" || !d.RDMACapable {
		t.Errorf("%+v", d)
	}
}

// TestRefuses what is no machine, and writers that fail.
func TestRefuses(t *testing.T) {
	if _, err := capture.Write(io.Discard, t.TempDir(), &topology.Host{}); err == nil || !strings.Contains(err.Error(), "no sysfs there") {
		t.Errorf("an empty folder: %v", err)
	}
	dir := build(t, everything())
	h := read(t, dir)
	if _, err := capture.Write(full{}, dir, h); err == nil || !strings.Contains(err.Error(), "disk full") {
		t.Errorf("a full disk: %v", err)
	}
	// No attribute is larger than a megabyte.
	if err := os.WriteFile(filepath.Join(dir, "sys/bus/pci/devices/0000:3c:00.0/class"), bytes.Repeat([]byte("0"), 1<<20+1), 0o644); err != nil {
		t.Fatal(err)
	}
	_, c := archive(t, dir, h)
	if len(c.Unread) != 1 || c.Unread[0].Path != "bus/pci/devices/0000:3c:00.0/class" || !strings.Contains(fmt.Sprint(c.Unread[0].Err), "more than") {
		t.Errorf("left out: %v", c.Unread)
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("disk full") }
