package inventory_test

import (
	"context"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/numalane/numalane/internal/inventory"
	"github.com/numalane/numalane/internal/sysfstest"
	"github.com/numalane/numalane/pkg/topology"
)

// TestEventToSnapshot measures how long after an event of the kernel's the
// snapshot is there, on a machine of 1,024 VFs. It reports: how fast this
// machine is, is not the code's doing. That no limit holds the first events
// after a calm up, TestRescanIsPromptAndBounded asserts.
func TestEventToSnapshot(t *testing.T) {
	if !inOwnNamespace(t) {
		return
	}
	const pfs, rounds = 8, 10
	m := sysfstest.Uniform(2, 16, 2)
	for i := range pfs {
		nic := sysfstest.E810(topology.Address{Bus: uint8(0x10 + 0x10*i)}.String(), i/4, 128)
		m.NICs = append(m.NICs, nic)
	}
	m.NICs[0].Netdev = "ens1f0"
	dir := t.TempDir()
	if err := m.Write(dir); err != nil {
		t.Fatal(err)
	}
	// The one interface of the tree that is there for netlink as well.
	if err := netlink.LinkAdd(&netlink.Ifb{LinkAttrs: attrs("ens1f0")}); err != nil {
		t.Fatal(err)
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
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- loop.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	snapshots := loop.Subscribe()
	if s := <-snapshots; len(s.Host.Devices) != pfs*129 {
		t.Fatalf("%d devices, want %d", len(s.Host.Devices), pfs*129)
	}
	pf, err := topology.ParseAddress(m.NICs[0].Address)
	if err != nil {
		t.Fatal(err)
	}
	var took []time.Duration
	worked := cpuTime(t)
	for round := range rounds {
		up := round%2 == 1
		if err := sysfstest.SetCarrier(dir, "ens1f0", up); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		sendUevent(t, "pci")
		for seen := false; !seen; {
			select {
			case s := <-snapshots:
				d, _ := s.Host.Device(pf)
				seen = d.Netdevs[0].Up == up
			case <-time.After(20 * time.Second):
				t.Fatalf("round %d: no snapshot", round)
			}
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	t.Logf("event to snapshot, %d VFs: median %v, slowest of %d %v, at %v of CPU time each",
		pfs*128, took[rounds/2], rounds, took[rounds-1], (cpuTime(t)-worked)/rounds)
}

// cpuTime is what the process has used, which tells its own work from that of
// a busy machine.
func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
