package storm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

const (
	// mostKept is how much of the end of each log is kept.
	mostKept = 4 << 20
	// mostLogged is how large a log may become. Logs are in memory (the box is
	// on a tmpfs), and a storm may last as long as one likes.
	mostLogged = 64 << 20
	capEvery   = 10 * time.Second
)

// capLogs begins logs anew that have become too large. Whoever writes one only
// ever appends.
func (s *Storm) capLogs(ctx context.Context) error {
	tick := time.NewTicker(capEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		for _, p := range s.c.Processes() {
			size, err := sizeOf(p.Log)
			if err != nil {
				return fmt.Errorf("cap logs: %w", err)
			}
			if size < mostLogged {
				continue
			}
			if err := os.Truncate(p.Log, 0); err != nil {
				return fmt.Errorf("cap logs: %w", err)
			}
			s.journal.Note("", fmt.Sprintf("the log of %s begins anew after %d MiB", p.Name, size>>20))
		}
	}
}

func sizeOf(path string) (int64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// bulk tells how much the storm has written and holds: both are memory.
func (s *Storm) bulk() (logs, self int64, err error) {
	for _, p := range s.c.Processes() {
		size, err := sizeOf(p.Log)
		if err != nil {
			return 0, 0, err
		}
		logs += size
	}
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, 0, err
	}
	var size, resident int64
	if _, err := fmt.Sscan(string(b), &size, &resident); err != nil {
		return 0, 0, fmt.Errorf("read statm: %w", err)
	}
	return logs, resident * int64(os.Getpagesize()), nil
}

// keepLogs copies the processes' logs out of the box, which ends with the storm.
func (s *Storm) keepLogs() error {
	dir := filepath.Join(s.Keep, fmt.Sprintf("logs-%d", s.Seed))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("keep logs: %w", err)
	}
	if err := s.keepJournal(filepath.Join(dir, "journal.txt")); err != nil {
		return fmt.Errorf("keep logs: %w", err)
	}
	for _, p := range s.c.Processes() {
		b, err := os.ReadFile(p.Log)
		if err != nil {
			return fmt.Errorf("keep logs: %w", err)
		}
		if len(b) > mostKept {
			b = b[len(b)-mostKept:]
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(p.Log)), b, 0o644); err != nil {
			return fmt.Errorf("keep logs: %w", err)
		}
	}
	return nil
}

// keepJournal writes all events, so that what a trace leaves out can be looked up.
func (s *Storm) keepJournal(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	for _, e := range s.journal.Events() {
		fmt.Fprintln(w, e.String())
	}
	return errors.Join(w.Flush(), f.Close())
}
