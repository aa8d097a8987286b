// Package health turns the carrier of PFs into the health of their VFs, once
// it has lasted.
//
// In flow the pools of one scan with their devices, the host that they are of,
// what pods hold, and the time. Out flow, for [internal/pools], the devices
// that are unhealthy and why, and the moment at which that changes if nothing
// else does: no clock runs here, and nobody has to look in between.
//
// A pool asks for it (config's LinkHealth), and says how long a link must have
// been down, or up again, to count: a link that flaps changes nothing before it
// has calmed down. A PF that is seen for the first time counts as it is found:
// there is no earlier state that a new one would have to outlast.
//
// Only VFs and subfunctions, and of these only those that are free, follow
// their PF:
//   - A device that a pod holds keeps its health. The pod sees by itself that it
//     has no link, and the kubelet refuses to start a pod's container anew after a
//     reboot when a device that it holds is unhealthy (devicemanager
//     devicesToAllocate, "previously allocated devices are no longer healthy"): a
//     node whose switch starts slower than itself would lose its pods for good.
//     When the pod ends, the device follows its PF at once.
//   - A device that is its own PF is administratively down while nobody uses it,
//     and has no carrier then (net/core/net-sysfs.c, carrier_show).
//   - A PF whose netdev is not here, as under a userspace driver, does not tell.
package health

import (
	"fmt"
	"slices"
	"time"

	"github.com/numalane/numalane/internal/config"
	"github.com/numalane/numalane/pkg/topology"
)

// Links are the PFs that pools depend on. The zero value has seen none.
type Links struct {
	pfs   map[topology.Address]*pf
	pools map[poolPF]*standing
}

// pf is the carrier of a PF as it was seen last.
type pf struct {
	name  string
	up    bool
	since time.Time
}

// poolPF is a PF as a pool counts it: each pool has a hold-down of its own.
type poolPF struct {
	resource string
	pf       topology.Address
}

// standing is whether a PF counts as up, and in which pool.
type standing struct {
	up       bool
	holdDown time.Duration
	devices  []string // that are free
}

// Observe takes in what a scan has found, or that pods hold other devices.
// held are ids.
func (l *Links) Observe(now time.Time, assigned []config.AssignedPool, host *topology.Host, held map[string]bool) {
	pfs := map[topology.Address]*pf{}
	pools := map[poolPF]*standing{}
	for _, a := range assigned {
		if !a.Pool.LinkHealth {
			continue
		}
		for i := range a.Devices {
			d := &a.Devices[i].Device
			at, name, ok := parent(d)
			if !ok {
				continue
			}
			if pfs[at] == nil {
				if pfs[at] = l.look(now, host, at, name); pfs[at] == nil {
					continue
				}
			}
			key := poolPF{a.Pool.Resource, at}
			s := pools[key]
			if s == nil {
				s = &standing{up: pfs[at].up, holdDown: a.Pool.LinkHoldDown}
				if last := l.pools[key]; last != nil {
					s.up = last.up
				}
				pools[key] = s
			}
			if !held[d.ID()] {
				s.devices = append(s.devices, d.ID())
			}
		}
	}
	l.pfs, l.pools = pfs, pools
}

// parent is the PF of a VF or of a subfunction, and its netdev's name where the
// device tells it.
func parent(d *topology.Device) (at topology.Address, name string, ok bool) {
	switch {
	case d.VF != nil:
		return d.VF.PF, d.VF.PFName, true
	case d.Aux != nil:
		return d.Address, "", true
	}
	return topology.Address{}, "", false
}

// look is a PF as it is now, nil when it does not tell.
func (l *Links) look(now time.Time, host *topology.Host, at topology.Address, name string) *pf {
	d, ok := host.Device(at)
	if !ok || len(d.Netdevs) == 0 {
		return nil
	}
	// In switchdev mode the VFs' representors are among its netdevs.
	i := max(0, slices.IndexFunc(d.Netdevs, func(n topology.Netdev) bool { return n.Name == name }))
	p := &pf{name: d.Netdevs[i].Name, up: d.Netdevs[i].Up, since: now}
	if last := l.pfs[at]; last != nil && last.up == p.up {
		p.since = last.since
	}
	return p
}

// Verdicts are the devices that are unhealthy now, with the reason, and the
// moment of the next change; zero when time alone changes nothing.
func (l *Links) Verdicts(now time.Time) (unhealthy map[string]string, next time.Time) {
	unhealthy = map[string]string{}
	for key, s := range l.pools {
		p := l.pfs[key.pf]
		if counts := p.since.Add(s.holdDown); p.up != s.up && counts.After(now) {
			if next.IsZero() || counts.Before(next) {
				next = counts
			}
		} else {
			s.up = p.up
		}
		if s.up {
			continue
		}
		for _, id := range s.devices {
			unhealthy[id] = fmt.Sprintf("PF %s has no carrier", p.name)
		}
	}
	return unhealthy, next
}
