package storm

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Tally is what a storm comes to.
type Tally struct {
	Pods, Kills                         int
	Refused, Double, Misaligned, Stuck  int
	Lost, Foreign, Outrun, Behind       int
	Crashes                             []string // processes that ended by themselves
	Occupancy, Best                     float64  // of the fill act: shares of the VFs
	Admitted                            int      // under the load, without the fill act
	Lasted                              time.Duration
	PlainScheduler                      bool // the same load without the extender
	Mispredictions                      float64
	MispredictionsKnown, OccupancyKnown bool
}

// Line is the last one.
func (t *Tally) Line() string {
	line := fmt.Sprintf("storm: %d pods, %d kills, refused by kubelet %d, double-booked %d, misaligned %d, stuck %d, lost to kills %d, foreign %d, occupancy %.1f%%, %.1f pods/s",
		t.Pods, t.Kills, t.Refused, t.Double, t.Misaligned, t.Stuck, t.Lost, t.Foreign, 100*t.Occupancy, float64(t.Admitted)/max(t.Lasted.Seconds(), 1))
	if t.PlainScheduler {
		line += ", without the extender, for comparison"
	}
	return line
}

const (
	// leastPods and leastKills are what a minute of a storm must come to: one that
	// did nothing must not pass.
	leastPods, leastKills = 60, 4
	// margin is how far the occupancy may be below that of the exhaustive search.
	margin = 0.03
)

// Err tells what a storm did not hold.
func (t *Tally) Err() error {
	var errs []error
	must := func(holds bool, format string, args ...any) {
		if !holds {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	minutes := t.Lasted.Minutes()
	must(float64(t.Pods) >= leastPods*minutes && float64(t.Kills) >= leastKills*minutes, "too little happened: %d pods and %d kills in %s", t.Pods, t.Kills, t.Lasted.Round(time.Second))
	for _, name := range t.Crashes {
		must(!strings.Contains(name, "numalane-extender") && !strings.HasSuffix(name, "-plugin"), "%s ended by itself", name)
	}
	must(t.Double == 0, "%d devices or CPUs were held twice", t.Double)
	must(t.Misaligned == 0, "%d pods span NUMA nodes", t.Misaligned)
	if t.PlainScheduler {
		return errors.Join(errs...) // what it refuses and leaves is the comparison
	}
	must(t.Refused == 0, "%d pods were refused", t.Refused)
	must(t.Stuck == 0, "%d pods are stuck", t.Stuck)
	must(t.OccupancyKnown, "the fill act did not come to an end")
	must(t.Occupancy >= t.Best-margin, "occupancy %.1f%%, an exhaustive search reaches %.1f%%", 100*t.Occupancy, 100*t.Best)
	must(!t.MispredictionsKnown || t.Mispredictions == 0, "%.0f pods came to sit elsewhere than foretold", t.Mispredictions)
	return errors.Join(errs...)
}
