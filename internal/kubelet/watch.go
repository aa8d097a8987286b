package kubelet

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

// resync is for what no event told: a folder that came later or was replaced,
// and a full inotify queue. It costs one reading.
const resync = 30 * time.Second

// Changed gives a channel that has a token after each change of what Read
// reads, any number of changes being one token while none is taken. Each call
// makes a channel of its own. The token is the time of the first of the changes.
func (r *Reader) Changed() <-chan time.Time { return r.changes.subscribe() }

// Poke counts as a change. The plugin calls it after its own Allocate, which
// comes just before the kubelet writes its files.
func (r *Reader) Poke() { r.changes.tell() }

// Watch tells changes of the kubelet's files until ctx ends. The files need
// not exist yet, nor their folders.
func (r *Reader) Watch(ctx context.Context) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch the kubelet's files: %w", err)
	}
	defer w.Close()
	// The files are replaced by rename, so their folders are watched.
	watched := map[string]bool{}
	add := func() {
		for _, dir := range []string{r.o.Dir, r.o.DevicePluginDir} {
			was, tried := watched[dir]
			err := w.Add(dir)
			if err != nil && (was || !tried) {
				r.log.Warn("cannot watch a folder of the kubelet, will try again", "folder", dir, "err", err)
			}
			watched[dir] = err == nil
		}
		r.changes.tell()
	}
	add()
	tick := time.NewTicker(resync)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-w.Events:
			if !ok {
				return errors.New("watch the kubelet's files: the watch ended")
			}
			switch {
			case e.Name == r.o.DevicePluginDir && e.Has(fsnotify.Create):
				add()
			case e.Name == filepath.Join(r.o.DevicePluginDir, kubeletSocket) && e.Has(fsnotify.Create):
				// The kubelet makes its socket anew at every start.
				r.changes.tellRestart()
			case r.isStateFile(e.Name):
				r.changes.tell()
			}
		case err, ok := <-w.Errors:
			if !ok {
				return errors.New("watch the kubelet's files: the watch ended")
			}
			r.log.Warn("an event of the kubelet's files may be lost, reading them again", "err", err)
			r.changes.tell()
		case <-tick.C:
			add()
		}
	}
}

func (r *Reader) isStateFile(path string) bool {
	switch path {
	case filepath.Join(r.o.Dir, cpuStateFile), filepath.Join(r.o.Dir, memoryStateFile),
		filepath.Join(r.o.DevicePluginDir, checkpointName):
		return true
	}
	return false
}

// changes tells subscribers that something changed.
type changes struct {
	mu          sync.Mutex
	subscribers []chan time.Time
	restarted   bool
}

func (c *changes) subscribe() <-chan time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch := make(chan time.Time, 1)
	c.subscribers = append(c.subscribers, ch)
	return ch
}

func (c *changes) tell() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.notify()
}

func (c *changes) tellRestart() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.restarted = true
	c.notify()
}

func (c *changes) notify() {
	now := time.Now()
	for _, ch := range c.subscribers {
		select {
		case ch <- now:
		default:
		}
	}
}

// takeRestart tells once of a restart.
func (c *changes) takeRestart() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	was := c.restarted
	c.restarted = false
	return was
}
