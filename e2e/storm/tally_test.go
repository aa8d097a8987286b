package storm

import (
	"testing"
	"time"
)

// good is a storm that holds all that it must.
func good() Tally {
	return Tally{
		Pods: 2813, Kills: 164, Lost: 12, Foreign: 7, Outrun: 1, Admitted: 2700,
		Lasted: 10 * time.Minute, Occupancy: 0.912, Best: 0.93, OccupancyKnown: true,
	}
}

func TestLine(t *testing.T) {
	tally := good()
	tally.Refused, tally.Double, tally.Misaligned, tally.Stuck = 1, 2, 3, 4
	const want = "storm: 2813 pods, 164 kills, refused by kubelet 1, double-booked 2, misaligned 3, stuck 4, lost to kills 12, foreign 7, occupancy 91.2%, 4.5 pods/s"
	if got := tally.Line(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	tally.PlainScheduler = true
	if got := tally.Line(); got != want+", without the extender, for comparison" {
		t.Errorf("without the extender it is %s", got)
	}
}

func TestErr(t *testing.T) {
	tests := map[string]struct {
		change func(*Tally)
		fails  bool
	}{
		"good":                    {func(*Tally) {}, false},
		"refused":                 {func(t *Tally) { t.Refused = 1 }, true},
		"double-booked":           {func(t *Tally) { t.Double = 1 }, true},
		"misaligned":              {func(t *Tally) { t.Misaligned = 1 }, true},
		"stuck":                   {func(t *Tally) { t.Stuck = 1 }, true},
		"timid":                   {func(t *Tally) { t.Occupancy = 0.899 }, true},
		"no fill act":             {func(t *Tally) { t.OccupancyKnown = false }, true},
		"few pods":                {func(t *Tally) { t.Pods = 100 }, true},
		"few kills":               {func(t *Tally) { t.Kills = 3 }, true},
		"mispredicted":            {func(t *Tally) { t.Mispredictions, t.MispredictionsKnown = 1, true }, true},
		"refused, for comparison": {func(t *Tally) { t.Refused, t.PlainScheduler = 9, true }, false},
		"misaligned all the same": {func(t *Tally) { t.Misaligned, t.PlainScheduler = 1, true }, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tally := good()
			tt.change(&tally)
			if err := tally.Err(); (err != nil) != tt.fails {
				t.Errorf("error %v, want one: %t", err, tt.fails)
			}
		})
	}
}
