package inventory_test

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/numalane/numalane/internal/inventory"
	"github.com/numalane/numalane/pkg/topology"
)

// TestUplinkOfTheKernel makes links and routes in a network namespace of its
// own and looks at the snapshots that come of them.
func TestUplinkOfTheKernel(t *testing.T) {
	if !inOwnNamespace(t) {
		return
	}
	n := newNamespace(t, "nic0", "nic1", "nic2")

	n.expect("no way out", map[string]string{})

	n.route(unix.RTN_UNICAST, "0.0.0.0/0", 0, "nic0")
	n.expect("a route by a NIC", map[string]string{"nic0": "IPv4 default route by nic0"})

	n.route(unix.RTN_UNICAST, "::/0", 0, "nic1")
	n.expect("IPv6 by another", map[string]string{"nic0": "IPv4 default route by nic0", "nic1": "IPv6 default route by nic1"})

	n.unroute("0.0.0.0/0", "nic0")
	n.unroute("::/0", "nic1")
	n.expect("both have gone", map[string]string{})

	n.route(unix.RTN_UNICAST, "10.0.0.0/8", 0, "nic0")
	n.route(unix.RTN_UNICAST, "0.0.0.0/0", 100, "nic0")
	n.route(unix.RTN_BLACKHOLE, "0.0.0.0/0", 0)
	n.loop.Rescan()
	n.expectScanned("a route that is no default, one of another table, and a hole", map[string]string{})
	n.must(netlink.RouteDel(&netlink.Route{Dst: prefix(t, "0.0.0.0/0"), Type: unix.RTN_BLACKHOLE}))

	n.route(unix.RTN_UNICAST, "0.0.0.0/0", 0, "nic0", "nic2")
	n.expect("two ways at once", map[string]string{"nic0": "IPv4 default route by nic0", "nic2": "IPv4 default route by nic2"})
	n.must(netlink.RouteDel(&netlink.Route{Dst: prefix(t, "0.0.0.0/0"), Scope: netlink.SCOPE_LINK}))
	n.expect("none again", map[string]string{})

	// A bond with a VLAN on it, under a bridge. Where the kernel has no bonds
	// or no VLANs, what it keeps in the same fields: bridges and macvlans.
	master := n.add(&netlink.Bond{LinkAttrs: attrs("over0"), Mode: netlink.BOND_MODE_ACTIVE_BACKUP}, &netlink.Bridge{LinkAttrs: attrs("over0")})
	for _, slave := range []string{"nic0", "nic1"} {
		n.must(netlink.LinkSetDown(n.link(slave)))
		n.must(netlink.LinkSetMaster(n.link(slave), master))
		n.must(netlink.LinkSetUp(n.link(slave)))
	}
	on := attrs("over0.7")
	on.ParentIndex = master.Attrs().Index
	n.add(&netlink.Vlan{LinkAttrs: on, VlanId: 7}, &netlink.Macvlan{LinkAttrs: on, Mode: netlink.MACVLAN_MODE_BRIDGE})
	n.route(unix.RTN_UNICAST, "0.0.0.0/0", 0, "over0.7")
	n.expect("by a VLAN on a bond", map[string]string{"nic0": "IPv4 default route by over0.7", "nic1": "IPv4 default route by over0.7"})

	n.must(netlink.LinkSetNoMaster(n.link("nic1")))
	n.loop.Rescan() // the real NIC's event is TestEvents'
	n.expect("a slave has left", map[string]string{"nic0": "IPv4 default route by over0.7"})

	n.must(netlink.LinkSetNoMaster(n.link("nic0")))
	on = attrs("mv0")
	on.ParentIndex = n.link("nic2").Attrs().Index
	n.add(&netlink.Macvlan{LinkAttrs: on, Mode: netlink.MACVLAN_MODE_BRIDGE})
	n.unroute("0.0.0.0/0", "over0.7")
	n.route(unix.RTN_UNICAST, "0.0.0.0/0", 0, "mv0")
	n.expect("moved to a macvlan", map[string]string{"nic2": "IPv4 default route by mv0"})
}

// namespace is a network namespace in which a loop runs.
type namespace struct {
	t         *testing.T
	loop      *inventory.Loop
	snapshots <-chan *inventory.Snapshot
	scanned   chan struct{}
}

// newNamespace has one interface for each device of its machine.
func newNamespace(t *testing.T, nics ...string) *namespace {
	t.Helper()
	n := &namespace{t: t, scanned: make(chan struct{}, 1)}
	for _, name := range nics {
		n.add(&netlink.Dummy{LinkAttrs: attrs(name)}, &netlink.Ifb{LinkAttrs: attrs(name)}, &netlink.Veth{LinkAttrs: attrs(name), PeerName: name + "p"})
	}
	n.loop = inventory.New(inventory.Options{
		Events: true, Interval: time.Hour, MinInterval: time.Millisecond,
		Scan: func() (*topology.Host, error) {
			h := &topology.Host{}
			for i, name := range nics {
				h.Devices = append(h.Devices, topology.Device{Address: topology.Address{Bus: uint8(i)}, Netdevs: []topology.Netdev{{Name: name}}})
			}
			select {
			case n.scanned <- struct{}{}:
			default:
			}
			return h, nil
		},
	})
	n.snapshots = n.loop.Subscribe()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- n.loop.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return n
}

func attrs(name string) netlink.LinkAttrs {
	a := netlink.NewLinkAttrs()
	a.Name = name
	return a
}

// add makes the first of the links that this kernel can make, and sets it up.
func (n *namespace) add(choices ...netlink.Link) netlink.Link {
	n.t.Helper()
	for _, l := range choices {
		err := netlink.LinkAdd(l)
		if errors.Is(err, unix.EOPNOTSUPP) {
			n.t.Logf("this kernel makes no %s", l.Type())
			continue
		}
		n.must(err)
		n.must(netlink.LinkSetUp(l))
		return n.link(l.Attrs().Name)
	}
	n.t.Fatalf("this kernel makes none of the links to choose from for %s", choices[0].Attrs().Name)
	return nil
}

func (n *namespace) must(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatal(err)
	}
}

func (n *namespace) link(name string) netlink.Link {
	n.t.Helper()
	l, err := netlink.LinkByName(name)
	n.must(err)
	return l
}

func prefix(t *testing.T, s string) *net.IPNet {
	t.Helper()
	_, p, err := net.ParseCIDR(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (n *namespace) route(kind int, to string, table int, by ...string) {
	n.t.Helper()
	r := &netlink.Route{Dst: prefix(n.t, to), Type: kind, Table: table}
	switch len(by) {
	case 0:
	case 1:
		r.LinkIndex = n.link(by[0]).Attrs().Index
	default:
		for _, b := range by {
			r.MultiPath = append(r.MultiPath, &netlink.NexthopInfo{LinkIndex: n.link(b).Attrs().Index})
		}
	}
	if kind == unix.RTN_BLACKHOLE {
		r.Priority = 1000
	} else {
		r.Scope = netlink.SCOPE_LINK
	}
	n.must(netlink.RouteAdd(r))
}

func (n *namespace) unroute(to, by string) {
	n.t.Helper()
	n.must(netlink.RouteDel(&netlink.Route{Dst: prefix(n.t, to), LinkIndex: n.link(by).Attrs().Index, Scope: netlink.SCOPE_LINK}))
}

// uplinks are those of a snapshot, by interface.
func uplinks(s *inventory.Snapshot) map[string]string {
	got := map[string]string{}
	for _, d := range s.Host.Devices {
		if d.Uplink != "" {
			got[d.Netdevs[0].Name] = d.Uplink
		}
	}
	return got
}

// expect waits for a snapshot with just these uplinks.
func (n *namespace) expect(when string, want map[string]string) {
	n.t.Helper()
	deadline := time.After(10 * time.Second)
	var got map[string]string
	for {
		if s := n.loop.Latest(); s != nil {
			if got = uplinks(s); cmp.Equal(want, got) {
				return
			}
		}
		select {
		case <-n.snapshots:
		case <-deadline:
			n.t.Fatalf("%s (-want +got):\n%s", when, cmp.Diff(want, got))
		}
	}
}

// expectScanned waits for two scans, of which the second began after the call,
// and for the snapshot to stay as it is.
func (n *namespace) expectScanned(when string, want map[string]string) {
	n.t.Helper()
	for range 2 {
		select {
		case <-n.scanned:
		default:
		}
		n.loop.Rescan()
		select {
		case <-n.scanned:
		case <-time.After(10 * time.Second):
			n.t.Fatalf("%s: no scan", when)
		}
	}
	if diff := cmp.Diff(want, uplinks(n.loop.Latest())); diff != "" {
		n.t.Errorf("%s (-want +got):\n%s", when, diff)
	}
}

// TestNoGuessAboutTheUplink: where netlink does not show the machine's interfaces,
// there is no snapshot in which nothing is the uplink, at the start or later.
func TestNoGuessAboutTheUplink(t *testing.T) {
	if !inOwnNamespace(t) {
		return
	}
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs("nic0"), PeerName: "nic0p"}); err != nil {
		t.Fatal(err)
	}
	var netdev atomic.Value
	netdev.Store("elsewhere0")
	l := inventory.New(inventory.Options{
		Events: true, Interval: time.Hour, MinInterval: time.Millisecond,
		Scan: func() (*topology.Host, error) {
			return &topology.Host{Devices: []topology.Device{{Netdevs: []topology.Netdev{{Name: netdev.Load().(string)}}}}}, nil
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	failsOnceMore := func() {
		t.Helper()
		before := l.Stats().Failures
		for deadline := time.After(10 * time.Second); l.Stats().Failures == before; {
			l.Rescan()
			select {
			case <-time.After(time.Millisecond):
			case <-deadline:
				t.Fatal("no scan has failed")
			}
		}
	}
	failsOnceMore()
	if s := l.Latest(); s != nil {
		t.Errorf("the first snapshot is %+v, want none", s.Host)
	}
	netdev.Store("nic0")
	l.Rescan()
	good := <-l.Subscribe()
	netdev.Store("elsewhere0")
	failsOnceMore()
	failsOnceMore() // this one began after the change
	if s := l.Latest(); s != good {
		t.Errorf("the latest snapshot is %+v, want the last good one", s.Host)
	}
}
