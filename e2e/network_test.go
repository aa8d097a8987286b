package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// network is a network namespace, which is gone when the test has ended.
type network struct {
	ns    netns.NsHandle
	links *netlink.Handle
}

func newNetwork(t *testing.T) *network {
	t.Helper()
	made := make(chan error)
	n := &network{}
	go func() {
		// The thread is in the new namespace and ends with this function.
		runtime.LockOSThread()
		var err error
		n.ns, err = netns.New()
		made <- err
	}()
	if err := <-made; err != nil {
		t.Fatalf("make a network namespace: %v", err)
	}
	t.Cleanup(func() { n.ns.Close() })
	var err error
	if n.links, err = netlink.NewHandleAt(n.ns); err != nil {
		t.Fatalf("enter a network namespace: %v", err)
	}
	t.Cleanup(n.links.Close)
	n.up(t, "lo")
	return n
}

// file is the namespace for other processes of the box.
func (n *network) file() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), int(n.ns)) }

func (n *network) link(t *testing.T, name string) netlink.Link {
	t.Helper()
	l, err := n.links.LinkByName(name)
	if err != nil {
		t.Fatalf("link %s: %v", name, err)
	}
	return l
}

func (n *network) up(t *testing.T, name string) {
	t.Helper()
	if err := n.links.LinkSetUp(n.link(t, name)); err != nil {
		t.Fatalf("link %s up: %v", name, err)
	}
}

// have makes real links of the network interfaces that a machine's sysfs
// shows, by name and hardware address.
func (n *network) have(t *testing.T, sysfs string) {
	t.Helper()
	class := filepath.Join(sysfs, "sys/class/net")
	for _, name := range n.shown(t, sysfs) {
		text, err := os.ReadFile(filepath.Join(class, name, "address"))
		if err != nil {
			t.Fatal(err)
		}
		address, err := net.ParseMAC(strings.TrimSpace(string(text)))
		if err != nil {
			t.Fatal(err)
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.HardwareAddr = name, address
		// Either is a link of its own that may move; not every kernel has both.
		if err := n.links.LinkAdd(&netlink.Dummy{LinkAttrs: attrs}); err != nil {
			if other := n.links.LinkAdd(&netlink.Ifb{LinkAttrs: attrs}); other != nil {
				t.Fatalf("make link %s, a dummy or an ifb: %v", name, errors.Join(err, other))
			}
		}
	}
}

func (n *network) shown(t *testing.T, sysfs string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(sysfs, "sys/class/net"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// hardware are the links but lo: by hardware address, how each is called.
func (n *network) hardware(t *testing.T) map[string]string {
	t.Helper()
	links, err := n.links.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	links = slices.DeleteFunc(links, func(l netlink.Link) bool { return l.Attrs().Name == "lo" })
	names := map[string]string{}
	for _, l := range links {
		names[l.Attrs().HardwareAddr.String()] = l.Attrs().Name
	}
	return names
}

// routeBy makes a link the namespace's way out.
func (n *network) routeBy(t *testing.T, name string) {
	t.Helper()
	n.up(t, name)
	l := n.link(t, name)
	address, err := netlink.ParseAddr("192.0.2.2/24")
	if err != nil {
		t.Fatal(err)
	}
	if err := n.links.AddrAdd(l, address); err != nil {
		t.Fatalf("address of %s: %v", name, err)
	}
	if err := n.links.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: net.IPv4(192, 0, 2, 1)}); err != nil {
		t.Fatalf("default route by %s: %v", name, err)
	}
}
