package inventory_test

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/numalane/numalane/internal/inventory"
	"github.com/numalane/numalane/internal/sysfstest"
	"github.com/numalane/numalane/pkg/topology"
)

// BenchmarkEventToSnapshot: how long after an event of the kernel's the snapshot
// is there, on a machine of 1,024 VFs; and the CPU time of it, which tells the
// work from the waiting on a busy machine. That no limit holds the first events
// after a calm up, TestRescanIsPromptAndBounded asserts.
func BenchmarkEventToSnapshot(b *testing.B) {
	if !inOwnNamespace(b) {
		return
	}
	const pfs = 8
	m := sysfstest.Uniform(2, 16, 2)
	for i := range pfs {
		m.NICs = append(m.NICs, sysfstest.E810(topology.Address{Bus: uint8(0x10 + 0x10*i)}.String(), i/4, 128))
	}
	m.NICs[0].Netdev = "ens1f0"
	dir := b.TempDir()
	if err := m.Write(dir); err != nil {
		b.Fatal(err)
	}
	// The one interface of the tree that is there for netlink as well.
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs("ens1f0"), PeerName: "peer"}); err != nil {
		b.Fatal(err)
	}
	var loop *inventory.Loop
	loop = inventory.New(inventory.Options{
		Events: true, Interval: time.Hour, MinInterval: time.Millisecond,
		Scan: func() (*topology.Host, error) {
			if last := loop.Latest(); last != nil {
				return topology.Read(dir, topology.WithPrevious(last.Host))
			}
			return topology.Read(dir)
		},
	})
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() { ended <- loop.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			b.Errorf("Run: %v", err)
		}
	}()
	snapshots := loop.Subscribe()
	if s := <-snapshots; len(s.Host.Devices) != pfs*129 {
		b.Fatalf("%d devices, want %d", len(s.Host.Devices), pfs*129)
	}
	pf, err := topology.ParseAddress(m.NICs[0].Address)
	if err != nil {
		b.Fatal(err)
	}
	up, worked := true, cpuTime(b)
	for b.Loop() {
		up = !up
		if err := sysfstest.SetCarrier(dir, "ens1f0", up); err != nil {
			b.Fatal(err)
		}
		sendUevent(b, "pci")
		for seen := false; !seen; {
			select {
			case s := <-snapshots:
				d, _ := s.Host.Device(pf)
				seen = d.Netdevs[0].Up == up
			case <-time.After(20 * time.Second):
				b.Fatal("no snapshot")
			}
		}
	}
	b.ReportMetric(float64(cpuTime(b)-worked)/float64(b.N), "cpu-ns/op")
}

func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
