package storm

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// mostKept is how much of the end of each log is kept.
const mostKept = 4 << 20

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
