package kubelet_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/numalane/numalane/pkg/topology"
)

func await(t *testing.T, ch <-chan time.Time, what string) {
	t.Helper()
	select {
	case <-ch:
	case <-time.After(10 * time.Second):
		t.Fatalf("no change is told after %s", what)
	}
}

func drain(ch <-chan time.Time) {
	select {
	case <-ch:
	default:
	}
}

// watch starts to watch and waits until it does.
func (n *node) watch(t *testing.T) <-chan time.Time {
	t.Helper()
	changed := n.reader.Changed()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- n.reader.Watch(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	await(t, changed, "the start")
	return changed
}

func TestWatchTellsEachFile(t *testing.T) {
	n := newNode(t, "") // none exists yet
	changed := n.watch(t)
	for _, name := range []string{"cpu_manager_state", "memory_manager_state", "device-plugins/kubelet_internal_checkpoint"} {
		for _, what := range []string{"the first", "another"} {
			drain(changed)
			n.write(t, name, []byte("{}"))
			await(t, changed, what+" write of "+name)
		}
	}
	drain(changed)
	n.reader.Poke()
	await(t, changed, "a poke")
}

func TestWatchSeesANewPluginFolder(t *testing.T) {
	n := newNode(t, "")
	dir := filepath.Join(n.dir, "device-plugins")
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	changed := n.watch(t)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	await(t, changed, "the folder came")
	n.write(t, "device-plugins/kubelet_internal_checkpoint", []byte("{}"))
	await(t, changed, "the file came")
}

func TestRestartReadsTheConfigurationAgain(t *testing.T) {
	c := newConfigz(t)
	n := newNode(t, "v1.37", c.options(t))
	changed := n.watch(t)
	policy := func() string { return n.read(t, input()).Topology.Kubelet.TopologyPolicy }
	if p := policy(); p != topology.PolicyRestricted {
		t.Fatalf("policy %s", p)
	}
	c.config.Store(&map[string]any{"cpuManagerPolicy": "static", "topologyManagerPolicy": "single-numa-node"})
	if p := policy(); p != topology.PolicyRestricted {
		t.Errorf("policy %s without a restart", p)
	}

	// A kubelet that is not up yet changes nothing, and is asked again.
	c.status.Store(503)
	drain(changed)
	restartKubelet(t, n)
	await(t, changed, "a restart")
	if p := policy(); p != topology.PolicyRestricted {
		t.Errorf("policy %s while configz does not answer, want the last good one", p)
	}
	c.status.Store(200)
	drain(changed)
	await(t, changed, "the time for another try")
	if p := policy(); p != topology.PolicySingleNUMANode {
		t.Errorf("policy %s after the restart", p)
	}
}

func restartKubelet(t *testing.T, n *node) {
	t.Helper()
	sock := filepath.Join(n.dir, "device-plugins", "kubelet.sock")
	if err := os.RemoveAll(sock); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(sock, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}
