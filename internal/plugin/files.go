package plugin

import (
	"errors"
	"log/slog"
	"maps"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"

	"github.com/numalane/numalane/internal/cdi"
	"github.com/numalane/numalane/internal/devinfo"
	"github.com/numalane/numalane/internal/handout"
)

// files are what others than the pod read of a device that it holds: Multus the
// DeviceInfo, the container runtime the CDI specification. They are there
// before the kubelet has the answer to Allocate, and as long as a pod holds the
// device, also while no plugin runs.
type files struct {
	infos       *devinfo.Folder // nil: none are written
	specs       *cdi.Folder     // nil: the kubelet tells the runtime of device nodes
	annotations bool            // and so it is told of CDI devices by annotation, too
	log         *slog.Logger
	settled     *time.Timer // has keep called when the newest file is old enough to go
	told        string      // the last thing logged
}

// settle is after how long a file that nobody holds may go.
const settle = devinfo.Settle + time.Second

func newFiles(o Options, recheck func()) *files {
	// The first time for what the plugin before this one has just written.
	f := &files{annotations: o.CDIAnnotations, log: o.Logger, settled: time.AfterFunc(settle, recheck)}
	if o.DeviceInfoDir != "" {
		f.infos = devinfo.New(o.DeviceInfoDir)
	}
	if o.CDIDir != "" {
		f.specs = cdi.New(o.CDIDir)
	}
	return f
}

// open does without DeviceInfo where it can never be written, as in a pod that
// does not mount the folder: pods then lack what few CNI plugins ask for, while
// to refuse them would take away what they had under a plugin that only logs it.
func (f *files) open() {
	if f.infos == nil {
		return
	}
	if err := f.infos.Writable(); errors.Is(err, devinfo.ErrReadOnly) {
		f.log.Warn("no device information is written, and Multus will not pass any on: mount the folder, or switch this off with --devinfo-dir=''", "err", err)
		f.infos = nil
	}
}

// answer is the kubelet's, of what the files do not say.
func (f *files) answer(g *grant) (*pluginapi.ContainerAllocateResponse, error) {
	envs, err := g.envs()
	if err != nil {
		return nil, err
	}
	a := &pluginapi.ContainerAllocateResponse{Envs: envs}
	switch {
	case f.specs == nil:
		a.Devices = g.deviceSpecs()
	case len(g.nodal) > 0:
		names := cdi.Names(g.kind, g.nodal)
		for _, name := range names {
			a.CdiDevices = append(a.CdiDevices, &pluginapi.CDIDevice{Name: name})
		}
		if f.annotations {
			key, value := cdi.Annotation(g.kind, names)
			a.Annotations = map[string]string{key: value}
		}
	}
	return a, nil
}

// write has everything in place for all of the grants, or returns an error and
// nothing is new.
func (f *files) write(s *snapshot, grants []grant) error {
	infos := map[string][]byte{}
	for _, g := range grants {
		maps.Copy(infos, s.deviceInfos(g.ids))
		if f.specs == nil || len(g.nodal) == 0 {
			continue
		}
		if err := f.specs.Ensure(s.kind); err != nil {
			return status.Errorf(codes.Unavailable, "devices %v of pool %s: %v", g.nodal, s.resource, err)
		}
	}
	if f.infos == nil || len(infos) == 0 {
		return nil
	}
	if err := f.infos.Write(s.resource, infos); err != nil {
		return status.Errorf(codes.Unavailable, "devices of pool %s: %v", s.resource, err)
	}
	// For the pod that does not come to hold them after all: of a burst, once
	// after the last.
	f.settled.Reset(settle)
	return nil
}

// keep brings the files in line with the pools and what pods hold. Nothing is
// taken away while that is not known, and nothing is touched of a pool that a
// newer instance of the plugin has.
func (f *files) keep(all []*snapshot, h holdings, standby map[string]bool) {
	var errs []error
	if f.specs != nil {
		pools := make([]cdi.Pool, 0, len(all))
		for _, s := range all {
			nodes := map[string][]handout.Node{}
			for id, d := range s.devices {
				nodes[id] = d.Handout.Nodes
			}
			pools = append(pools, cdi.Pool{Kind: s.kind, Nodes: nodes})
		}
		errs = append(errs, f.specs.Want(pools, func(resource, id string) bool {
			return !h.known || slices.Contains(h.byResource[resource], id)
		}))
		if len(standby) == 0 {
			errs = append(errs, f.specs.Write())
		}
	}
	for _, s := range all {
		if f.infos == nil || !h.known || standby[s.resource] {
			continue
		}
		held := h.byResource[s.resource]
		errs = append(errs, f.infos.Restore(s.resource, s.deviceInfos(held)), f.infos.Sweep(s.resource, held))
	}
	say := ""
	if err := errors.Join(errs...); err != nil {
		say = err.Error()
	}
	if say != "" && say != f.told {
		f.log.Warn("files about devices", "err", say)
	}
	f.told = say
}
