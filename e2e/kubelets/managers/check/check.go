// Package check is the test of a kubelet's program, the same for every version:
// commands go in through a pipe, a device plugin registers as on a node, and
// what the kubelet decides is read where a node's agents read it.
package check

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"

	"github.com/go-logr/logr"
	"github.com/numalane/numalane/e2e/kubelets/managers"
	"github.com/numalane/numalane/e2e/kubelets/wire"
)

const (
	gpu    = "example.com/gpu"
	config = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
cpuManagerPolicy: static
memoryManagerPolicy: Static
topologyManagerPolicy: single-numa-node
reservedSystemCPUs: "0"
systemReserved: {memory: 412Mi}
evictionHard: {memory.available: 100Mi}
reservedMemory:
- {numaNode: 0, limits: {memory: 512Mi}}
`
)

// All runs all tests of a version, v1.37.
func All(t *testing.T, minor string, newWiring managers.New) {
	klog.SetLogger(logr.Discard())
	t.Run("admission and restart", func(t *testing.T) { admission(t, minor, newWiring) })
	t.Run("feature gates", func(t *testing.T) { featureGates(t, newWiring) })
	t.Run("many starts", func(t *testing.T) { manyStarts(t, newWiring) })
}

func admission(t *testing.T, minor string, newWiring managers.New) {
	n := newNode(t, newWiring)
	n.configure(config)
	if version := n.start(); !strings.HasPrefix(version, minor+".") {
		t.Errorf("the kubelet is %s, want %s", version, minor)
	}
	n.plugIn(4, 2)
	first, second, large := pod("first", "2", 3), pod("second", "2", 3), pod("large", "2", 3)
	large.Spec.Containers[0].Resources.Limits = nil // no longer guaranteed: takes no CPUs of its own
	large.Spec.Containers[0].Resources.Requests = resources("100", 0)

	n.admit(first, wire.Admission{Admit: true})
	n.admit(second, wire.Admission{Reason: "TopologyAffinityError", Handler: managers.Resources})
	n.admit(large, wire.Admission{Reason: "OutOfcpu", Handler: managers.Predicates})
	held := n.holds("first", 2, 3)
	n.stateFile("cpu_manager_state", "first-uid")
	n.stateFile("memory_manager_state", "first-uid")
	n.stateFile("device-plugins/kubelet_internal_checkpoint", "first-uid")

	n.start(first)
	n.plugIn(4, 2)
	n.admit(first, wire.Admission{Admit: true})
	if again := n.holds("first", 2, 3); again != held {
		t.Errorf("after a restart the pod holds %s, and before it %s", again, held)
	}
	n.admit(second, wire.Admission{Reason: "TopologyAffinityError", Handler: managers.Resources})
	n.do(wire.Command{End: string(first.UID)})
	n.admit(second, wire.Admission{Admit: true})
	if again := n.holds("second", 2, 3); again != held {
		t.Errorf("the second pod holds %s, want what the first held: %s", again, held)
	}
}

// featureGates checks that no gate outlives its kubelet, and that what the
// kubelet refuses is told.
func featureGates(t *testing.T, newWiring managers.New) {
	n := newNode(t, newWiring)
	const alphaOption = config + "cpuManagerPolicyOptions: {distribute-cpus-across-cores: \"true\"}\n"
	refused := func() {
		t.Helper()
		const want = "Alpha-level Options not enabled"
		if a := n.exchange(wire.Command{Start: n.command()}); !strings.Contains(a.Error, want) {
			t.Errorf("Start with an alpha option: %q, want an error with %q", a.Error, want)
		}
	}
	n.configure(alphaOption)
	refused()
	n.configure(alphaOption + "featureGates: {CPUManagerPolicyAlphaOptions: true}\n")
	n.start()
	n.configure(alphaOption)
	refused()
	n.configure(config)
	n.start()
}

func manyStarts(t *testing.T, newWiring managers.New) {
	n := newNode(t, newWiring)
	n.configure(config)
	n.start()
	n.plugIn(4, 2)
	before := runtime.NumGoroutine()
	const starts = 50
	for range starts {
		n.start()
		n.plugIn(4, 2)
		n.admit(pod("first", "2", 3), wire.Admission{Admit: true})
		n.do(wire.Command{End: "first-uid"})
	}
	after := 0
	n.eventually(func() bool { // connections take a moment to end
		after = runtime.NumGoroutine()
		return after < before+starts/2
	}, func() string { return "goroutines pile up" })
	t.Logf("%d goroutines after the first Start, %d after %d more", before, after, starts)
}

// node is a folder with a kubelet at work in it.
type node struct {
	t       *testing.T
	dir     string
	in      *json.Encoder
	out     *json.Decoder
	stopOld func() // the plugin's server
}

func newNode(t *testing.T, newWiring managers.New) *node {
	dir, err := os.MkdirTemp("", "k") // t.TempDir's path may be too long for a socket's
	if err != nil {
		t.Fatal(err)
	}
	in, commands := io.Pipe()
	answers, out := io.Pipe()
	n := &node{t: t, dir: dir, in: json.NewEncoder(commands), out: json.NewDecoder(answers), stopOld: func() {}}
	served := make(chan error, 1)
	go func() { served <- managers.Serve(t.Context(), in, out, newWiring) }()
	t.Cleanup(func() {
		commands.Close()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
		n.stopOld()
		os.RemoveAll(dir)
	})
	return n
}

func (n *node) configure(text string) {
	n.t.Helper()
	if err := os.WriteFile(filepath.Join(n.dir, "config.yaml"), []byte(text), 0o644); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) exchange(c wire.Command) (a wire.Answer) {
	n.t.Helper()
	if err := n.in.Encode(c); err != nil {
		n.t.Fatal(err)
	}
	if err := n.out.Decode(&a); err != nil {
		n.t.Fatal(err)
	}
	return a
}

func (n *node) do(c wire.Command) wire.Answer {
	n.t.Helper()
	a := n.exchange(c)
	if a.Error != "" {
		n.t.Fatal(a.Error)
	}
	return a
}

func (n *node) command(running ...*v1.Pod) *wire.Start {
	n.t.Helper()
	s := &wire.Start{Dir: n.dir, Machine: n.encode(machine()), Node: n.encode(apiNode())}
	for _, p := range running {
		s.Pods = append(s.Pods, n.encode(p))
	}
	return s
}

func (n *node) start(running ...*v1.Pod) (version string) {
	n.t.Helper()
	return n.do(wire.Command{Start: n.command(running...)}).Version
}

func (n *node) admit(p *v1.Pod, want wire.Admission) {
	n.t.Helper()
	got := n.do(wire.Command{Admit: n.encode(p)}).Admission
	if got == nil {
		n.t.Fatalf("admit %s: no admission in the answer", p.Name)
	}
	message := got.Message
	got.Message = ""
	if *got != want {
		n.t.Errorf("admit %s: %+v (%s), want %+v", p.Name, *got, message, want)
	}
}

func (n *node) stateFile(name, text string) {
	n.t.Helper()
	b, err := os.ReadFile(filepath.Join(n.dir, name))
	if err != nil {
		n.t.Fatal(err)
	}
	if !strings.Contains(string(b), text) {
		n.t.Errorf("%s has no %s: %s", name, text, b)
	}
}

func (n *node) encode(v any) json.RawMessage {
	n.t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		n.t.Fatal(err)
	}
	return b
}

func (n *node) eventually(holds func() bool, problem func() string) {
	n.t.Helper()
	deadline, tick := time.After(10*time.Second), time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			n.t.Fatal(problem())
		}
	}
}
