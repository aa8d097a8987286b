package registration_test

import (
	"slices"
	"testing"
)

// TestSurgeUpgrade: two plugins beside each other, of which one ends, in every
// way there is. A kubelet from 1.37 on never has less to give meanwhile, and pods
// come at any moment. An older one throws the younger out when the older ends
// (plugin/v1beta1 runClient), which comes back by itself. No device is lost or
// given twice.
//
// Where the younger is killed, which the kubelet calls, it closes that connection
// before it goes over to the other; no pod is brought in between.
func TestSurgeUpgrade(t *testing.T) {
	onEach(t, func(t *testing.T, minor int) {
		n := newNode(t, minor)
		older := n.startPlugin()
		older.live(1)
		n.count(8, 8)
		streams := 1 // of the older
		given := []string{}
		give := func(name string, run func(string, ...int64) []string) {
			t.Helper()
			id := run(name, 1)[0]
			if slices.Contains(given, id) {
				t.Errorf("pod %s is given %s, which another holds", name, id)
			}
			given = append(given, id)
		}
		since := n.now()
		for i, round := range []struct {
			name         string
			end          func(older, younger *process)
			youngerStays bool
		}{
			{"younger-ends", func(_, younger *process) { younger.stop() }, false},
			{"younger-killed", func(_, younger *process) { younger.kill() }, false},
			{"older-ends", func(older, _ *process) { older.stop() }, true},
			{"older-killed", func(older, _ *process) { older.kill() }, true},
		} {
			younger := n.startPlugin()
			younger.live(1)
			older.says(standsBy, standings(i))
			n.count(8, 8)
			give(round.name+"-beside", n.run)
			round.end(older, younger)
			if round.youngerStays {
				older, streams = younger, 1
				if minor < 37 {
					streams++ // it was thrown out
				}
			} else {
				streams++
			}
			if minor >= 37 && round.name != "younger-killed" {
				give(round.name+"-at-once", n.run)
			}
			older.live(streams)
			n.count(8, 8)
			if minor < 37 || round.name == "younger-killed" {
				give(round.name+"-after", n.runAtLast)
			}
		}
		if minor >= 37 {
			n.never(since, allUnhealthy)
		}
		n.never(since, ghost)
		n.never(since, notConnected)
		if len(given) != 8 {
			t.Errorf("%d pods have a device, want 8: %v", len(given), given)
		}
	})
}

// standings is how often the older instance of a round has stood by: the first
// lives through two rounds more.
func standings(round int) int { return []int{1, 2, 3, 1}[round] }

// TestSurgeAndKubeletRestart: two plugins do not fight for a kubelet that starts
// anew. The younger has it, and the older when that ends. Where both registered
// at once, a kubelet up to 1.36 throws the younger out when the older gives way,
// and refuses what comes before it is back.
func TestSurgeAndKubeletRestart(t *testing.T) {
	onEach(t, func(t *testing.T, minor int) {
		n := newNode(t, minor)
		older := n.startPlugin()
		older.live(1)
		younger := n.startPlugin()
		younger.live(1)
		older.says(standsBy, 1)
		held := n.run("before", 2)
		n.kubelet.Kill()
		since := n.now()
		n.startKubelet()
		younger.live(2)
		n.count(8, 8)
		if again := n.runAtLast("before", 2); !slices.Equal(again, held) {
			t.Errorf("the pod holds %v, and before the restart %v", again, held)
		}
		n.runAtLast("beside", 2)
		younger.stop()
		older.live(2)
		n.runAtLast("after", 2)
		n.count(8, 8)
		n.never(since, ghost)
		n.never(since, notConnected)
	})
}
