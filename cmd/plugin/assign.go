package main

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/numalane/numalane/internal/config"
	"github.com/numalane/numalane/internal/health"
	"github.com/numalane/numalane/internal/plugin"
	"github.com/numalane/numalane/internal/pools"
	"github.com/numalane/numalane/pkg/topology"
)

// assign makes pools of each snapshot of the machine, by the configuration of
// that moment, and makes them anew when a link has lasted long enough to count.
func (a *app) assign(ctx context.Context, configs <-chan *config.Config, updates chan<- []plugin.Pool) error {
	snapshots, heldChanged := a.inventory.Subscribe(), a.kubelet.Changed()
	f := flow{log: a.log, held: a.kubelet.HeldDevices, given: a.kubelet.GivenNodes}
	conf := a.config
	f.sayWarnings(conf)
	due := time.NewTimer(0)
	defer due.Stop()
	for {
		changed := false
		select {
		case <-ctx.Done():
			return nil
		case <-heldChanged:
			a.servers.HeldChanged()
		case <-due.C:
		case conf = <-configs:
			f.sayWarnings(conf)
			changed = f.assign(conf, f.host)
		case s := <-snapshots:
			changed = f.assign(conf, s.Host)
		}
		judged, next := f.judge(time.Now())
		if next.IsZero() {
			due.Stop()
		} else {
			due.Reset(time.Until(next))
		}
		if !changed && !judged {
			continue
		}
		a.view.Store(&view{host: f.host, pools: pools.Published(f.pools, f.host, f.unhealthy)})
		a.tell()
		select {
		case updates <- pools.Advertised(f.pools, f.host, f.unhealthy):
		case <-ctx.Done():
		}
	}
}

// flow is what assign goes by: the last of everything.
type flow struct {
	log       *slog.Logger
	held      func() (map[string][]string, error) // ids by resource
	given     func() (map[string][]string, error) // device nodes by id
	host      *topology.Host                      // nil before the first scan
	pools     []config.AssignedPool
	links     health.Links
	inUse     map[string]bool   // ids of the devices that pods hold
	outdated  map[string]string // what was given of devices is another's now, by id
	unread    string            // why that cannot be told, as it was logged
	unhealthy map[string]string // by id
	said      map[string]string // why a device is in no pool, by id
}

// assign is false when there is nothing to assign yet.
func (f *flow) assign(c *config.Config, h *topology.Host) bool {
	if h == nil {
		return false
	}
	assignment := c.Assign(h)
	f.host, f.pools = h, assignment.Pools
	f.sayRejections(assignment.Rejections)
	return true
}

// judge tells whether other devices are unhealthy than before, and when that
// may change by time alone.
func (f *flow) judge(now time.Time) (changed bool, next time.Time) {
	if f.host == nil {
		return false, next
	}
	if slices.ContainsFunc(f.pools, func(p config.AssignedPool) bool { return p.Pool.LinkHealth }) {
		f.look()
	}
	f.links.Observe(now, f.pools, f.host, f.inUse)
	was := f.unhealthy
	f.unhealthy, next = f.links.Verdicts(now)
	f.compare()
	maps.Copy(f.unhealthy, f.outdated)
	return !maps.Equal(was, f.unhealthy), next
}

// look asks what pods hold. Where that cannot be told, the last answer stands.
func (f *flow) look() {
	held, err := f.held()
	if err != nil {
		f.log.Warn("cannot tell which devices pods hold", "err", err)
		return
	}
	f.inUse = map[string]bool{}
	for _, ids := range held {
		for _, id := range ids {
			f.inUse[id] = true
		}
	}
}

// compare holds what containers were given against what it would be now. Where
// the first cannot be told, the last answer stands. Only VFIO groups can differ,
// and nothing is read for pools without.
func (f *flow) compare() {
	if !slices.ContainsFunc(f.pools, func(p config.AssignedPool) bool {
		return slices.ContainsFunc(p.Devices, func(d config.AssignedDevice) bool { return d.Driver == "vfio-pci" })
	}) {
		f.outdated = nil
		return
	}
	given, err := f.given()
	if err != nil {
		if err.Error() != f.unread {
			f.log.Warn("cannot tell what device nodes containers were given", "err", err)
		}
		f.unread = err.Error()
		return
	}
	f.unread = ""
	f.outdated = health.Outdated(f.pools, f.host, given)
}

// sayWarnings logs what a configuration says without effect.
func (f *flow) sayWarnings(c *config.Config) {
	for _, w := range c.Warnings {
		f.log.Warn("pool configuration", "warning", w.String())
	}
}

// sayRejections logs why a device is in no pool, once for each reason.
func (f *flow) sayRejections(rs []config.Rejection) {
	now := make(map[string]string, len(rs))
	for _, r := range rs {
		now[r.Device] = r.Reason
		if f.said[r.Device] != r.Reason {
			f.log.Info("device is in no pool", "device", r.Device, "reason", r.Reason)
		}
	}
	f.said = now
}
