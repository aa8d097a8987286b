package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/numalane/numalane/e2e/vm/view"
)

// pluginLog is where containerd writes what the plugin's containers print.
const pluginLog = "/var/log/pods/numalane_numalane-plugin-*/numalane-plugin/*.log"

// follower reads what plugins tell the kubelet, of every container that there
// has been.
type follower struct {
	pattern string
	offsets map[string]int64 // what has been read of each file
}

// start is what was told last of each pool.
func (f *follower) start() ([]view.Told, error) {
	all, err := f.read()
	last := map[string]view.Told{}
	for _, t := range all {
		last[t.Resource] = t
	}
	return slices.Collect(maps.Values(last)), err
}

// read is what has been logged since the last time.
func (f *follower) read() ([]view.Told, error) {
	files, err := filepath.Glob(f.pattern)
	if err != nil {
		return nil, err
	}
	var all []view.Told
	for _, file := range files {
		b, err := f.added(file)
		if err != nil {
			return nil, err
		}
		for line := range bytes.Lines(b) {
			// TIME stderr F {…}
			parts := bytes.SplitN(line, []byte(" "), 4)
			var t view.Told
			if len(parts) == 4 && json.Unmarshal(parts[3], &t) == nil && t.Msg == "devices" && t.Resource != "" {
				all = append(all, t)
			}
		}
	}
	slices.SortFunc(all, func(a, b view.Told) int { return a.Time.Compare(b.Time) })
	return all, nil
}

// added are the whole lines that a file has more than before. It may go with
// its pod.
func (f *follower) added(name string) ([]byte, error) {
	file, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	b, err := io.ReadAll(io.NewSectionReader(file, f.offsets[name], 1<<30))
	b = b[:bytes.LastIndexByte(b, '\n')+1]
	f.offsets[name] += int64(len(b))
	return b, err
}
