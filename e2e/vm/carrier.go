package vm

import (
	"context"
	"fmt"
	"time"

	"github.com/numalane/numalane/e2e/vm/view"
)

// holdDown is that of the pools (files/pools.yaml).
const holdDown = time.Second

// carrier: the link of PF 0 goes and comes. Of its four VFs pod a holds one.
func (s *setting) carrier() []check {
	return []check{
		{"a PF without carrier makes its free VFs unhealthy, a hold-down after the kernel's event; a held one keeps its health", func(ctx context.Context) (string, error) {
			return s.link(ctx, "down", false, 1)
		}},
		{"the Node's annotation has that right after", func(ctx context.Context) (string, error) {
			return s.told(ctx, netVF, map[int][2]int{0: {4, 1}, 1: {3, 3}})
		}},
		{"a capture with a PF down reads as the machine does", func(ctx context.Context) (string, error) { return s.capture(ctx, "down") }},
		{"its carrier back makes them healthy, a hold-down after the kernel's event", func(ctx context.Context) (string, error) {
			return s.link(ctx, "up", true, 4)
		}},
		{"the Node's annotation has that right after", func(ctx context.Context) (string, error) {
			return s.told(ctx, netVF, map[int][2]int{0: {4, 4}, 1: {3, 3}})
		}},
	}
}

// link sets PF 0 up or down and waits for so many healthy VFs of it.
func (s *setting) link(ctx context.Context, to string, carrier bool, healthy int) (string, error) {
	name, err := s.sh(ctx, "ls /sys/bus/pci/devices/"+pfs[0]+"/net")
	if err != nil {
		return "", err
	}
	o, err := s.observe(ctx)
	if err != nil {
		return "", err
	}
	defer o.stop()
	if _, err := s.sh(ctx, "ip link set "+name+" "+to); err != nil {
		return "", err
	}
	event, err := o.first(ctx, 30*time.Second, "the kernel's event", func(e view.Event) bool { return e.Link == name && e.Carrier == carrier })
	if err != nil {
		return "", err
	}
	seen, err := o.first(ctx, 30*time.Second, fmt.Sprintf("%d healthy VFs", healthy), func(e view.Event) bool {
		return e.Devices != nil && e.Time.After(event.Time) && count(e.Devices, netVF, 0) == healthy
	})
	if err != nil {
		return "", err
	}
	if n := count(seen.Devices, netVF, 1); n != 3 {
		return "", fmt.Errorf("of the other PF's three VFs the kubelet has %d", n)
	}
	took := seen.Time.Sub(event.Time)
	// The kernel's event may be seen here a moment after the plugin has seen it.
	if took < holdDown-100*time.Millisecond || took > holdDown+s.soon() {
		return "", fmt.Errorf("%d ms after the kernel's event, with a hold-down of %s", took.Milliseconds(), holdDown)
	}
	return fmt.Sprintf("%d ms after it, with a hold-down of %s", took.Milliseconds(), holdDown), nil
}
