package plugin_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/numalane/numalane/internal/plugin"
)

// instance is one more plugin beside the node's own.
type instance struct {
	*plugin.Servers
	updates chan []plugin.Pool
	stop    func()
}

func (n *node) instance(t *testing.T) *instance {
	t.Helper()
	i := &instance{Servers: plugin.New(plugin.Options{SocketDir: n.dir}), updates: make(chan []plugin.Pool)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- i.Run(ctx, i.updates) }()
	i.stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	return i
}

func phase(t *testing.T, of interface{ Status() []plugin.PoolStatus }, want plugin.Phase) {
	t.Helper()
	eventually(t, "the pool to be "+want.String(), func() error {
		if s := of.Status(); len(s) != 1 || s[0].Phase != want {
			return fmt.Errorf("status %+v", s)
		}
		return nil
	})
}

// gaps counts how often the resource had no device to give.
func (k *fakeKubelet) gaps() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.losses
}

// The older instance of a surge stands by: it says nothing any more, and takes
// the pool back when it is alone, whichever way the younger one ends. A kubelet
// from 1.37 on has devices to give at every moment.
func TestSurge(t *testing.T) {
	both := []plugin.Pool{pool(vf("0000:3b:02.0", 0))}
	for _, end := range []string{"the older ends", "the younger ends", "one after the other"} {
		t.Run(end, func(t *testing.T) {
			n := liveNode(t, 37, both...)
			younger := n.instance(t)
			younger.updates <- both
			phase(t, younger, plugin.Live)
			phase(t, n, plugin.Standby)
			eventually(t, "each of the two to have told its devices", func() error {
				if got := n.messageCount(resource); got < 2 {
					return fmt.Errorf("%d messages", got)
				}
				return nil
			})
			messages := n.messageCount(resource)
			n.updates <- []plugin.Pool{pool(vf("0000:3b:02.0", 0), vf("0000:3b:02.1", 0))}
			younger.updates <- []plugin.Pool{pool(vf("0000:3b:02.0", 0), vf("0000:3b:02.2", 0))}
			n.waitList(resource, "0000:3b:02.0 Healthy [0]", "0000:3b:02.2 Healthy [0]")
			if got := n.messageCount(resource); got != messages+1 {
				t.Errorf("%d messages, want one: the older instance is to say nothing", got-messages)
			}
			switch end {
			case "the older ends":
				n.forgive()
				n.stopOwn()
				phase(t, younger, plugin.Live)
			case "the younger ends":
				younger.stop()
				phase(t, n, plugin.Live)
				n.waitList(resource, "0000:3b:02.0 Healthy [0]", "0000:3b:02.1 Healthy [0]")
			case "one after the other":
				younger.stop()
				phase(t, n, plugin.Live)
				third := n.instance(t)
				third.updates <- both
				phase(t, third, plugin.Live)
				phase(t, n, plugin.Standby)
				third.stop()
				phase(t, n, plugin.Live)
			}
			if got := n.gaps(); got != 0 {
				t.Errorf("the kubelet had no device to give %d times", got)
			}
			n.forgive()
			if end == "the older ends" {
				younger.stop()
			}
		})
	}
}

// Neither fights for a kubelet that starts anew: the younger one is its last client.
func TestSurgeAndKubeletRestart(t *testing.T) {
	versions(t, func(t *testing.T, minor int) {
		pools := []plugin.Pool{pool(vf("0000:3b:02.0", 0))}
		n := liveNode(t, minor, pools...)
		younger := n.instance(t)
		younger.updates <- pools
		phase(t, younger, plugin.Live)
		phase(t, n, plugin.Standby)
		n.stop()
		n.start()
		eventually(t, "the younger instance to be registered again", func() error {
			if s := younger.Status(); s[0].Phase != plugin.Live || s[0].Registrations < 2 || n.allocatable(resource) != 1 {
				return fmt.Errorf("%+v", s)
			}
			return nil
		})
		phase(t, n, plugin.Standby)
		before := n.registrations()
		if last := before[len(before)-1]; last != resource+" "+younger.Status()[0].Socket {
			t.Errorf("the last to register was %s, want the younger instance", last)
		}
		younger.stop()
		phase(t, n, plugin.Live)
		n.forgive()
	})
}

// A pool that the newer configuration does not have stays with the older instance.
func TestSurgeOfAnotherPool(t *testing.T) {
	n := liveNode(t, 37, pool(vf("0000:3b:02.0", 0)))
	younger := n.instance(t)
	younger.updates <- []plugin.Pool{{Resource: "intel.com/other", Devices: []plugin.Device{vf("0000:3b:02.1", 0)}}}
	phase(t, younger, plugin.Live)
	phase(t, n, plugin.Live)
	younger.stop()
	n.forgive()
}

// forgive drops the rule that instances beside each other break, and no other.
func (k *fakeKubelet) forgive() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.broken = slices.DeleteFunc(k.broken, func(rule string) bool { return strings.Contains(rule, "is still served") })
}
