package registration_test

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestKubeletRestart: a kubelet that was killed or stopped, and started over its
// checkpoint, has all devices again after one registration, and pods what they
// held. Of the folder it removes sockets alone (devicemanager
// CleanupPluginDirectory).
func TestKubeletRestart(t *testing.T) {
	onEach(t, func(t *testing.T, minor int) {
		n := newNode(t, minor)
		p := n.startPlugin()
		n.count(8, 8)
		held := n.run("before", 2)
		notes := filepath.Join(n.socketDir(), "numalane-notes.sock")
		if err := os.WriteFile(notes, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		p.live(1)
		for i, restart := range []func(){
			func() { n.kubelet.Kill(); n.startKubelet() },
			n.startKubelet, // stops the one before, which ends its streams itself
			func() { n.kubelet.Kill(); n.startKubelet() },
		} {
			since := n.now()
			restart()
			n.count(8, 8)
			sockets := p.live(i + 2)
			if got := n.logged(since, gotRegistration); len(got) != 1 {
				t.Errorf("restart %d: %d registrations, want one:\n%s", i, len(got), strings.Join(got, "\n"))
			}
			n.never(since, notConnected)
			n.gone(filepath.Join(n.socketDir(), sockets[i]))
			if again := n.run("before", 2); !slices.Equal(again, held) {
				t.Errorf("restart %d: the pod holds %v, and before it %v", i, again, held)
			}
			n.never(since, asksAllocate)
		}
		if other := n.run("after", 6); slices.ContainsFunc(other, func(id string) bool { return slices.Contains(held, id) }) {
			t.Errorf("a pod is given %v, of which another holds %v", other, held)
		}
		if _, err := os.Stat(notes); err != nil {
			t.Error(err)
		}
	})
}

// TestPluginFirst: a plugin that is there before the kubelet and its folder
// registers once it comes: each pod admitted before is refused for good.
func TestPluginFirst(t *testing.T) {
	onEach(t, func(t *testing.T, minor int) {
		n := prepareNode(t, minor)
		p := n.startPlugin()
		p.says(waits, 1)
		n.startKubelet()
		n.count(8, 8)
		n.run("pod", 2)
		n.never(0, notConnected)
		if got := p.live(1); len(got) != 1 {
			t.Errorf("streams on %v, want one", got)
		}
	})
}

// TestStreamEndIsTheSign: of a kubelet that was killed the socket stays in the
// folder as it was, and so does ours. What tells the plugin is its stream's end.
func TestStreamEndIsTheSign(t *testing.T) {
	onEach(t, func(t *testing.T, minor int) {
		n := newNode(t, minor)
		p := n.startPlugin()
		n.count(8, 8)
		own := filepath.Join(n.socketDir(), p.live(1)[0])
		before, err := os.Lstat(n.kubeletSocket())
		if err != nil {
			t.Fatal(err)
		}
		n.kubelet.Kill()
		n.gone(own)
		p.says("ListAndWatch stream ended", 1)
		p.says(waits, 1)
		after, err := os.Lstat(n.kubeletSocket())
		if err != nil || !os.SameFile(before, after) || !before.ModTime().Equal(after.ModTime()) {
			t.Errorf("the dead kubelet's socket has changed (%v): it was no test", err)
		}
		n.startKubelet()
		n.count(8, 8)
		p.live(2)
	})
}

// TestOwnSocketRemoved: our socket goes while the kubelet and its stream live.
// The plugin registers anew under another name, after the stream has ended.
func TestOwnSocketRemoved(t *testing.T) {
	onEach(t, func(t *testing.T, minor int) {
		n := newNode(t, minor)
		p := n.startPlugin()
		n.count(8, 8)
		since := n.now()
		if err := os.Remove(filepath.Join(n.socketDir(), p.live(1)[0])); err != nil {
			t.Fatal(err)
		}
		if sockets := p.live(2); sockets[0] == sockets[1] {
			t.Errorf("sockets %v, want another name", sockets)
		}
		n.count(8, 8)
		n.never(since, ghost)
		if got := n.logged(since, allUnhealthy); len(got) != 1 {
			t.Errorf("the kubelet lost the plugin %d times, want once, before the new stream:\n%s", len(got), strings.Join(got, "\n"))
		}
		n.run("after", 2)
	})
}

// TestUniqueSockets: no socket's name is registered twice, by whatever reason a
// plugin registers. A kubelet from 1.37 on would refuse it while the first is
// connected, lose track of the first, and count its devices for ever
// (plugin/v1beta1 connectClient, devicemanager PluginConnected).
func TestUniqueSockets(t *testing.T) {
	onEach(t, func(t *testing.T, minor int) {
		n := newNode(t, minor)
		first := n.startPlugin()
		n.count(8, 8)
		first.live(1)
		n.startKubelet()
		n.count(8, 8)
		if err := os.Remove(filepath.Join(n.socketDir(), first.live(2)[1])); err != nil {
			t.Fatal(err)
		}
		sockets := first.live(3)
		first.kill()
		second := n.startPlugin()
		sockets = append(sockets, second.live(1)...)
		n.count(8, 8)
		n.kubelet.Kill()
		n.startKubelet()
		n.count(8, 8)
		sockets = append(sockets, second.live(2)[1])
		second.stop()
		n.count(8, 0)
		if unique := slices.Compact(slices.Sorted(slices.Values(sockets))); len(unique) != 5 || len(sockets) != 5 {
			t.Errorf("sockets %v, want five different ones", sockets)
		}
		n.never(0, ghost)
		n.never(0, notConnected)
		if got := len(n.logged(0, gotRegistration)); got != len(sockets) {
			t.Errorf("%d registrations for %d streams", got, len(sockets))
		}
	})
}

// TestStaleSockets: a plugin that starts removes the sockets that its own kind
// has left and nobody listens on, and no other file.
func TestStaleSockets(t *testing.T) {
	onEach(t, func(t *testing.T, minor int) {
		n := newNode(t, minor)
		killed := n.startPlugin()
		n.count(8, 8)
		left := filepath.Join(n.socketDir(), killed.live(1)[0])
		killed.kill()
		vendor := filepath.Join(n.socketDir(), "vendor.sock")
		l, err := net.Listen("unix", vendor)
		if err != nil {
			t.Fatal(err)
		}
		l.(*net.UnixListener).SetUnlinkOnClose(false)
		l.Close()
		notes := filepath.Join(n.socketDir(), "numalane-notes.sock")
		if err := os.WriteFile(notes, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		old := time.Now().Add(-time.Hour)
		for _, path := range []string{left, vendor, notes} {
			if err := os.Chtimes(path, old, old); err != nil {
				t.Fatal(err)
			}
		}
		alive := n.startPlugin()
		n.gone(left)
		socket := filepath.Join(n.socketDir(), alive.live(1)[0])
		if err := os.Chtimes(socket, old, old); err != nil {
			t.Fatal(err)
		}
		n.startPlugin().live(1)
		for _, path := range []string{vendor, notes, socket, n.kubeletSocket()} {
			if _, err := os.Lstat(path); err != nil {
				t.Error(err)
			}
		}
	})
}

// TestOptionsBeforeRegister: the kubelet dials back and asks for the options
// before it answers to Register, and takes them from nowhere else.
func TestOptionsBeforeRegister(t *testing.T) {
	onEach(t, func(t *testing.T, minor int) {
		n := newNode(t, minor)
		n.startPlugin()
		n.count(8, 8)
		n.run("pod", 2)
		n.never(0, notConnected)
		// In this order, each once: PluginConnected has the options by the time
		// that it says so.
		var order []string
		for _, line := range n.logged(0, "") {
			for _, step := range []string{gotRegistration, connected, pushed, asksPreferred, asksAllocate} {
				if strings.Contains(line, step) {
					order = append(order, step)
				}
			}
		}
		if diff := cmp.Diff([]string{gotRegistration, connected, pushed, asksPreferred, asksAllocate}, order); diff != "" {
			t.Errorf("what the kubelet did (-want +got):\n%s", diff)
		}
	})
}

// TestPluginGone: with the plugin gone nothing is allocatable at once, and the
// capacity stays; with the next one all is back.
func TestPluginGone(t *testing.T) {
	onEach(t, func(t *testing.T, minor int) {
		n := newNode(t, minor)
		p := n.startPlugin()
		n.count(8, 8)
		held := n.run("before", 3)
		for _, end := range []func(){p.kill, func() { p.stop() }} {
			end()
			n.count(8, 0)
			n.refuse("meanwhile", "no healthy devices present; cannot allocate unhealthy devices "+vf, 1)
			if now := n.held("before"); !slices.Equal(now, held) {
				t.Errorf("a running pod holds %v, and before it %v", now, held)
			}
			p = n.startPlugin()
			n.count(8, 8)
		}
		if other := n.run("after", 5); slices.ContainsFunc(other, func(id string) bool { return slices.Contains(held, id) }) {
			t.Errorf("a pod is given %v, of which another holds %v", other, held)
		}
	})
}
