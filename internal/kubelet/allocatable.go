package kubelet

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/numalane/numalane/pkg/topology"
)

// freshFor is how long an answer of PodResources is taken for the present one
// while the kubelet's checkpoint has the same devices. The kubelet bears 100
// calls a second from all that ask (apis/podresources, DefaultQPS), and while
// it admits pods its files are read as often.
const freshFor = time.Second

// answer keeps what the kubelet said that it may give away: devices that come
// and go show in its checkpoint (devicemanager genericDeviceUpdateCallback), all
// else is settled when it starts. The end of another vendor's plugin shows
// nowhere (markResourceUnhealthy), so no answer is good for long.
type answer struct {
	last    *Allocatable // nil: none yet
	asked   time.Time
	healthy map[string][]string // in the checkpoint since
}

// get asks again where the last answer is old. It takes the last answer of a
// kubelet that does not answer: that is down, and gives nothing away.
func (a *answer) get(ctx context.Context, kubelet PodResources, c *Config) (Allocatable, error) {
	if a.last != nil && time.Since(a.asked) < freshFor && a.last.complete(c) {
		return *a.last, nil
	}
	got, err := askAllocatable(ctx, kubelet)
	if err == nil {
		a.last, a.asked = &got, time.Now()
	}
	if a.last == nil {
		return Allocatable{}, err
	}
	return *a.last, nil
}

// outdatedBy tells whether the checkpoint, read after the answer, has other
// devices than it had.
func (a *answer) outdatedBy(s *Snapshot) bool {
	if s.Lost.Devices {
		a.outdate()
		return false
	}
	if maps.EqualFunc(a.healthy, s.Devices.Healthy, slices.Equal) {
		return false
	}
	a.healthy = s.Devices.Healthy
	a.outdate()
	return true
}

func (a *answer) outdate() { a.asked = time.Time{} }

// complete is false for a kubelet whose managers may not have started yet.
func (a *Allocatable) complete(c *Config) bool {
	return (c.CPUManagerPolicy != topology.CPUManagerStatic || !a.CPUs.IsEmpty()) &&
		(c.MemoryManagerPolicy != topology.MemoryManagerStatic || len(a.Memory) > 0)
}
