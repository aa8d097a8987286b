package inventory

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/numalane/numalane/pkg/topology"
)

// A source that ends is watched again, more and more seldom, and each time a
// scan finds what happened in between.
func TestSourcesAreWatchedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		scans := 0
		l := New(Options{
			Scan:     func() (*topology.Host, error) { scans++; return &topology.Host{}, nil },
			Interval: time.Hour,
			Logger:   slog.New(slog.NewTextHandler(&log, nil)),
		})
		var began []time.Duration
		start := time.Now()
		l.sources = []source{{"test", func(ctx context.Context, changed func()) error {
			began = append(began, time.Since(start))
			switch len(began) {
			case 5: // a long good time
				changed()
				time.Sleep(steady)
			case 7: // for good
				<-ctx.Done()
				return ctx.Err()
			}
			changed()
			return errors.New("no buffer space available")
		}}}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- l.Run(ctx) }()
		time.Sleep(time.Minute)
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v, want nil", err)
		}

		ms := time.Millisecond
		want := []time.Duration{0, 100 * ms, 300 * ms, 700 * ms, 1500 * ms, 11600 * ms, 11800 * ms}
		if len(began) != len(want) {
			t.Fatalf("watched at %v, want %v", began, want)
		}
		for i := range want {
			if began[i] != want[i] {
				t.Errorf("watch %d begins at %v, want %v", i, began[i], want[i])
			}
		}
		if scans < len(want) {
			t.Errorf("%d scans, want one for each time that events may have been lost", scans)
		}
		if n := strings.Count(log.String(), "no buffer space"); n != 2 {
			t.Errorf("the end is logged %d times, want once before the good time and once after it:\n%s", n, &log)
		}
	})
}

func TestMatters(t *testing.T) {
	tests := []struct {
		event string
		want  bool
	}{
		{"add@/devices/pci0000:3a/0000:3a:00.0/0000:3b:02.0\x00ACTION=add\x00SUBSYSTEM=pci\x00SEQNUM=1\x00", true},
		{"add@/devices/x\x00SUBSYSTEM=infiniband\x00", true},
		{"offline@/devices/system/cpu/cpu3\x00SUBSYSTEM=cpu\x00", true},
		{"add@/devices/x\x00SUBSYSTEM=auxiliary\x00", true},
		{"add@/devices/virtual/vhost-vdpa/vhost-vdpa-0\x00SUBSYSTEM=vhost-vdpa\x00", true},
		{"add@/devices/x\x00SUBSYSTEM=net\x00", false},
		{"add@/devices/x\x00SUBSYSTEM=pci_express\x00", false},
		{"add@/devices/x\x00DRIVER=SUBSYSTEM=pci\x00", false},
		{"add@/devices/x\x00", false},
		{"", false},
	}
	for _, test := range tests {
		if got := matters([]byte(test.event)); got != test.want {
			t.Errorf("%q: %v, want %v", test.event, got, test.want)
		}
	}
}
