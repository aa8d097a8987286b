package plugin_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/numalane/numalane/internal/plugin"
)

// versions runs a test against the bookkeeping of both kinds of kubelet.
func versions(t *testing.T, test func(t *testing.T, minor int)) {
	t.Run("1.36", func(t *testing.T) { test(t, 36) })
	t.Run("1.37", func(t *testing.T) { test(t, 37) })
}

func TestRegister(t *testing.T) {
	versions(t, func(t *testing.T, minor int) {
		n := liveNode(t, minor, pool(vf("0000:3b:02.1", 1), vf("0000:3b:02.0", 0)))
		n.waitList(resource, "0000:3b:02.0 Healthy [0]", "0000:3b:02.1 Healthy [1]")
		got := n.Status()
		if len(got) != 1 || !strings.HasPrefix(got[0].Socket, "numalane-") {
			t.Fatalf("status %+v, want one pool with a numalane-* socket", got)
		}
		want := []plugin.PoolStatus{{Resource: resource, Phase: plugin.Live, Socket: got[0].Socket, Devices: 2, Healthy: 2, Registrations: 1}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("status (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{resource + " " + got[0].Socket}, n.registrations()); diff != "" {
			t.Errorf("registrations (-want +got):\n%s", diff)
		}
	})
}

func TestOneServerAPool(t *testing.T) {
	n := newNode(t, 37)
	n.start()
	n.updates <- []plugin.Pool{
		{Resource: "intel.com/b", Devices: []plugin.Device{vf("0000:3b:02.1", 1)}},
		{Resource: "intel.com/a", Devices: []plugin.Device{vf("0000:3b:02.0", 0)}},
	}
	n.waitLive(2)
	n.waitList("intel.com/a", "0000:3b:02.0 Healthy [0]")
	n.waitList("intel.com/b", "0000:3b:02.1 Healthy [1]")
	s := n.Status()
	if len(s) != 2 || s[0].Resource != "intel.com/a" || s[0].Socket == s[1].Socket {
		t.Errorf("status %+v, want a and b with a socket each", s)
	}
	if got := len(ownSockets(t, n.dir)); got != 2 {
		t.Errorf("%d sockets, want 2", got)
	}
}

func TestPluginBeforeKubelet(t *testing.T) {
	n := newNode(t, 37)
	n.updates <- []plugin.Pool{pool(vf("0000:3b:02.0", 0))}
	eventually(t, "the pool to wait for a kubelet", func() error {
		if s := n.Status(); len(s) != 1 || s[0].Phase != plugin.Waiting {
			return errors.New("it does not")
		}
		return nil
	})
	n.start() // makes the folder
	n.waitLive(1)
	if got := n.registrations(); len(got) != 1 {
		t.Errorf("registrations %v, want one", got)
	}
}

// A dead kubelet's socket file is there and refuses connections.
func TestDeadKubeletSocket(t *testing.T) {
	n := newNode(t, 37)
	n.start()
	n.stop()
	n.updates <- []plugin.Pool{pool(vf("0000:3b:02.0", 0))}
	eventually(t, "the pool to wait for a kubelet", func() error {
		if s := n.Status(); len(s) != 1 || s[0].Phase != plugin.Waiting {
			return errors.New("it does not")
		}
		return nil
	})
	n.start()
	n.waitLive(1)
}

func TestKubeletComesBack(t *testing.T) {
	cases := map[string]func(t *testing.T, n *node){
		"restarted": func(t *testing.T, n *node) {
			n.stop()
			n.start()
		},
		"folder wiped and made anew": func(t *testing.T, n *node) {
			n.stop()
			if err := os.RemoveAll(n.dir); err != nil {
				t.Fatal(err)
			}
			n.start()
		},
		"stream cut, socket stays": func(t *testing.T, n *node) {
			n.cut()
		},
		"own socket removed under a live stream": func(t *testing.T, n *node) {
			for _, path := range ownSockets(t, n.dir) {
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
			}
		},
		"kubelet.sock made anew under a live stream": func(t *testing.T, n *node) {
			old := n.fakeKubelet.server
			path := filepath.Join(n.dir, "kubelet.sock")
			clients := n.fakeKubelet.clients
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			n.start() // a new one beside the old one, whose streams stay
			t.Cleanup(func() {
				old.Stop()
				for _, c := range clients[resource] {
					c.conn.Close()
				}
			})
		},
	}
	for name, disturb := range cases {
		t.Run(name, func(t *testing.T) {
			versions(t, func(t *testing.T, minor int) {
				n := liveNode(t, minor, pool(vf("0000:3b:02.0", 0), vf("0000:3b:02.1", 1)))
				before := n.Status()[0].Socket
				disturb(t, n)
				n.waitLive(2)
				n.waitList(resource, "0000:3b:02.0 Healthy [0]", "0000:3b:02.1 Healthy [1]")
				if after := n.Status()[0].Socket; after == before {
					t.Errorf("socket name %s was used again", after)
				}
				if got := ownSockets(t, n.dir); len(got) != 1 {
					t.Errorf("sockets %v, want the new one alone", got)
				}
			})
		})
	}
}

// As long as no kubelet can be registered with, a live stream is kept: closing
// it would take the node's devices away for nothing.
func TestWipedFolderKeepsLiveStream(t *testing.T) {
	var log syncBuffer
	n := newNode(t, 37, func(o *plugin.Options) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	n.start()
	n.updates <- []plugin.Pool{pool(vf("0000:3b:02.0", 0))}
	n.waitLive(1)
	if err := os.RemoveAll(n.dir); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the plugin to see it", func() error {
		if !strings.Contains(log.String(), "the stream stays open") {
			return errors.New("it does not")
		}
		return nil
	})
	n.updates <- []plugin.Pool{pool(vf("0000:3b:02.0", 0), vf("0000:3b:02.1", 0))}
	n.waitList(resource, "0000:3b:02.0 Healthy [0]", "0000:3b:02.1 Healthy [0]")
	if got := n.registrations(); len(got) != 1 {
		t.Errorf("registrations %v, want the first alone", got)
	}
	n.stop()
	n.start()
	n.waitLive(2)
	n.waitList(resource, "0000:3b:02.0 Healthy [0]", "0000:3b:02.1 Healthy [0]")
}

func TestRefusedThenAccepted(t *testing.T) {
	versions(t, func(t *testing.T, minor int) {
		n := newNode(t, minor)
		n.answer = func(nth int, _ string) answer {
			if nth <= 3 {
				return answer{err: errors.New("the ResourceName is invalid")}
			}
			return answer{connect: true}
		}
		n.start()
		n.updates <- []plugin.Pool{pool(vf("0000:3b:02.0", 0))}
		eventually(t, "the refusal to show in the status", func() error {
			s := n.Status()
			if len(s) != 1 || s[0].Err == nil || !strings.Contains(s[0].Err.Error(), "the ResourceName is invalid") {
				return errors.New("it does not")
			}
			return nil
		})
		n.waitLive(4)
		if s := n.Status()[0]; s.Err != nil {
			t.Errorf("status of a live pool has the error %v", s.Err)
		}
		if got := len(n.registrations()); got != 4 {
			t.Errorf("%d registrations, want 4", got)
		}
	})
}

// That ListAndWatch was opened counts, whatever Register returns and when.
func TestStreamIsTheSignOfSuccess(t *testing.T) {
	cases := map[string]answer{
		"Register does not return": {connect: true, hang: true},
		"Register fails late":      {connect: true, err: errors.New("connection lost")},
	}
	for name, a := range cases {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, 37)
			opened := make(chan struct{})
			n.answer = func(int, string) answer {
				if a.err == nil {
					return a
				}
				if err := n.connect(context.Background(), resource, strings.Fields(n.registrations()[0])[1]); err != nil {
					t.Error(err)
				}
				<-opened
				return answer{err: a.err}
			}
			n.start()
			n.updates <- []plugin.Pool{pool(vf("0000:3b:02.0", 0))}
			n.waitLive(1)
			close(opened)
			n.updates <- []plugin.Pool{pool(vf("0000:3b:02.0", 0), vf("0000:3b:02.1", 0))}
			n.waitList(resource, "0000:3b:02.0 Healthy [0]", "0000:3b:02.1 Healthy [0]")
			n.end()
			if got := n.registrations(); len(got) != 1 {
				t.Errorf("registrations %v, want one", got)
			}
		})
	}
}

// An update with a surge: the older instance stops when the younger is live
// already, and a 1.36 kubelet throws that out in its place. The pool comes back.
func TestThrownOutBySurge(t *testing.T) {
	pools := []plugin.Pool{pool(vf("0000:3b:02.0", 0))}
	n := liveNode(t, 36, pools...)
	younger := n.instance(t)
	younger.updates <- pools
	phase(t, younger, plugin.Live)
	phase(t, n, plugin.Standby)
	n.forgive()
	n.stopOwn()
	eventually(t, "the younger instance to be registered again", func() error {
		if s := younger.Status(); s[0].Phase != plugin.Live || s[0].Registrations != 2 || n.allocatable(resource) != 1 {
			return fmt.Errorf("allocatable %d, status %+v", n.allocatable(resource), s)
		}
		return nil
	})
	younger.stop()
}

func TestStop(t *testing.T) {
	n := liveNode(t, 37, pool(vf("0000:3b:02.0", 0)))
	n.end() // checks sockets and goroutines
	eventually(t, "the kubelet to see the stream end", func() error {
		if n.allocatable(resource) != 0 {
			return errors.New("devices are still allocatable")
		}
		return nil
	})
	if _, err := os.Stat(filepath.Join(n.dir, "kubelet.sock")); err != nil {
		t.Errorf("the kubelet's own socket: %v", err)
	}
}

func TestStaleSockets(t *testing.T) {
	dir := socketDir(t)
	if err := os.Mkdir(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Hour)
	socket := func(name string, listens bool) {
		path := filepath.Join(dir, name)
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		if listens {
			t.Cleanup(func() { l.Close() })
		} else {
			l.(*net.UnixListener).SetUnlinkOnClose(false)
			l.Close()
		}
		if err := os.Chtimes(path, old, old); err != nil {
			t.Fatal(err)
		}
	}
	socket("numalane-dead-1.sock", false)
	socket("numalane-alive-1.sock", true)
	socket("other.sock", false)
	notes := filepath.Join(dir, "numalane-notes.sock")
	if err := os.WriteFile(notes, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(notes, old, old); err != nil {
		t.Fatal(err)
	}
	// The sweep comes before anything else, and needs no kubelet.
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- plugin.New(plugin.Options{SocketDir: dir}).Run(ctx, nil) }()
	eventually(t, "the stale socket to go", func() error {
		if _, err := os.Lstat(filepath.Join(dir, "numalane-dead-1.sock")); !os.IsNotExist(err) {
			return errors.New("it is there")
		}
		return nil
	})
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	var left []string
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if diff := cmp.Diff([]string{"numalane-alive-1.sock", "numalane-notes.sock", "other.sock"}, left); diff != "" {
		t.Errorf("files left (-want +got):\n%s", diff)
	}
}

func TestFolderTooLong(t *testing.T) {
	dir := "/" + strings.Repeat("x", 90)
	err := plugin.New(plugin.Options{SocketDir: dir}).Run(t.Context(), nil)
	if err == nil || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "107") {
		t.Errorf("Run returned %v, want an error that names the folder and the limit", err)
	}
}
