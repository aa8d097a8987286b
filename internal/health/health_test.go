package health_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/numalane/numalane/internal/config"
	"github.com/numalane/numalane/internal/health"
	"github.com/numalane/numalane/pkg/topology"
)

var (
	left  = topology.Address{Bus: 0x3b}
	right = topology.Address{Bus: 0x3b, Function: 1}
)

// machine is a host of two PFs, and its pools.
type machine struct {
	host  topology.Host
	pools []config.AssignedPool
}

func netdev(name string, up bool) topology.Netdev { return topology.Netdev{Name: name, Up: up} }

func newMachine(leftUp, rightUp bool) *machine {
	return &machine{host: topology.Host{Devices: []topology.Device{
		{Address: left, Netdevs: []topology.Netdev{netdev("ens1f0r0", true), netdev("ens1f0", leftUp)}},
		{Address: right, Netdevs: []topology.Netdev{netdev("ens1f1", rightUp)}},
	}}}
}

func (m *machine) pool(resource string, linkHealth bool, holdDown time.Duration, devices ...topology.Device) *machine {
	p := config.AssignedPool{Pool: &config.Pool{Resource: resource, LinkHealth: linkHealth, LinkHoldDown: holdDown}}
	for _, d := range devices {
		p.Devices = append(p.Devices, config.AssignedDevice{Device: d})
	}
	m.pools = append(m.pools, p)
	return m
}

func vf(n uint8, pf topology.Address, name string) topology.Device {
	return topology.Device{Address: topology.Address{Bus: 0x3c, Function: n}, VF: &topology.VirtualFunction{PF: pf, PFName: name}}
}

// flow is one step of a test: a scan, or no scan, and what comes of it.
type flow struct {
	after     time.Duration // since the step before
	scan      *machine      // nil: none, a timer went off
	held      map[string]bool
	unhealthy map[string]string
	next      time.Duration // from this step on; 0: none
}

func run(t *testing.T, steps ...flow) {
	t.Helper()
	var l health.Links
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i, s := range steps {
		now = now.Add(s.after)
		if s.scan != nil {
			l.Observe(now, s.scan.pools, &s.scan.host, s.held)
		}
		unhealthy, at := l.Verdicts(now)
		if s.unhealthy == nil {
			s.unhealthy = map[string]string{}
		}
		if diff := cmp.Diff(s.unhealthy, unhealthy); diff != "" {
			t.Errorf("step %d (-want +got):\n%s", i, diff)
		}
		var next time.Duration
		if !at.IsZero() {
			next = at.Sub(now)
		}
		if next != s.next {
			t.Errorf("step %d: changes next after %v, want %v", i, next, s.next)
		}
	}
}

const (
	a, b    = "0000:3c:00.0", "0000:3c:00.1"
	noLeft  = "PF ens1f0 has no carrier"
	noRight = "PF ens1f1 has no carrier"
)

func two(leftUp, rightUp bool) *machine {
	return newMachine(leftUp, rightUp).pool("x/a", true, 2*time.Second, vf(0, left, "ens1f0"), vf(1, right, "ens1f1"))
}

func TestDownAndUpAgain(t *testing.T) {
	s := time.Second
	run(
		t,
		flow{scan: two(true, true)},
		flow{after: s, scan: two(false, true), next: 2 * s},
		flow{after: s, scan: two(false, true), next: s}, // a scan for another reason
		flow{after: s, unhealthy: map[string]string{a: noLeft}},
		flow{after: 60 * s, scan: two(true, true), unhealthy: map[string]string{a: noLeft}, next: 2 * s},
		flow{after: 2*s - 1, unhealthy: map[string]string{a: noLeft}, next: 1},
		flow{after: 1},
	)
}

func TestFlappingIsDamped(t *testing.T) {
	s := time.Second
	steps := []flow{{scan: two(true, true)}}
	for range 5 { // never down for long enough
		steps = append(steps, flow{after: s, scan: two(false, true), next: 2 * s}, flow{after: s, scan: two(true, true)})
	}
	steps = append(steps, flow{after: s, scan: two(false, true), next: 2 * s}, flow{after: 2 * s, unhealthy: map[string]string{a: noLeft}})
	for range 5 { // nor up
		steps = append(steps,
			flow{after: s, scan: two(true, true), unhealthy: map[string]string{a: noLeft}, next: 2 * s},
			flow{after: s, scan: two(false, true), unhealthy: map[string]string{a: noLeft}})
	}
	run(t, steps...)
}

func TestAsFound(t *testing.T) {
	run(t, flow{scan: two(false, true), unhealthy: map[string]string{a: noLeft}},
		flow{after: time.Second, scan: two(false, false), unhealthy: map[string]string{a: noLeft}, next: 2 * time.Second},
		flow{after: 2 * time.Second, unhealthy: map[string]string{a: noLeft, b: noRight}})
}

// Each pool has its own patience with the same PF, and one may not care.
func TestPoolsDecide(t *testing.T) {
	m := func(up bool) *machine {
		return newMachine(up, true).
			pool("x/fast", true, 0, vf(0, left, "ens1f0")).
			pool("x/slow", true, time.Minute, vf(1, left, "ens1f0")).
			pool("x/never", false, 0, vf(2, left, "ens1f0"))
	}
	run(t, flow{scan: m(true)},
		flow{after: time.Second, scan: m(false), unhealthy: map[string]string{a: noLeft}, next: time.Minute},
		flow{after: time.Minute, unhealthy: map[string]string{a: noLeft, b: noLeft}},
		flow{after: time.Second, scan: newMachine(false, true).pool("x/slow", false, 0, vf(1, left, "ens1f0"))})
}

func TestHeldDevicesKeepTheirHealth(t *testing.T) {
	held := map[string]bool{a: true}
	run(t, flow{scan: two(true, false), held: held, unhealthy: map[string]string{b: noRight}},
		flow{after: time.Second, scan: two(false, false), held: held, unhealthy: map[string]string{b: noRight}, next: 2 * time.Second},
		flow{after: 2 * time.Second, unhealthy: map[string]string{b: noRight}},
		flow{after: time.Minute, scan: two(false, false), unhealthy: map[string]string{a: noLeft, b: noRight}}, // its pod has ended
	)
}

func TestWhatDoesNotTell(t *testing.T) {
	gone := newMachine(false, true).pool("x/a", true, 0, vf(0, topology.Address{Bus: 9}, ""))
	userspace := newMachine(false, true).pool("x/a", true, 0, vf(0, left, "ens1f0"))
	userspace.host.Devices[0].Netdevs = nil
	own := newMachine(false, false).pool("x/a", true, 0, topology.Device{Address: right, Netdevs: []topology.Netdev{netdev("ens1f1", false)}})
	for name, m := range map[string]*machine{"no PF": gone, "a PF under a userspace driver": userspace, "its own PF": own} {
		t.Run(name, func(t *testing.T) { run(t, flow{scan: m}) })
	}
	// When it tells again, it is as it is found.
	run(t, flow{scan: two(true, true)}, flow{after: time.Second, scan: two(false, true), next: 2 * time.Second},
		flow{after: time.Second, scan: userspace}, flow{after: 9 * time.Second, scan: two(true, true)})
}

func TestSubfunctions(t *testing.T) {
	sf := topology.Device{Address: right, Aux: &topology.AuxiliaryDevice{Name: "mlx5_core.sf.4"}}
	ofVF := vf(7, left, "ens1f0")
	ofVF.Aux = &topology.AuxiliaryDevice{Name: "mlx5_core.sf.9"}
	run(t, flow{scan: newMachine(false, false).pool("x/a", true, 0, sf, ofVF), unhealthy: map[string]string{"mlx5_core.sf.4": noRight, "mlx5_core.sf.9": noLeft}})
}
