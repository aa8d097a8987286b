package kubelet

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Where inotify has no instance left, changes are told all the same. It cannot
// be had from outside: to use the node's instances up would hit others.
func TestLook(t *testing.T) {
	o := Options{Dir: t.TempDir(), DevicePluginDir: t.TempDir()}
	r := &Reader{o: o}
	changed := r.Changed()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.look(ctx, time.Hour)
	}()
	t.Cleanup(func() { cancel(); <-done })
	await := func(what string) {
		t.Helper()
		select {
		case <-changed:
		case <-time.After(10 * time.Second):
			t.Fatalf("no change is told after %s", what)
		}
	}
	await("the start")
	r.changes.takeRestart()
	for _, path := range append(r.stateFiles(), r.stateFiles()...) {
		if err := os.WriteFile(path+".new", []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
		await("a write of " + filepath.Base(path))
		if r.changes.takeRestart() {
			t.Errorf("a write of %s is taken for a restart", filepath.Base(path))
		}
	}
	if err := os.WriteFile(filepath.Join(o.DevicePluginDir, kubeletSocket), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	await("a restart")
	if !r.changes.takeRestart() {
		t.Error("the kubelet's new socket is not taken for a restart")
	}
}
