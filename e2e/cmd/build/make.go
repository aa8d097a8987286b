package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

func build(out, ldflags string, binaries []binary) error {
	for _, b := range binaries {
		start := time.Now()
		fmt.Printf("  %-24s", b.name)
		cmd := exec.Command("go", "build", "-trimpath", "-gcflags", "all=-dwarf=false", "-tags", b.tags, "-ldflags", ldflags, "-o", filepath.Join(out, b.name), b.pkg)
		cmd.Dir = b.dir
		// Compiler and linker collect less garbage, unless the user wants it otherwise.
		cmd.Env = append(append([]string{"GOGC=400"}, os.Environ()...), "CGO_ENABLED=0")
		done := alive(start)
		msg, err := cmd.CombinedOutput()
		done()
		if err != nil {
			fmt.Println()
			return fmt.Errorf("%s: %w\n%s", b.name, err, msg)
		}
		fmt.Printf(" %6.1fs\n", time.Since(start).Seconds())
	}
	return nil
}

// alive prints every half minute how long a build has taken, until it is told
// that it is done.
func alive(start time.Time) (done func()) {
	tick := time.NewTicker(30 * time.Second)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-tick.C:
				fmt.Printf(" %.0fs …", time.Since(start).Seconds())
			case <-stop:
				return
			}
		}
	}()
	return func() {
		tick.Stop()
		close(stop)
		<-stopped
	}
}

func present(out string, binaries []binary) bool {
	for _, b := range binaries {
		if _, err := os.Stat(filepath.Join(out, b.name)); err != nil {
			return false
		}
	}
	return true
}
