package vm

import (
	"context"
	"fmt"
	"time"

	"github.com/numalane/numalane/e2e/vm/view"
)

// holdDown is that of the pools (files/pools.yaml).
const holdDown = time.Second

// carrier: the link of PF 0 goes and comes. Of its four VFs pods a and m hold one
// each.
func (s *setting) carrier() act {
	all := map[int][2]int{0: {4, 4}, 1: {3, 3}}
	return act{
		{{"a PF without carrier makes its free VFs unhealthy, a hold-down after the kernel's event; held ones keep their health", func(ctx context.Context) (string, error) {
			return s.link(ctx, "down", false, 2)
		}}},
		{
			{"the Node's annotation has that right after", func(ctx context.Context) (string, error) {
				return s.told(ctx, netVF, map[int][2]int{0: {4, 2}, 1: {3, 3}})
			}},
			{"a capture with a PF down reads as the machine does", s.capture("down")},
		},
		{{"its carrier back makes them healthy, a hold-down after the kernel's event", func(ctx context.Context) (string, error) {
			return s.link(ctx, "up", true, 4)
		}}},
		{{"the Node's annotation has that right after", func(ctx context.Context) (string, error) { return s.told(ctx, netVF, all) }}},
	}
}

// link sets PF 0 up or down and waits for so many healthy VFs of it.
func (s *setting) link(ctx context.Context, to string, carrier bool, healthy int) (string, error) {
	name, err := s.sh(ctx, "ls /sys/bus/pci/devices/"+pfs[0]+"/net")
	if err != nil {
		return "", err
	}
	from := s.seen.now()
	if _, err := s.sh(ctx, "ip link set "+name+" "+to); err != nil {
		return "", err
	}
	event, err := s.seen.first(ctx, from, time.Minute, "the kernel's event", func(e view.Event) bool { return e.Link == name && e.Carrier == carrier })
	if err != nil {
		return "", err
	}
	seen, err := s.seen.first(ctx, from, time.Minute, fmt.Sprintf("%d healthy VFs", healthy), func(e view.Event) bool {
		return e.Devices != nil && e.Time.After(event.Time) && count(e.Devices, netVF, 0) == healthy
	})
	if err != nil {
		return "", err
	}
	if n := count(seen.Devices, netVF, 1); n != 3 {
		return "", fmt.Errorf("of the other PF's three VFs the kubelet has %d", n)
	}
	// The kernel's event may be seen here a moment after the plugin has seen it.
	if took := seen.Time.Sub(event.Time); took < holdDown-200*time.Millisecond {
		return "", fmt.Errorf("%d ms after the kernel's event, with a hold-down of %s", took.Milliseconds(), holdDown)
	}
	return s.since(ctx, from, holdDown, seen, netVF, "the kernel's event and a hold-down of "+holdDown.String(), func(e view.Event) bool { return e.Time.Equal(event.Time) })
}
