package inventory

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/numalane/numalane/pkg/topology"
)

// link is a network interface, and how it hangs together with others.
type link struct {
	index  int
	name   string
	kind   string // device: a link that is not made of software
	master int    // of a bond's slave, of a bridge's port: the bond, the bridge
	parent int    // of a VLAN, of a macvlan: the link below; 0: none, or elsewhere
	device string // PCI address, or name on the auxiliary bus, where the kernel says so
}

// defaultRoute is a way out of the node.
type defaultRoute struct {
	family string // IPv4, IPv6
	link   int
}

func addUplinks(h *topology.Host) error {
	links, err := readLinks()
	if err != nil {
		return fmt.Errorf("read network interfaces: %w", err)
	}
	if err := sameNamespace(h, links); err != nil {
		return err
	}
	routes, err := readDefaultRoutes()
	if err != nil {
		return fmt.Errorf("read default routes: %w", err)
	}
	uses := uplinks(links, routes)
	networkDevices(h, func(d *topology.Device) {
		// The address as well as the names: an interface may have been renamed
		// since sysfs was read.
		d.Uplink = uses[d.ID()]
		for i := 0; d.Uplink == "" && i < len(d.Netdevs); i++ {
			d.Uplink = uses[d.Netdevs[i].Name]
		}
	})
	return nil
}

// sameNamespace is an error where the files tell of one network namespace and
// netlink of another: no default route would ever be seen.
func sameNamespace(h *topology.Host, links []link) error {
	known := map[string]bool{}
	for _, l := range links {
		known[l.name] = true
	}
	missing := ""
	seen := false
	networkDevices(h, func(d *topology.Device) {
		for _, n := range d.Netdevs {
			seen = seen || known[n.Name]
			missing = n.Name
		}
	})
	if missing == "" || seen {
		return nil
	}
	return fmt.Errorf("none of the machine's network interfaces, as %s, is in this network namespace: run in the node's own (hostNetwork: true)", missing)
}

// uplinks says, by the name of an interface and by its device, what way out
// stands on it.
func uplinks(links []link, routes []defaultRoute) map[string]string {
	byIndex := make(map[int]*link, len(links))
	below := map[int][]int{} // what stands on nothing is not in it
	var switched []int       // ports of Open vSwitch, which tells nobody what it bridges
	for i := range links {
		l := &links[i]
		byIndex[l.index] = l
		if l.parent != 0 {
			below[l.index] = append(below[l.index], l.parent)
		}
		if l.master != 0 {
			below[l.master] = append(below[l.master], l.index)
		}
	}
	for i := range links {
		if m := byIndex[links[i].master]; m != nil && m.kind == openvswitch {
			switched = append(switched, links[i].index)
		}
	}
	uses := map[string]string{}
	for _, r := range routes {
		out := byIndex[r.link]
		if out == nil {
			continue // gone since, as its event will tell
		}
		how := fmt.Sprintf("%s default route by %s", r.family, out.name)
		visited := map[int]bool{}
		var visit func(index int)
		visit = func(index int) {
			l := byIndex[index]
			if l == nil || visited[index] {
				return
			}
			visited[index] = true
			addUse(uses, l.name, how)
			addUse(uses, l.device, how)
			for _, b := range below[index] {
				visit(b)
			}
			if l.kind == openvswitch {
				for _, port := range switched {
					visit(port)
				}
			}
		}
		visit(r.link)
	}
	return uses
}

// openvswitch is the kind of the bridges of Open vSwitch. Their ports have the
// datapath for a master, and not the bridge (net/openvswitch/vport-netdev.c).
const openvswitch = "openvswitch"

func addUse(uses map[string]string, key, how string) {
	switch {
	case key == "":
	case uses[key] == "":
		uses[key] = how
	default:
		uses[key] += ", " + how
	}
}

// Read again when the kernel says that something changed meanwhile.
const maxInterrupted = 5

func uninterrupted(read func() error) error {
	for n := 1; ; n++ {
		if err := read(); !errors.Is(err, netlink.ErrDumpInterrupted) || n == maxInterrupted {
			return err
		}
	}
}

// filterSkipStats is RTEXT_FILTER_SKIP_STATS (linux/rtnetlink.h): a link's
// counters are most of what there is to say of it.
const filterSkipStats = 1 << 3

// readLinks lists the interfaces of this network namespace. The package's own
// list asks for what each PF knows of its VFs, which with many of them no
// longer fits into a message.
func readLinks() ([]link, error) {
	var links []link
	err := uninterrupted(func() error {
		links = nil
		req := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_DUMP)
		req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
		req.AddData(nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(filterSkipStats)))
		msgs, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
		if err != nil {
			return err
		}
		for _, m := range msgs {
			l, err := netlink.LinkDeserialize(nil, m)
			if err != nil {
				return fmt.Errorf("decode: %w", err)
			}
			links = append(links, linkOf(l))
		}
		return nil
	})
	return links, err
}

func linkOf(l netlink.Link) link {
	a := l.Attrs()
	out := link{index: a.Index, name: a.Name, kind: l.Type(), master: a.MasterIndex}
	if a.NetNsID < 0 { // the link below is in this namespace
		out.parent = a.ParentIndex
	}
	if a.ParentDevBus == "pci" || a.ParentDevBus == "auxiliary" {
		out.device = a.ParentDev
	}
	return out
}

// readDefaultRoutes lists the default routes of the main table. All of them
// are ways out, whatever their metric.
func readDefaultRoutes() ([]defaultRoute, error) {
	var routes []defaultRoute
	for _, f := range []struct {
		name string
		id   int
	}{{"IPv4", netlink.FAMILY_V4}, {"IPv6", netlink.FAMILY_V6}} {
		var of []defaultRoute
		var unclear error
		err := uninterrupted(func() error {
			of, unclear = nil, nil
			return netlink.RouteListFilteredIter(f.id, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE, func(r netlink.Route) bool {
				if !isDefault(&r) {
					return true
				}
				links := linksOf(&r)
				if len(links) == 0 {
					unclear = fmt.Errorf("that of %s goes by a nexthop object and names no interface: set net.ipv4.nexthop_compat_mode to 1", f.name)
				}
				for _, l := range links {
					of = append(of, defaultRoute{f.name, l})
				}
				return true
			})
		})
		if err := cmp.Or(err, unclear); err != nil {
			return nil, err
		}
		slices.SortFunc(of, func(a, b defaultRoute) int { return cmp.Compare(a.link, b.link) })
		routes = append(routes, slices.Compact(of)...)
	}
	return routes, nil
}

// isDefault tells a way out of the main table. The package gives the
// destination of a default route as nil in some versions and as all zeros in
// others.
func isDefault(r *netlink.Route) bool {
	if r.Table != unix.RT_TABLE_MAIN || r.Type != unix.RTN_UNICAST {
		return false
	}
	return r.Dst == nil || prefixLength(r.Dst) == 0
}

func prefixLength(n *net.IPNet) int {
	ones, _ := n.Mask.Size()
	return ones
}

func linksOf(r *netlink.Route) []int {
	var links []int
	if r.LinkIndex != 0 {
		links = append(links, r.LinkIndex)
	}
	for _, hop := range r.MultiPath {
		if hop.LinkIndex != 0 {
			links = append(links, hop.LinkIndex)
		}
	}
	return links
}
