package plugin

import (
	"context"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"

	"github.com/numalane/numalane/pkg/allocator"
)

// service answers the kubelet for the time of one session.
type service struct {
	pluginapi.UnimplementedDevicePluginServer

	pool       *cell[*snapshot]
	superseded *cell[bool] // a newer instance tells the kubelet of the devices
	files      *files
	onAllocate func()

	opened  chan struct{} // closed when the first stream opens
	ended   chan struct{} // closed when the last one has ended
	closing chan struct{} // closed by the session: end all streams

	mu      sync.Mutex
	streams int
	over    bool
}

func newService(pool *cell[*snapshot], superseded *cell[bool], files *files, onAllocate func()) *service {
	return &service{
		pool:       pool,
		superseded: superseded,
		files:      files,
		onAllocate: onAllocate,
		opened:     make(chan struct{}),
		ended:      make(chan struct{}),
		closing:    make(chan struct{}),
	}
}

// GetDevicePluginOptions is where the kubelet reads the options; those in a
// RegisterRequest it ignores.
func (s *service) GetDevicePluginOptions(context.Context, *pluginapi.Empty) (*pluginapi.DevicePluginOptions, error) {
	return &pluginapi.DevicePluginOptions{GetPreferredAllocationAvailable: true}, nil
}

// ListAndWatch sends the whole list, once at first and then only when it has
// changed: the kubelet writes its checkpoint at each message. While a newer
// instance has the pool it sends nothing: the kubelet takes the last message of
// whatever stream (devicemanager genericDeviceUpdateCallback), and ours may be
// the older truth. The stream stays open all the same: from 1.37 on the kubelet
// falls back on it should the newer instance be killed (PluginDisconnected), and
// the node has devices all the time. What it was just then asking the other one
// it does not ask again.
func (s *service) ListAndWatch(_ *pluginapi.Empty, stream pluginapi.DevicePlugin_ListAndWatchServer) error {
	if !s.streamOpens() {
		return status.Error(codes.Unavailable, "this session has ended, another socket is being registered")
	}
	defer s.streamEnds()
	var sent *pluginapi.ListAndWatchResponse
	for {
		superseded, changed := s.superseded.get()
		pool, replaced := s.pool.get()
		if sent == nil || !superseded && !proto.Equal(sent, pool.list) {
			if err := stream.Send(pool.list); err != nil {
				return err
			}
			sent = pool.list
		}
		select {
		case <-replaced:
		case <-changed:
		case <-s.closing:
			return nil
		case <-stream.Context().Done():
			return status.FromContextError(stream.Context().Err()).Err()
		}
	}
}

func (s *service) streamOpens() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return false
	}
	if s.streams++; s.streams == 1 {
		close(s.opened)
	}
	return true
}

func (s *service) hasOpened() bool {
	select {
	case <-s.opened:
		return true
	default:
		return false
	}
}

func (s *service) streamEnds() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams--; s.streams == 0 {
		s.over = true
		close(s.ended)
	}
}

// GetPreferredAllocation never returns an error, which would reject the pod
// (devicemanager devicesToAllocate). Ids that the pool does not have are left
// out; the kubelet fills a short answer up by itself.
func (s *service) GetPreferredAllocation(_ context.Context, req *pluginapi.PreferredAllocationRequest) (*pluginapi.PreferredAllocationResponse, error) {
	pool := s.pool.value()
	resp := &pluginapi.PreferredAllocationResponse{}
	for _, c := range req.GetContainerRequests() {
		resp.ContainerResponses = append(resp.ContainerResponses, &pluginapi.ContainerPreferredAllocationResponse{
			DeviceIDs: pool.prefer(c.GetAvailableDeviceIDs(), c.GetMustIncludeDeviceIDs(), int(c.GetAllocationSize())),
		})
	}
	return resp, nil
}

func (s *snapshot) prefer(ids, mustInclude []string, size int) []string {
	available := make([]allocator.Device, 0, len(ids))
	seen := make(map[string]bool, len(ids))
	for _, id := range ids {
		d, known := s.devices[id]
		if !known || seen[id] {
			continue
		}
		seen[id] = true
		// By the NUMA nodes that the kubelet is told: what it is not told, no
		// scheduler can foretell.
		available = append(available, allocator.Device{ID: id, NUMANodes: s.numaNodes(&d), PF: d.PF, Upstream: d.Upstream})
	}
	if size <= 0 || len(available) == 0 {
		return nil
	}
	return allocator.Prefer(s.policy, s.between, available, mustInclude, min(size, len(available)))
}

// Allocate tells what the containers need to use their devices, and has the
// files in place that go with it. An error rejects the pod, which could not have
// worked, and leaves nothing behind. The kubelet asks for one container at a
// time; of several, all get theirs or none.
func (s *service) Allocate(_ context.Context, req *pluginapi.AllocateRequest) (*pluginapi.AllocateResponse, error) {
	defer s.onAllocate()
	pool := s.pool.value()
	resp := &pluginapi.AllocateResponse{}
	var grants []grant
	for _, c := range req.GetContainerRequests() {
		g, err := pool.grant(c.GetDevicesIds())
		if err != nil {
			return nil, err
		}
		a, err := s.files.answer(&g)
		if err != nil {
			return nil, err
		}
		grants = append(grants, g)
		resp.ContainerResponses = append(resp.ContainerResponses, a)
	}
	if err := s.files.write(pool, grants); err != nil {
		return nil, err
	}
	return resp, nil
}
