package topology_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/numalane/numalane/internal/sysfstest"
	"github.com/numalane/numalane/pkg/topology"
)

// vfHost has 1,024 VFs on 16 PFs.
func vfHost(tb testing.TB, nic func(address string, numaNode, vfs int) sysfstest.NIC) string {
	tb.Helper()
	m := sysfstest.Uniform(2, 16, 2)
	for i := range 16 {
		addr := topology.Address{Bus: uint8(0x11 + 2*i)}
		m.NICs = append(m.NICs, nic(addr.String(), i%2, 64))
	}
	dir := tb.TempDir()
	if err := m.Write(dir); err != nil {
		tb.Fatal(err)
	}
	return dir
}

// BenchmarkRead reads 1,024 VFs, each time after the floor: what Read's answer
// is made of, each file read and each folder listed once by package os, and
// nothing made of it. The metric x-floor compares the two of the same run, and
// x-floor-cpu their processor time, which a busy machine disturbs less: there
// the two threads of Read count in full.
func BenchmarkRead(b *testing.B) {
	for _, bench := range []struct {
		name  string
		nic   func(address string, numaNode, vfs int) sysfstest.NIC
		again bool
	}{{"first", sysfstest.X710, false}, {"again", sysfstest.X710, true}, {"again with RDMA", sysfstest.ConnectX5, true}} {
		b.Run(bench.name, func(b *testing.B) {
			dir := vfHost(b, bench.nic)
			floor := sources(b, dir)
			previous := read(b, dir)
			var opts []topology.Option
			if bench.again {
				opts = append(opts, topology.WithPrevious(previous))
			}
			var floorTime, floorCPU time.Duration
			began := processorTime(b)
			for b.Loop() {
				b.StopTimer()
				start, cpu := time.Now(), processorTime(b)
				floor.read(b)
				floorTime += time.Since(start)
				floorCPU += processorTime(b) - cpu
				b.StartTimer()
				if h := read(b, dir, opts...); len(h.Devices) != 16+1024 || len(h.Problems) > 0 {
					b.Fatal(len(h.Devices), h.Problems)
				}
			}
			readCPU := processorTime(b) - began - floorCPU
			b.ReportMetric(float64(b.Elapsed())/float64(floorTime), "x-floor")
			b.ReportMetric(float64(readCPU)/float64(floorCPU), "x-floor-cpu")
			b.ReportMetric(float64(floorTime)/float64(b.N), "floor-ns/op")
		})
	}
}

// processorTime is what this process has used, of the user's and the kernel's.
func processorTime(tb testing.TB) time.Duration {
	tb.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkReadFiles is the floor by itself.
func BenchmarkReadFiles(b *testing.B) {
	floor := sources(b, vfHost(b, sysfstest.X710))
	for b.Loop() {
		floor.read(b)
	}
}

// paths are what a Host is made of.
type paths struct{ files, links, dirs []string }

func (p paths) read(tb testing.TB) {
	for _, f := range p.files {
		if _, err := os.ReadFile(f); err != nil {
			tb.Fatal(err)
		}
	}
	for _, l := range p.links {
		if _, err := os.Readlink(l); err != nil {
			tb.Fatal(err)
		}
	}
	for _, d := range p.dirs {
		if _, err := os.ReadDir(d); err != nil {
			tb.Fatal(err)
		}
	}
}

func sources(tb testing.TB, dir string) paths {
	tb.Helper()
	glob := func(patterns ...string) []string {
		var all []string
		for _, p := range patterns {
			m, err := filepath.Glob(filepath.Join(dir, "sys", p))
			if err != nil {
				tb.Fatal(err)
			}
			all = append(all, m...)
		}
		return all
	}
	const bus, cpu, node = "bus/pci/devices", "devices/system/cpu", "devices/system/node"
	p := paths{
		dirs: glob(bus, bus+"/*/net", bus+"/*/infiniband", bus+"/*/infiniband_verbs", bus+"/*/infiniband_mad",
			cpu, node+"/node*/hugepages"),
		links: glob(bus+"/*", bus+"/*/driver", bus+"/*/iommu_group",
			bus+"/*/physfn", bus+"/*/virtfn*"),
		files: glob(bus+"/*/modalias", bus+"/*/numa_node", bus+"/*/sriov_*vfs", bus+"/*/net/*/carrier", bus+"/*/net/*/type",
			bus+"/*/infiniband_*/*/ibdev", bus+"/*/infiniband/*/ports/1/pkeys/0",
			cpu+"/online", cpu+"/cpu*/topology/core_id", cpu+"/cpu*/topology/physical_package_id",
			node+"/online", node+"/node*/cpulist", node+"/node*/distance", node+"/node*/meminfo",
			node+"/node*/hugepages/*/nr_hugepages", node+"/node*/hugepages/*/free_hugepages"),
	}
	if len(p.files) < 3*1024 || len(p.links) < 4*1024 || len(p.dirs) < 1024 {
		tb.Fatalf("%d files, %d links and %d folders", len(p.files), len(p.links), len(p.dirs))
	}
	return p
}
