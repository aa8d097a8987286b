package storm

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/numalane/numalane/e2e/storm/journal"
)

// mostSaid is how many lines of one log go into a trace.
const mostSaid = 40

// said writes what the node's kubelet and plugin, and the extender, logged about
// a pod. A kubelet's lines have its UID or its name.
func (s *Storm) said(w io.Writer, p *journal.Pod) error {
	var errs []error
	for _, m := range s.members {
		if m.Name == p.Node {
			errs = append(errs, mentions(w, m.Live.Kubelet.Log, string(p.UID), p.Name), mentions(w, m.Plugin.Log, string(p.UID), p.Name))
		}
	}
	if s.extender != nil {
		errs = append(errs, mentions(w, s.extender.Log, string(p.UID), p.Name))
	}
	_, err := fmt.Fprintln(w)
	return errors.Join(append(errs, err)...)
}

func mentions(w io.Writer, path string, words ...string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("look for what was logged: %w", err)
	}
	defer f.Close()
	fmt.Fprintf(w, "%s says:\n", filepath.Base(path))
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for left := mostSaid; left > 0 && lines.Scan(); {
		for _, word := range words {
			if strings.Contains(lines.Text(), word) {
				fmt.Fprintln(w, "  "+lines.Text())
				left--
				break
			}
		}
	}
	return lines.Err()
}
