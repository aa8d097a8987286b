package inventory_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/numalane/numalane/internal/inventory"
	"github.com/numalane/numalane/pkg/topology"
)

// machine is what a scan finds: a number of devices, or an error.
type machine struct {
	devices atomic.Int64
	err     atomic.Pointer[error]
	scans   atomic.Int64
	took    time.Duration
}

func (m *machine) scan() (*topology.Host, error) {
	m.scans.Add(1)
	time.Sleep(m.took)
	if err := m.err.Load(); err != nil {
		return nil, *err
	}
	return &topology.Host{Devices: make([]topology.Device, m.devices.Load())}, nil
}

func (m *machine) fail(err error) { m.err.Store(&err) }

// start runs a loop until the test ends.
func start(t *testing.T, o inventory.Options) *inventory.Loop {
	l := inventory.New(o)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v, want nil when its context ends", err)
		}
	})
	return l
}

func TestScansAtOnceAndThenByTheTimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &machine{}
		l := start(t, inventory.Options{Scan: m.scan})
		synctest.Wait()
		if s := l.Latest(); s == nil || s.Generation != 1 {
			t.Fatalf("latest is %+v, want generation 1 at once", s)
		}
		m.devices.Store(2)
		time.Sleep(10*time.Second - time.Nanosecond)
		if n := m.scans.Load(); n != 1 {
			t.Errorf("%d scans before the interval, want 1", n)
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if s := l.Latest(); s.Generation != 2 || len(s.Host.Devices) != 2 {
			t.Errorf("latest is generation %d with %d devices, want 2 and 2", s.Generation, len(s.Host.Devices))
		}
	})
}

func TestLatestBeforeTheFirstScan(t *testing.T) {
	l := inventory.New(inventory.Options{})
	if s := l.Latest(); s != nil {
		t.Errorf("latest is %+v, want nil", s)
	}
	select {
	case s := <-l.Subscribe():
		t.Errorf("subscriber gets %+v, want nothing", s)
	default:
	}
}

func TestPublishesOnlyChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &machine{}
		l := start(t, inventory.Options{Scan: m.scan, Interval: time.Second})
		sub := l.Subscribe()
		if s := <-sub; s.Generation != 1 {
			t.Fatalf("generation %d, want 1", s.Generation)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n := m.scans.Load(); n != 11 {
			t.Errorf("%d scans in 10 s, want 11", n)
		}
		select {
		case s := <-sub:
			t.Errorf("generation %d of a machine that has not changed", s.Generation)
		default:
		}
	})
}

func TestSubscribersGetTheNewest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &machine{}
		l := start(t, inventory.Options{Scan: m.scan, Interval: time.Hour})
		slow := l.Subscribe()
		for n := range int64(5) {
			m.devices.Store(n + 1)
			l.Rescan()
			time.Sleep(time.Second)
			synctest.Wait()
		}
		late := l.Subscribe()
		for name, sub := range map[string]<-chan *inventory.Snapshot{"slow": slow, "late": late} {
			if s := <-sub; s != l.Latest() || len(s.Host.Devices) != 5 {
				t.Errorf("%s subscriber gets generation %d with %d devices, want the latest with 5", name, s.Generation, len(s.Host.Devices))
			}
			select {
			case s := <-sub:
				t.Errorf("%s subscriber gets a second one, generation %d", name, s.Generation)
			default:
			}
		}
	})
}

func TestRescanIsPromptAndBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &machine{}
		l := start(t, inventory.Options{Scan: m.scan, Interval: time.Hour})
		synctest.Wait()
		time.Sleep(time.Minute)
		before := m.scans.Load()

		// After a calm the first few are served without any time passing.
		l.Rescan()
		synctest.Wait()
		if n := m.scans.Load() - before; n != 1 {
			t.Fatalf("%d scans, want 1 at once", n)
		}
		// A storm of ten a millisecond for a second: one each 100 ms.
		for range 1000 {
			for range 10 {
				l.Rescan()
			}
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if n := m.scans.Load() - before; n < 10 || n > 14 {
			t.Errorf("%d scans in a storm of a second, want 10 to 14", n)
		}
	})
}

// A request that comes while a scan runs may be about what the scan has
// already passed: it gets a scan of its own.
func TestRescanDuringAScan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &machine{took: 50 * time.Millisecond}
		l := start(t, inventory.Options{Scan: m.scan, Interval: time.Hour})
		time.Sleep(25 * time.Millisecond)
		l.Rescan()
		time.Sleep(time.Second)
		if n := m.scans.Load(); n != 2 {
			t.Errorf("%d scans, want 2", n)
		}
	})
}

func TestFailedScanKeepsTheLastGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		m := &machine{}
		m.devices.Store(3)
		l := start(t, inventory.Options{
			Scan: m.scan, Interval: time.Minute,
			Logger: slog.New(slog.NewTextHandler(&log, nil)),
		})
		synctest.Wait()
		good := l.Latest()
		success := l.Stats().LastSuccess

		m.fail(errors.New("bus is gone"))
		l.Rescan()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if l.Latest() != good {
			t.Errorf("latest is %+v, want the last good one", l.Latest())
		}
		// 0, 0.25, 0.75, 1.75, 3.75 and 7.75 s after the request.
		if s := l.Stats(); s.Scans != 7 || s.Failures != 6 || s.LastSuccess != success {
			t.Errorf("stats %+v, want 7 scans, 6 failures, last success %v", s, success)
		}
		if n := strings.Count(log.String(), "bus is gone"); n != 1 {
			t.Errorf("one error is logged %d times, want 1:\n%s", n, &log)
		}

		m.fail(fmt.Errorf("another"))
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := strings.Count(log.String(), "another"); n != 1 {
			t.Errorf("another error is logged %d times, want 1:\n%s", n, &log)
		}

		m.err.Store(nil)
		m.devices.Store(4)
		time.Sleep(time.Minute)
		synctest.Wait()
		if s := l.Latest(); s.Generation != 2 || len(s.Host.Devices) != 4 {
			t.Errorf("latest is generation %d with %d devices, want 2 and 4", s.Generation, len(s.Host.Devices))
		}
		if n := strings.Count(log.String(), "scan works again"); n != 1 {
			t.Errorf("the recovery is logged %d times, want 1:\n%s", n, &log)
		}
	})
}

func TestRunEndsWhileItWaitsForTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &machine{}
		l := inventory.New(inventory.Options{Scan: m.scan, MinInterval: time.Hour})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- l.Run(ctx) }()
		for range 4 {
			l.Rescan()
			synctest.Wait()
		}
		if n := m.scans.Load(); n != 3 {
			t.Fatalf("%d scans, want 3 and one that waits", n)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v, want nil", err)
		}
	})
}
