package plugin

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/proto"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// Options are what Servers needs from its surroundings. Callbacks are called
// from the goroutines of servers and RPCs, and must not block.
type Options struct {
	// SocketDir is the kubelet's device-plugins folder.
	SocketDir string
	Logger    *slog.Logger
	// OnAllocate is called at the end of each Allocate. The kubelet writes
	// down what it gave only after that.
	OnAllocate func()
	// OnStatus is called when what Status returns may have changed.
	OnStatus func()
	// Held are the ids of the devices that pods hold, by resource, of other
	// vendors' resources too: a device that a pod holds under one resource is
	// not given away under another. While it cannot tell, what it told last
	// stands.
	Held func() (map[string][]string, error)
	// DeviceInfoDir is where Multus looks for DeviceInfo files; empty: none are
	// written.
	DeviceInfoDir string
	// CDIDir is where the container runtime looks for CDI specifications; if it
	// is given, containers get their device nodes by CDI.
	CDIDir string
	// CDIAnnotations is whether the runtime is told of CDI devices by annotation
	// as well, for one that does not read the field.
	CDIAnnotations bool
}

// Servers are the DevicePlugin servers of a node.
type Servers struct {
	opts    Options
	folder  *folder
	files   *files
	recheck chan struct{}
	status  atomic.Pointer[[]*server] // by resource
}

// New makes the servers; Run runs them. Nil callbacks do nothing.
func New(o Options) *Servers {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.OnAllocate == nil {
		o.OnAllocate = func() {}
	}
	if o.OnStatus == nil {
		o.OnStatus = func() {}
	}
	if o.Held == nil {
		o.Held = func() (map[string][]string, error) { return nil, nil }
	}
	s := &Servers{
		opts: o,
		folder: &folder{
			path:    filepath.Clean(o.SocketDir),
			token:   newToken(),
			changes: newCell(struct{}{}),
			log:     o.Logger,
		},
		recheck: make(chan struct{}, 1),
	}
	s.status.Store(&[]*server{})
	s.files = newFiles(o, s.HeldChanged)
	return s
}

// HeldChanged says that what Options.Held returns has changed: a device that
// is listed only because a pod held it may go. It does not block.
func (s *Servers) HeldChanged() {
	select {
	case s.recheck <- struct{}{}:
	default:
	}
}

// Run serves the pools that updates brings, each time the full set, until the
// context ends; then every stream is closed and every socket removed. An
// update that contradicts itself is logged and changes nothing. It returns an
// error only for a SocketDir that cannot hold sockets.
func (s *Servers) Run(ctx context.Context, updates <-chan []Pool) error {
	if err := s.folder.checkLength(); err != nil {
		return err
	}
	s.folder.sweep(ctx)
	s.files.open()
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() { s.folder.watch(ctx) })

	members := fleet{Servers: s, byResource: map[string]*member{}, start: func(srv *server) {
		running.Go(func() { srv.run(ctx) })
	}}
	for {
		select {
		case <-ctx.Done():
			return nil
		case pools, ok := <-updates:
			if !ok {
				updates = nil
				continue
			}
			if err := validate(pools); err != nil {
				s.opts.Logger.Error("pools refused, the last good ones stay", "err", err)
				continue
			}
			members.configure(pools)
		case <-s.recheck:
			members.refresh()
		}
	}
}

// fleet is the state that Run owns.
type fleet struct {
	*Servers
	byResource map[string]*member
	start      func(*server)
	held       holdings
}

// holdings are what pods hold, as far as it is known.
type holdings struct {
	known      bool
	byResource map[string][]string
}

// member is one resource that was configured at some time. It stays when its
// pool goes: a server without anything to advertise is idle, and the pool may
// come back.
type member struct {
	*server
	configured bool
	desired    Pool
	told       string // the last thing logged of its composition
}

func (f *fleet) configure(pools []Pool) {
	for _, m := range f.byResource {
		m.configured = false
		m.desired.Devices = nil
	}
	var added []*member
	for _, p := range pools {
		m, ok := f.byResource[p.Resource]
		if !ok {
			m = &member{server: f.newServer(p.Resource)}
			f.byResource[p.Resource] = m
			added = append(added, m)
		}
		m.configured = true
		m.desired = p
	}
	f.look()
	f.rebuild()
	for _, m := range added {
		f.start(m.server)
	}
}

func (f *fleet) newServer(resource string) *server {
	srv := &server{
		resource:   resource,
		pool:       newCell(&snapshot{resource: resource, list: &pluginapi.ListAndWatchResponse{}}),
		folder:     f.folder,
		files:      f.files,
		onAllocate: f.opts.OnAllocate,
		onStatus:   f.opts.OnStatus,
		log:        f.opts.Logger.With("pool", resource),
	}
	srv.rivals = newRivals(f.folder, resource, srv.log)
	srv.at.Store(&position{phase: Idle})
	return srv
}

// refresh makes every snapshot anew where pods hold others than before. Most
// looks find that they do not; files may be due all the same.
func (f *fleet) refresh() {
	if f.look() {
		f.rebuild()
		return
	}
	current := make([]*snapshot, 0, len(f.byResource))
	for _, m := range f.byResource {
		current = append(current, m.pool.value())
	}
	f.keep(current)
}

// look asks what pods hold, and tells whether that is news. Where it cannot be
// told, the last answer stands.
func (f *fleet) look() bool {
	held, err := f.opts.Held()
	if err != nil {
		f.opts.Logger.Warn("cannot tell which devices pods hold", "err", err)
		return false
	}
	before := f.held
	f.held = holdings{true, held}
	return !before.known || !maps.EqualFunc(before.byResource, held, slices.Equal)
}

func (f *fleet) keep(all []*snapshot) {
	standby := map[string]bool{}
	for resource, m := range f.byResource {
		if m.rivals.live.value() {
			standby[resource] = true
		}
	}
	f.files.keep(all, f.held, standby)
}

// rebuild makes every snapshot anew.
func (f *fleet) rebuild() {
	h := holdersOf(f.held.byResource)
	next := make(map[string]*snapshot, len(f.byResource))
	for resource, m := range f.byResource {
		next[resource] = snapshotOf(m.desired, m.configured, h, m.pool.value())
	}
	// First the files: the kubelet may allocate a device once it hears of it.
	f.keep(slices.Collect(maps.Values(next)))
	var shown []*server
	for resource, m := range f.byResource {
		prev, next := m.pool.value(), next[resource]
		m.pool.set(next)
		if m.configured || next.advertise {
			shown = append(shown, m.server)
		}
		m.tell(prev, next)
	}
	slices.SortFunc(shown, func(a, b *server) int { return strings.Compare(a.resource, b.resource) })
	f.status.Store(&shown)
	f.opts.OnStatus()
}

// tell logs what an operator must know of a pool, once a change.
func (m *member) tell(prev, next *snapshot) {
	if !proto.Equal(prev.list, next.list) {
		m.log.Info("devices", "total", len(next.devices), "healthy", next.healthy, "unhealthy", next.problems())
	}
	var say string
	without := unaligned(m.desired)
	switch {
	case m.configured && !next.advertise:
		say = "pool has no devices and is not registered; 'numalane-plugin inspect' says for each device why it is in no pool"
	case len(without) > 0:
		say = fmt.Sprintf("devices %v have no NUMA node and others of the pool have: the kubelet never counts them when it aligns; put them in a pool of their own or set excludeTopology", without)
	}
	if say != "" && say != m.told {
		m.log.Warn(say)
	}
	m.told = say
}
