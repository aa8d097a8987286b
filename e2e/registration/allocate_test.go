package registration_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"

	"github.com/numalane/numalane/internal/handout"
	"github.com/numalane/numalane/internal/plugin"
	"github.com/numalane/numalane/pkg/allocator"
)

// TestReboot: a kubelet keeps the answer to Allocate in its checkpoint and gives
// it to the runtime at each start of the container, after a reboot as well: it
// admits the pod again and asks the plugin nothing. So the answer names nothing
// that another start of the machine may number anew.
func TestReboot(t *testing.T) {
	onEach(t, func(t *testing.T, minor int) {
		n := newNode(t, minor)
		p := n.startPlugin()
		n.count(8, 8)
		held := n.run("pod", 1)
		answer := n.answer("pod")
		want := &pluginapi.ContainerAllocateResponse{Envs: map[string]string{
			"PCIDEVICE_NUMALANE_IO_VF":      held[0],
			"PCIDEVICE_NUMALANE_IO_VF_INFO": `{"` + held[0] + `":{"generic":{"deviceID":"` + held[0] + `"}}}`,
		}}
		if diff := cmp.Diff(want, answer, protocmp.Transform()); diff != "" {
			t.Errorf("answer (-want +got):\n%s", diff)
		}
		unlucky := n.run("unlucky", 1)
		reboot := func() mark {
			p.kill()
			n.kubelet.Kill()
			since := n.now()
			n.startKubelet()
			return since
		}

		// Pods that come before the plugin has registered are refused for good
		// (devicemanager devicesToAllocate), which is why it registers at once.
		since := reboot()
		n.count(0, 0)
		n.refuse("early", "no healthy devices present; cannot allocate unhealthy devices "+vf, 1)
		p = n.startPlugin()
		n.count(8, 8)
		if again := n.run("pod", 1); !slices.Equal(again, held) {
			t.Errorf("after a reboot the pod holds %v, and before it %v", again, held)
		}
		n.never(since, asksAllocate)
		if again := n.answer("pod"); !proto.Equal(again, answer) {
			t.Errorf("the answer has changed:\n%s", cmp.Diff(answer, again, protocmp.Transform()))
		}

		// One that is not well again: the kubelet does not start the pod with it.
		n.unbind(unlucky[0])
		since = reboot()
		p = n.startPlugin()
		n.count(8, 7)
		n.run("pod", 1)
		n.refuse("unlucky", "previously allocated devices are no longer healthy", 1)
		n.never(since, asksAllocate)
	})
}

// TestAllocateFailsWhole: a device that cannot be handed over has the plugin
// refuse the container in words that reach the pod's status, and leaves nothing
// held: not of this container, and not of the ones before it in the pod.
func TestAllocateFailsWhole(t *testing.T) {
	onEach(t, func(t *testing.T, minor int) {
		n := newNode(t, minor)
		pools := n.servePools()
		device := func(id string, change func(*plugin.Device)) plugin.Device {
			d := plugin.Device{ID: id, NUMANodes: []int{0}, PF: "0000:3b:00.0", Healthy: true}
			if change != nil {
				change(&d)
			}
			return d
		}
		const good, bad = "0000:3b:02.0", "0000:3b:02.1"
		pool := func(change func(*plugin.Device)) []plugin.Pool {
			return []plugin.Pool{{Resource: vf, Policy: allocator.PolicyPacked, Devices: []plugin.Device{device(good, nil), device(bad, change)}}}
		}
		pools <- pool(func(d *plugin.Device) {
			d.Handout = handout.Handout{Withheld: "its RDMA device is not on the host", Away: true}
		})
		n.count(2, 2)
		const message = "device " + bad + " of pool " + vf + " cannot be handed over whole: its RDMA device is not on the host"
		n.refuse("both", message, 2)
		n.refuse("one-each", message, 1, 1)
		if held := n.held("both"); len(held) > 0 {
			t.Errorf("the refused pod holds %v", held)
		}
		// Both are free as before, and the good one is given away whole.
		if held := n.run("next", 1); held[0] != good {
			t.Errorf("the next pod holds %v, want %s", held, good)
		}
		if held := n.held("one-each"); len(held) > 0 {
			t.Errorf("the refused pod holds %v", held)
		}
		n.count(2, 2)
		pools <- pool(nil)
		n.count(2, 2)
		eventually(t, "the other device to be given as well", func() error {
			a := n.bring("last", 1)
			if !a.Admit {
				return fmt.Errorf("%s: %s", a.Reason, a.Message)
			}
			return nil
		})
		if held := n.held("last"); !slices.Equal(held, []string{bad}) {
			t.Errorf("the last pod holds %v, want %s", held, bad)
		}
	})
}

// servePools runs the product's servers in this process. They have what is sent.
func (n *node) servePools() chan<- []plugin.Pool {
	n.t.Helper()
	updates, done := make(chan []plugin.Pool), make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	servers := plugin.New(plugin.Options{SocketDir: n.socketDir()})
	go func() { done <- servers.Run(ctx, updates) }()
	n.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			n.t.Error(err)
		}
	})
	return updates
}
