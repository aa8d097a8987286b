// Package reload keeps up with the configuration file.
//
// In flow events of the file's folder, and a timer for what they miss. Out
// flows a configuration each time that the file has another good one. A file
// that is bad, or gone, changes nothing: the last good configuration stays, and
// what is wrong is logged once and counted.
package reload

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/numalane/numalane/internal/config"
)

const (
	// settle is how long nothing must have happened in the folder: an editor
	// writes a file in several steps.
	settle = 100 * time.Millisecond
	// resync is for what no event tells: a file system that sends none, a
	// folder that was replaced, a node that is out of inotify instances.
	resync = 30 * time.Second
)

// File is a configuration file. One goroutine uses it.
type File struct {
	path   string
	prefix string
	log    *slog.Logger

	seen    []byte // the file's content when it was last looked at
	problem string // what was wrong with it then
	current []byte // the content of the configuration in use

	reloads *prometheus.CounterVec
	good    prometheus.Gauge
}

// Load reads a configuration for the first time, and there is nothing without
// it. Resources without a prefix of their own get defaultPrefix.
func Load(path, defaultPrefix string, log *slog.Logger, reg prometheus.Registerer) (*File, *config.Config, error) {
	f := &File{
		path: path, prefix: defaultPrefix, log: log.With("file", path),
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "numalane_plugin_config_reloads_total",
			Help: "Times that the pool configuration was found changed, by whether the new one could be used.",
		}, []string{"result"}),
		good: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "numalane_plugin_config_last_reload_successful",
			Help: "1 if the pool configuration in use is what the file says, 0 if the file is bad and an older one is in use.",
		}),
	}
	data, err := f.read()
	if err != nil {
		return nil, nil, err
	}
	c, err := f.parse(data)
	if err != nil {
		return nil, nil, err
	}
	f.seen, f.current = data, data
	for _, result := range []string{success, failure} {
		f.reloads.WithLabelValues(result)
	}
	f.good.Set(1)
	for _, m := range []prometheus.Collector{f.reloads, f.good} {
		if err := reg.Register(m); err != nil {
			return nil, nil, fmt.Errorf("register the configuration's metrics: %w", err)
		}
	}
	return f, c, nil
}

// dataLink is what a ConfigMap's files are links through. A new version is
// another target of it (volume/util AtomicWriter), and the file itself sees
// nothing of that.
const dataLink = "..data"

const (
	success = "success"
	failure = "failure"
)

func (f *File) read() ([]byte, error) {
	data, err := os.ReadFile(f.path)
	if err != nil {
		return nil, fmt.Errorf("read pool configuration: %w", err)
	}
	return data, nil
}

func (f *File) parse(data []byte) (*config.Config, error) {
	c, err := config.Parse(data, f.prefix)
	if err != nil {
		return nil, fmt.Errorf("pool configuration %s: %w", f.path, err)
	}
	return c, nil
}

// Run sends each new configuration until ctx ends, and then returns nil.
func (f *File) Run(ctx context.Context, updates chan<- *config.Config) error {
	w, err := fsnotify.NewWatcher()
	var events <-chan fsnotify.Event
	var lost <-chan error
	if err != nil {
		f.log.Warn("no inotify watch on the configuration, looking at it instead; raise fs.inotify.max_user_instances", "every", resync, "err", err)
	} else {
		defer w.Close()
		events, lost = w.Events, w.Errors
	}
	dir := filepath.Dir(f.path)
	watch := func() {
		if w == nil {
			return
		}
		if err := w.Add(dir); err != nil {
			f.log.Debug("cannot watch the configuration's folder, looking at it instead", "every", resync, "err", err)
		}
	}
	watch()
	settled := time.NewTimer(0) // for what came before the watch
	defer settled.Stop()
	tick := time.NewTicker(resync)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-events:
			if !ok {
				events = nil
				continue
			}
			if name := filepath.Base(e.Name); name == filepath.Base(f.path) || name == dataLink {
				settled.Reset(settle)
			}
			continue
		case _, ok := <-lost:
			if !ok {
				lost = nil
				continue
			}
			settled.Reset(settle)
			continue
		case <-tick.C:
			watch() // does nothing to a folder that is watched
		case <-settled.C:
		}
		if c := f.look(); c != nil {
			select {
			case updates <- c:
			case <-ctx.Done():
			}
		}
	}
}

// look is the configuration that the file has, nil when it has no other one
// than before, or none that can be used.
func (f *File) look() *config.Config {
	data, err := f.read()
	if err == nil && f.problem == "" && bytes.Equal(data, f.seen) {
		return nil // most looks by far
	}
	var c *config.Config
	if err == nil {
		c, err = f.parse(data)
	}
	problem := ""
	if err != nil {
		problem = err.Error()
	}
	if bytes.Equal(data, f.seen) && problem == f.problem {
		return nil
	}
	f.seen, f.problem = data, problem
	switch {
	case err != nil:
		f.reloads.WithLabelValues(failure).Inc()
		f.good.Set(0)
		f.tell(err)
		return nil
	case bytes.Equal(data, f.current):
		f.good.Set(1)
		f.log.Info("the configuration file is again what is in use")
		return nil
	}
	f.current = data
	f.reloads.WithLabelValues(success).Inc()
	f.good.Set(1)
	f.log.Info("new configuration", "pools", len(c.Pools))
	return c
}

// tell logs each mistake.
func (f *File) tell(err error) {
	const stays = "bad configuration, the last good one stays"
	var mistakes *config.Error
	if !errors.As(err, &mistakes) {
		f.log.Error(stays, "err", err)
		return
	}
	for _, m := range mistakes.Mistakes {
		f.log.Error(stays, "at", m.Path, "err", m.Text)
	}
}
