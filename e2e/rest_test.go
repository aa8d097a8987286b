package e2e

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/numalane/numalane/e2e/cluster"
	"github.com/numalane/numalane/internal/sysfstest"
)

var atRest = flag.Duration("rest", 10*time.Second, "how long TestAtRest looks at the plugin at rest")

// TestAtRest prints what the plugin takes while nothing happens, with 64 VFs of
// which pods hold 16, and holds it to 0.5% of a core and 40 MB; the figure to
// quote is that of a minute on a quiet machine:
//
//	go test -run AtRest -v . -rest 1m
func TestAtRest(t *testing.T) {
	c := control(t)
	n := node(t, c, "n1", sysfstest.Uniform(2, 24, 1, sysfstest.X710("0000:3b:00.0", 0, 32), sysfstest.X710("0000:af:00.0", 1, 32)), 64,
		"--rescan-interval", "1m", "--listen", address(t))
	processes := c.Processes()
	p := processes[len(processes)-1]
	for i := range 16 {
		bindTo(t, c, n, pod(fmt.Sprintf("p-%02d", i), 1, 1))
	}
	truth(t, c, n, 64)
	<-time.After(10 * time.Second) // nothing is left to be done
	before, began := cpu(t, p), time.Now()
	<-time.After(*atRest)
	share := float64(cpu(t, p)-before) / float64(time.Since(began))
	resident, err := p.Resident()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("at rest for %s: %.3f%% of a core, %d MB resident", *atRest, 100*share, resident>>20)
	if share > 0.005 || resident > 40<<20 {
		t.Error("that is more than it may be")
	}
}

// cpu is the time that a process has run, by its threads, of which Go ends none.
func cpu(t *testing.T, p *cluster.Process) (sum time.Duration) {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.PID()))
	if err != nil || len(files) == 0 {
		t.Fatalf("threads of %s: %v, %v", p.Name, files, err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var ns int64
		if _, err := fmt.Sscan(string(b), &ns); err != nil {
			t.Fatal(err)
		}
		sum += time.Duration(ns)
	}
	return sum
}
