package kubelet

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"

	"github.com/numalane/numalane/pkg/topology"
)

// Reader reads one kubelet. Its methods may be called from any goroutine.
type Reader struct {
	o            Options
	log          *slog.Logger
	podResources PodResources
	conn         *grpc.ClientConn // nil when Options.PodResources was given
	changes      changes
	states       states

	mu          sync.Mutex // one reading at a time
	settings    settings
	allocatable answer
	steady      steady
	arrival     *arrival // nil: it has arrived
	timer       *time.Timer
	said        string
}

// NewReader prepares to read; nothing of the kubelet needs to be there yet.
func NewReader(o Options) (*Reader, error) {
	o = o.withDefaults()
	r := &Reader{o: o, log: o.Logger.With("component", "kubelet"), podResources: o.PodResources}
	r.settings = settings{o: &r.o, log: r.log, stale: true}
	if o.Steady > 0 {
		r.arrival = &arrival{since: time.Now()}
	}
	if r.podResources == nil {
		conn, err := dialPodResources(o.PodResourcesSocket)
		if err != nil {
			return nil, err
		}
		r.conn, r.podResources = conn, podresources.NewPodResourcesListerClient(conn)
	}
	return r, nil
}

// Close gives the connection to PodResources back.
func (r *Reader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.timer != nil {
		r.timer.Stop()
	}
	if r.conn == nil {
		return nil
	}
	return r.conn.Close()
}

// Read says what the node is, has and has given away. An error says what is
// missing for that; the caller's last state stays good, and Changed tells when
// to try again.
func (r *Reader) Read(ctx context.Context, in Input) (topology.NodeState, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	state, err := r.read(ctx, &in)
	if err != nil {
		r.again(retryRead)
		return state, err
	}
	look := r.steady.hold(&state.Pools, time.Now(), r.o.Steady)
	if r.settings.stale {
		if next := time.Until(r.settings.next); look == 0 || next < look {
			look = next
		}
		look = max(look, time.Millisecond)
	}
	if state.Topology.Away && (look == 0 || look > lookAgain) {
		look = lookAgain
	}
	if look > 0 {
		r.again(look)
	}
	return state, nil
}

// retryRead is for what no file tells: a kubelet that does not answer yet.
const retryRead = time.Second

func (r *Reader) again(after time.Duration) {
	if r.timer == nil {
		r.timer = time.AfterFunc(after, r.changes.tell)
	} else {
		r.timer.Reset(after)
	}
}

// HeldDevices are the ids of the devices that the kubelet has noted as held,
// by resource, those of ended pods too until it takes them back. It needs
// neither the API nor a configuration.
func (r *Reader) HeldDevices() (map[string][]string, error) {
	b, err := r.checkpoint()
	if b == nil || err != nil {
		return nil, err
	}
	s, err := r.states.devices.of(b, ParseDeviceState)
	if err != nil {
		return nil, err
	}
	var held map[string][]string
	for _, d := range s.Held {
		put(&held, d.Resource, append(held[d.Resource], d.ID))
	}
	for resource, ids := range held {
		slices.Sort(ids)
		held[resource] = slices.Compact(ids)
	}
	return held, nil
}

// GivenNodes are the device nodes of the host that containers were given with
// the devices that they hold, by device id. It needs neither the API nor a
// configuration.
func (r *Reader) GivenNodes() (map[string][]string, error) {
	b, err := r.checkpoint()
	if b == nil || err != nil {
		return nil, err
	}
	return ParseGivenNodes(b)
}

// checkpoint is the text of the kubelet's checkpoint; nil: there is none.
func (r *Reader) checkpoint() ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(r.o.DevicePluginDir, checkpointName))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read what devices are held: %w", err)
	}
	return b, nil
}

func (r *Reader) read(ctx context.Context, in *Input) (topology.NodeState, error) {
	if r.changes.takeRestart() {
		r.settings.restart()
		r.allocatable.outdate()
		if r.o.Steady > 0 {
			r.arrival = &arrival{since: time.Now(), watched: true}
		}
	}
	config, err := r.settings.get(ctx)
	if err != nil {
		return topology.NodeState{}, err
	}
	s := &Snapshot{Config: config}
	if s.Allocatable, err = r.allocatable.get(ctx, r.podResources, &config); err != nil {
		return topology.NodeState{}, err
	}
	faults := readFiles(&r.o, &r.states, s)
	if r.allocatable.outdatedBy(s) {
		if s.Allocatable, err = r.allocatable.get(ctx, r.podResources, &config); err != nil {
			return topology.NodeState{}, err
		}
	}
	if s.NeedsActive(in) {
		if s.Active, err = askActive(ctx, r.podResources); err != nil {
			faults = append(faults, err)
			if s.Lost.any() {
				return topology.NodeState{}, errors.Join(faults...)
			}
		}
	}
	r.say(errors.Join(faults...))
	away := !r.arrived(ctx, s, in)
	state, err := Assemble(s, in)
	state.Topology.Away = away
	return state, err
}

// say logs a fault when it comes and when it is gone.
func (r *Reader) say(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text == r.said {
		return
	}
	r.said = text
	if err == nil {
		r.log.Info("the kubelet's state is read in full again")
		return
	}
	r.log.Warn("the kubelet's state cannot be read in full", "err", err)
}
