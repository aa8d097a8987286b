package kubelet

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

// resync is for what no event told: a folder that came later or was replaced,
// and a full inotify queue. It costs one reading.
const resync = time.Minute

// Changed gives a channel that has a token after each change of what Read
// reads, any number of changes being one token while none is taken. Each call
// makes a channel of its own. The token is the time of the first of the changes.
func (r *Reader) Changed() <-chan time.Time { return r.changes.subscribe() }

// Poke counts as a change. The plugin calls it after its own Allocate, which
// comes just before the kubelet writes its files.
func (r *Reader) Poke() { r.changes.tell() }

// Lost says that no kubelet listens: the next one that does has just started.
func (r *Reader) Lost() { r.changes.expectRestart() }

// Watch tells changes of the kubelet's files until ctx ends. The files need
// not exist yet, nor their folders. Without inotify, of which a node has few
// instances for all of its root (fs.inotify.max_user_instances), it looks.
func (r *Reader) Watch(ctx context.Context) error {
	for ctx.Err() == nil {
		w, err := fsnotify.NewWatcher()
		if err != nil {
			r.log.Warn("no inotify watch on the kubelet's files, looking at them instead; raise fs.inotify.max_user_instances", "err", err)
			r.look(ctx, resync)
		} else if err := r.follow(ctx, w); err != nil {
			r.log.Warn("the watch on the kubelet's files ended, starting another", "err", err)
		}
	}
	return nil
}

// follow tells what inotify does.
func (r *Reader) follow(ctx context.Context, w *fsnotify.Watcher) error {
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
				return errors.New("no more events")
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
				return errors.New("no more events")
			}
			r.log.Warn("an event of the kubelet's files may be lost, reading them again", "err", err)
			r.changes.tell()
		case <-tick.C:
			add()
		}
	}
}

// lookEvery is how late a change is told without inotify.
const lookEvery = 50 * time.Millisecond

// look tells what shows in the files' metadata, for a while.
func (r *Reader) look(ctx context.Context, most time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	socket := filepath.Join(r.o.DevicePluginDir, kubeletSocket)
	seen := map[string]fs.FileInfo{}
	changed := func(path string) bool {
		now, err := os.Stat(path)
		before, known := seen[path]
		if err != nil {
			delete(seen, path)
			return known
		}
		seen[path] = now
		return !known || !os.SameFile(before, now) || !before.ModTime().Equal(now.ModTime())
	}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	r.changes.tellRestart() // what was before is not known
	changed(socket)
	for {
		restarted, written := changed(socket) && seen[socket] != nil, false
		for _, path := range r.stateFiles() {
			written = changed(path) || written
		}
		switch {
		case restarted:
			r.changes.tellRestart()
		case written:
			r.changes.tell()
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (r *Reader) isStateFile(path string) bool { return slices.Contains(r.stateFiles(), path) }

func (r *Reader) stateFiles() []string {
	return []string{
		filepath.Join(r.o.Dir, cpuStateFile), filepath.Join(r.o.Dir, memoryStateFile),
		filepath.Join(r.o.DevicePluginDir, checkpointName),
	}
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

// expectRestart has the next reading take the kubelet for a new one.
func (c *changes) expectRestart() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.restarted = true
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
