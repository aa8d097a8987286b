package plugin

import (
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/numalane/numalane/internal/handout"
)

// TestSettle: after a burst of grants the files are gone through once, when the
// newest of them may go.
func TestSettle(t *testing.T) {
	dir := t.TempDir()
	p := Pool{Resource: "intel.com/sriov-net"}
	for i := range 16 {
		p.Devices = append(p.Devices, Device{ID: fmt.Sprintf("0000:3b:02.%d", i), Healthy: true, Handout: handout.Handout{DeviceInfo: []byte("{}")}})
	}
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		var rechecks []time.Duration
		f := newFiles(Options{DeviceInfoDir: dir, Logger: slog.Default()}, func() { rechecks = append(rechecks, time.Since(begun)) })
		s := snapshotOf(p, true, nil, &snapshot{})
		for _, d := range p.Devices {
			g, err := s.grant([]string{d.ID})
			if err != nil {
				t.Fatal(err)
			}
			if err := f.write(s, []grant{g}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if want := 15*time.Second + settle; len(rechecks) != 1 || rechecks[0] != want {
			t.Errorf("gone through the files after %v, want once after %v", rechecks, want)
		}
	})
}
