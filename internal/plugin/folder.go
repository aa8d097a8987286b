package plugin

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	kubeletSocket = "kubelet.sock"
	socketPrefix  = "numalane-"
	socketSuffix  = ".sock"

	// maxSocketPath is what sockaddr_un holds beside its final zero byte.
	maxSocketPath = 107
	// pollInterval is how late a change is seen that inotify does not tell.
	pollInterval = time.Second
	// calmInterval is the same where inotify tells of what happens, and the poll is
	// for what that may have lost.
	calmInterval = 5 * time.Second
	// missingInterval is how often a folder is looked for that is not there:
	// each pod admitted before the pools are registered fails for good.
	missingInterval = 100 * time.Millisecond
	// staleAge spares the socket of another instance between its bind and
	// its listen, when nobody listens on it yet.
	staleAge = time.Second
)

// folder is the kubelet's device-plugins folder, watched for sockets that come
// and go. It may not exist yet, and may be removed and made anew.
type folder struct {
	path    string
	token   string // in the name of every socket of this process start; younger starts have greater ones
	sockets atomic.Uint32
	changes *cell[struct{}] // set whenever something may have changed
	log     *slog.Logger
}

// newToken is greater than those of all processes that started before. Should
// the clock be put back in between, the older instance has the pool until it
// ends, and no harm is done.
func newToken() string {
	var chance [2]byte
	rand.Read(chance[:]) // never fails
	return fmt.Sprintf("%014x%x", time.Now().UnixMicro(), chance)
}

// newSocket is a path that no socket has had before.
func (f *folder) newSocket(resource string) string {
	return filepath.Join(f.path, fmt.Sprintf("%s%s-%s-%d%s", socketPrefix, f.token, poolToken(resource), f.sockets.Add(1), socketSuffix))
}

// poolToken stands for a pool's resource in a socket's name, whose length is short.
func poolToken(resource string) string {
	h := fnv.New32a()
	h.Write([]byte(resource))
	return fmt.Sprintf("%08x", h.Sum32())
}

// younger are the sockets that instances which started after this one have for
// a resource.
func (f *folder) younger(resource string) []string {
	paths, err := filepath.Glob(filepath.Join(f.path, socketPrefix+"*-"+poolToken(resource)+"-*"+socketSuffix))
	if err != nil {
		return nil // a bad pattern alone
	}
	return slices.DeleteFunc(paths, func(path string) bool {
		token, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(path), socketPrefix), "-")
		return len(token) != len(f.token) || token <= f.token
	})
}

func (f *folder) kubelet() string { return filepath.Join(f.path, kubeletSocket) }

// checkLength refuses a folder whose sockets could not be bound.
func (f *folder) checkLength() error {
	longest := fmt.Sprintf("%s%s-%s-%d%s", socketPrefix, f.token, poolToken(""), 999999, socketSuffix)
	if over := len(filepath.Join(f.path, longest)) - maxSocketPath; over > 0 {
		return fmt.Errorf("device plugin folder %s: its name is %d bytes too long for the unix sockets in it, which may have %d", f.path, over, maxSocketPath)
	}
	return nil
}

// watch tells of changes until the context ends. Without inotify, or with the
// folder gone, what remains is the poll.
func (f *folder) watch(ctx context.Context) {
	var events chan fsnotify.Event
	var errs chan error
	w, err := fsnotify.NewWatcher()
	if err != nil {
		f.log.Warn("no inotify watch on the device plugin folder, polling it", "folder", f.path, "err", err)
	} else {
		defer w.Close()
		events, errs = w.Events, w.Errors
	}
	interval := pollInterval
	if w != nil {
		interval = calmInterval
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	look := func() {
		tick.Reset(interval)
		// Adding again is without effect, and attaches to a folder made anew.
		if w != nil && errors.Is(w.Add(f.path), fs.ErrNotExist) {
			tick.Reset(missingInterval)
		}
		f.changes.set(struct{}{})
	}
	look()
	for {
		select {
		case <-ctx.Done():
			return
		case e, ok := <-events:
			if !ok {
				events = nil
				continue
			}
			// The kubelet's checkpoint lies here too and is written often.
			switch {
			case e.Name == f.path:
				look()
			case strings.HasSuffix(e.Name, socketSuffix):
				f.changes.set(struct{}{})
			}
		case err, ok := <-errs:
			if !ok {
				errs = nil
				continue
			}
			f.log.Warn("watch on the device plugin folder", "folder", f.path, "err", err)
			f.changes.set(struct{}{})
		case <-tick.C:
			look()
		}
	}
}

// sweep removes sockets that a process of ours left behind when it was killed.
// One that somebody listens on belongs to another instance, as in a rolling
// update with a surge, and stays.
func (f *folder) sweep(ctx context.Context) {
	entries, err := os.ReadDir(f.path)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			f.log.Warn("look for stale sockets", "folder", f.path, "err", err)
		}
		return
	}
	for _, e := range entries {
		if e.Type() != fs.ModeSocket || !strings.HasPrefix(e.Name(), socketPrefix) {
			continue
		}
		path := filepath.Join(f.path, e.Name())
		info, err := e.Info()
		if err != nil || time.Since(info.ModTime()) < staleAge {
			continue
		}
		conn, err := dialUnix(ctx, path)
		if err == nil {
			conn.Close()
			f.log.Info("another instance listens on its socket, leaving it", "socket", path)
			continue
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			continue
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			f.log.Warn("remove a stale socket", "socket", path, "err", err)
			continue
		}
		f.log.Info("removed the stale socket of an earlier instance", "socket", path)
	}
}

func dialUnix(ctx context.Context, path string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "unix", path)
}
