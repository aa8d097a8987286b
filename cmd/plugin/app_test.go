package main

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/numalane/numalane/internal/sysfstest"
	"github.com/numalane/numalane/pkg/topology"
)

// node is the whole plugin on a machine of one X710 with four VFs.
type node struct {
	*fakeKubelet
	app     *app
	machine sysfstest.Machine
	sysfs   string
	config  string
	log     lockedBuffer
}

const (
	pf = "0000:3b:00.0"
	v0 = "0000:3b:02.0"
	v1 = "0000:3b:02.1"
	v2 = "0000:3b:02.2"
	v3 = "0000:3b:02.3"
	v4 = "0000:3b:02.4"

	healthy   = " Healthy"
	unhealthy = " Unhealthy"

	onePool = `{"resourceList": [{"resourceName": "net", "selectors": {"vendors": ["8086"]}}]}`
)

// lockedBuffer is a log that a test reads while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newNode(t *testing.T, config string) *node {
	t.Helper()
	nic := sysfstest.X710(pf, 0, 4)
	nic.Netdev = "ens1f0"
	m := sysfstest.Uniform(1, 2, 1, nic)
	n := newNodeAt(t, t.TempDir(), config)
	n.machine = m
	must(t, m.Write(n.sysfs))
	return n
}

// newNodeAt is on a machine whose tree is there, or will be.
func newNodeAt(t *testing.T, sysfs, config string) *node {
	t.Helper()
	n := &node{fakeKubelet: newKubelet(t), sysfs: sysfs, config: filepath.Join(t.TempDir(), "config.json")}
	n.write(config)
	return n
}

func (n *node) options() options {
	return options{
		configFile: n.config, resourcePrefix: "intel.com", sysfsRoot: n.sysfs, rescan: time.Hour,
		kubeletDir: n.root, devicePluginDir: n.pluginDir(),
	}
}

// run has the plugin at work until the test ends. change is for what the
// configuration's format has no word for.
func (n *node) run(change func(*app)) *node {
	n.t.Helper()
	a, err := newApp(n.options(), slog.New(slog.NewTextHandler(&n.log, nil)))
	must(n.t, err)
	if change != nil {
		change(a)
	}
	n.app = a
	ctx, cancel := context.WithCancel(n.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.run(ctx) }()
	n.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			n.t.Errorf("run: %v", err)
		}
	})
	return n
}

// command runs the plugin by its command line, on this node and with more
// arguments, until the test ends or end is called.
func (n *node) command(args ...string) (end func()) {
	n.t.Helper()
	cmd := newCommand(append([]string{
		"-config-file", n.config, "--sysfs-root", n.sysfs, "--kubelet-dir", n.root, "--kubelet-url=", "--listen=", "--devinfo-dir=",
	}, args...))
	cmd.SetErr(&n.log)
	ctx, cancel := context.WithCancel(n.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- cmd.ExecuteContext(ctx) }()
	end = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			n.t.Errorf("ended with %v; the log:\n%s", err, n.log.String())
		}
	})
	n.t.Cleanup(end)
	return end
}

func (n *node) write(config string) {
	n.t.Helper()
	must(n.t, os.WriteFile(n.config+".new", []byte(config), 0o644))
	must(n.t, os.Rename(n.config+".new", n.config))
}

// after does something to the machine, and tells the plugin as an event does.
func (n *node) after(err error) *node {
	n.t.Helper()
	must(n.t, err)
	n.app.inventory.Rescan()
	return n
}

func (n *node) setVFs(vfs int) *node {
	n.t.Helper()
	m, err := n.machine.SetVFs(n.sysfs, pf, vfs)
	n.machine = m
	return n.after(err)
}

// eventually waits for what no list tells.
func (n *node) eventually(what string, holds func() bool) {
	n.t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			n.t.Fatalf("waited for %s; the log:\n%s", what, n.log.String())
		}
	}
}

// said waits for a text in the log.
func (n *node) said(text string) {
	n.t.Helper()
	// The log quotes what holds quotes.
	n.eventually(text, func() bool { return strings.Contains(strings.ReplaceAll(n.log.String(), `\"`, `"`), text) })
}

func TestVFsComeAndGo(t *testing.T) {
	n := newNode(t, onePool).run(nil)
	const net = "intel.com/net"
	n.expect(net, v0+healthy, v1+healthy, v2+healthy, v3+healthy)
	n.setVFs(5).expect(net, v0+healthy, v1+healthy, v2+healthy, v3+healthy, v4+healthy)

	n.hold(net, v3)
	n.setVFs(2).expect(net, v0+healthy, v1+healthy, v3+unhealthy) // it is held, and has vanished
	n.hold(net)
	n.expect(net, v0+healthy, v1+healthy)

	// Without VFs the PF is a NIC as any other.
	n.setVFs(0).expect(net, pf+healthy)
	n.setVFs(1).expect(net, v0+healthy)
}

func TestDriversAreRebound(t *testing.T) {
	n := newNode(t, `{"resourceList": [
	  {"resourceName": "kernel", "selectors": {"drivers": ["iavf"]}},
	  {"resourceName": "dpdk", "selectors": {"drivers": ["vfio-pci"]}}]}`).run(nil)
	n.expect("intel.com/kernel", v0+healthy, v1+healthy, v2+healthy, v3+healthy)

	n.after(sysfstest.Bind(n.sysfs, v1, "vfio-pci"))
	n.expect("intel.com/dpdk", v1+healthy)
	n.expect("intel.com/kernel", v0+healthy, v2+healthy, v3+healthy)

	// Nobody is to get as another kind what a pod holds as one.
	n.hold("intel.com/kernel", v2)
	n.after(sysfstest.Bind(n.sysfs, v2, "vfio-pci"))
	n.expect("intel.com/dpdk", v1+healthy, v2+unhealthy)
	n.expect("intel.com/kernel", v0+healthy, v2+unhealthy, v3+healthy)
	n.hold("intel.com/kernel")
	n.expect("intel.com/dpdk", v1+healthy, v2+healthy)
	n.expect("intel.com/kernel", v0+healthy, v3+healthy)

	n.after(sysfstest.RemoveFile(n.sysfs, v0, "driver"))
	n.expect("intel.com/kernel", v3+healthy)
}

// An allocated VF's netdev moves into its pod, and comes back.
func TestNetdevsMove(t *testing.T) {
	n := newNode(t, onePool).run(nil)
	all := []string{v0 + healthy, v1 + healthy, v2 + healthy, v3 + healthy}
	n.expect("intel.com/net", all...)
	address, err := topology.ParseAddress(v1)
	must(t, err)
	netdevs := func() []topology.Netdev {
		d, ok := n.app.view.Load().host.Device(address)
		if !ok {
			t.Fatalf("no device %s", v1)
		}
		return d.Netdevs
	}
	n.hold("intel.com/net", v1)
	folder := filepath.Join(n.sysfs, "sys/bus/pci/devices", v1, "net")
	elsewhere := filepath.Join(n.sysfs, "elsewhere")
	n.after(os.Rename(folder, elsewhere))
	n.eventually("the netdev to be gone", func() bool { return len(netdevs()) == 0 })
	n.expect("intel.com/net", all...)
	n.hold("intel.com/net")
	n.after(os.Rename(elsewhere, folder))
	n.eventually("the netdev to be back", func() bool { return len(netdevs()) == 1 })
	n.expect("intel.com/net", all...)
}

func TestLinkHealth(t *testing.T) {
	n := newNode(t, onePool).run(func(a *app) {
		a.config.Pools[0].LinkHealth, a.config.Pools[0].LinkHoldDown = true, 50*time.Millisecond
	})
	const net = "intel.com/net"
	n.expect(net, v0+healthy, v1+healthy, v2+healthy, v3+healthy)
	n.hold(net, v1)

	down := time.Now()
	n.after(sysfstest.SetCarrier(n.sysfs, "ens1f0", false))
	n.expect(net, v0+unhealthy, v1+healthy, v2+unhealthy, v3+unhealthy)
	if took := time.Since(down); took < 50*time.Millisecond {
		t.Errorf("the link counts as down after %v, want 50 ms at the least", took)
	}
	if published := n.app.view.Load().pools[0].Devices; published[0].Healthy || !published[1].Healthy {
		t.Errorf("published are %+v, want the first unhealthy and the second healthy", published)
	}
	n.hold(net) // what its pod held goes the others' way when it is free
	n.expect(net, v0+unhealthy, v1+unhealthy, v2+unhealthy, v3+unhealthy)
	if !strings.Contains(n.log.String(), "PF ens1f0 has no carrier") {
		t.Errorf("the log does not say why:\n%s", n.log.String())
	}
	n.after(sysfstest.SetCarrier(n.sysfs, "ens1f0", true))
	n.expect(net, v0+healthy, v1+healthy, v2+healthy, v3+healthy)
}

// Off, as it is in the sriov-network-device-plugin's format.
func TestNoLinkHealth(t *testing.T) {
	n := newNode(t, onePool).run(nil)
	n.expect("intel.com/net", v0+healthy, v1+healthy, v2+healthy, v3+healthy)
	n.after(sysfstest.SetCarrier(n.sysfs, "ens1f0", false))
	n.eventually("the link to be seen down", func() bool { return n.app.view.Load().pools[0].Devices[0].Link == "down" })
	n.expect("intel.com/net", v0+healthy, v1+healthy, v2+healthy, v3+healthy)
}

func TestConfigurationChanges(t *testing.T) {
	n := newNode(t, onePool).run(nil)
	n.expect("intel.com/net", v0+healthy, v1+healthy, v2+healthy, v3+healthy)

	n.write(`{"resourceList": [{"resourceName": "net", "selectors": {"vendors": ["80"]}}]}`)
	n.eventually("the mistake to be logged", func() bool { return strings.Contains(n.log.String(), "resourceList[0].selectors.vendors[0]") })
	n.expect("intel.com/net", v0+healthy, v1+healthy, v2+healthy, v3+healthy)
	n.eventually("the plugin to be ready", func() bool { return n.app.registered() == nil })

	// The pool gets another name while a pod holds of it, and loses a VF to a second.
	n.hold("intel.com/net", v1)
	n.write(`{"resourceList": [
	  {"resourceName": "first", "selectors": {"pfNames": ["ens1f0#0"]}},
	  {"resourceName": "rest", "selectors": {"vendors": ["8086"]}}]}`)
	n.expect("intel.com/first", v0+healthy)
	n.expect("intel.com/rest", v1+unhealthy, v2+healthy, v3+healthy)
	n.expect("intel.com/net", v1+unhealthy)
	n.eventually("the plugin to be ready", func() bool { return n.app.registered() == nil })

	n.hold("intel.com/net")
	n.expect("intel.com/rest", v1+healthy, v2+healthy, v3+healthy)
	n.eventually("the old pool to be gone", func() bool {
		status := n.app.servers.Status()
		return len(status) == 2 && status[0].Resource == "intel.com/first" && status[1].Resource == "intel.com/rest"
	})
}

// TestFlagsOfThePeer: the command line of the sriov-network-device-plugin's
// DaemonSet, and of its image's entrypoint, bring the plugin up.
func TestFlagsOfThePeer(t *testing.T) {
	for name, args := range map[string][]string{
		"image":      {"--log-dir=LOG/sriovdp", "--log-level=10"},
		"binary":     {"-v", "10", "-log_dir", "LOG/sriovdp", "-alsologtostderr"},
		"every flag": {"-v=4", "-log_dir=LOG/sriovdp", "-vmodule=server=2", "-stderrthreshold=INFO", "-log_backtrace_at", "x.go:1", "-logtostderr=false"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, onePool)
			dir := t.TempDir()
			for i, arg := range args {
				args[i] = strings.ReplaceAll(arg, "LOG", dir)
			}
			end := n.command(append(args, "-resource-prefix=example.com")...)
			n.expect("example.com/net", v0+healthy, v1+healthy, v2+healthy, v3+healthy)
			end()
			onDisk, err := os.ReadFile(filepath.Join(dir, "sriovdp", "numalane-plugin.log"))
			must(t, err)
			if string(onDisk) != n.log.String() || !strings.Contains(string(onDisk), "level=DEBUG") {
				t.Errorf("the file holds\n%s\nwant all of what went to stderr, with debug lines:\n%s", onDisk, n.log.String())
			}
			for _, flag := range []string{"vmodule", "stderrthreshold", "log-backtrace-at"} {
				if said := strings.Contains(n.log.String(), `"flag has no effect" flag=--`+flag); said != (name == "every flag") {
					t.Errorf("the log says that %s has no effect: %v", flag, said)
				}
			}
		})
	}
}

func TestLogFolder(t *testing.T) {
	for _, test := range []struct {
		flags logFlags
		want  string
	}{
		{logFlags{}, ""},
		{logFlags{dir: "sriovdp"}, "/var/log/sriovdp"},
		{logFlags{dir: "/srv/log"}, "/srv/log"},
		{logFlags{dir: "sriovdp", onStderr: true}, ""},
	} {
		if got := test.flags.folder(); got != test.want {
			t.Errorf("folder of %+v is %q, want %q", test.flags, got, test.want)
		}
	}
}

func TestLongFlags(t *testing.T) {
	for in, want := range map[string]string{
		"-config-file x":             "--config-file x",
		"-config-file=x -v=3":        "--config-file=x -v=3",
		"--config-file x":            "--config-file x",
		"-log_dir x -logtostderr":    "--log_dir x --logtostderr",
		"-v 10 -h":                   "-v 10 -h",
		"-unknown -":                 "-unknown -",
		"-config-file x -- -listen":  "--config-file x -- -listen",
		"inspect -config-file x -ox": "inspect --config-file x -ox",
	} {
		cmd := newCommand(nil)
		if got := longFlags(cmd, strings.Fields(in)); !slices.Equal(got, strings.Fields(want)) {
			t.Errorf("%s becomes %q, want %s", in, got, want)
		}
	}
}
