package reload_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/numalane/numalane/internal/config"
	"github.com/numalane/numalane/internal/reload"
)

func pool(name string) string {
	return `{"resourceList": [{"resourceName": "` + name + `", "selectors": {"vendors": ["8086"]}}]}`
}

// volume is a ConfigMap as the kubelet mounts it.
type volume struct {
	t       *testing.T
	dir     string
	version int
}

// put makes a new version of config.json as the kubelet's AtomicWriter does.
func (v *volume) put(content string) {
	v.t.Helper()
	v.version++
	name := fmt.Sprintf("..version_%d", v.version)
	must(v.t, os.Mkdir(filepath.Join(v.dir, name), 0o755))
	must(v.t, os.WriteFile(filepath.Join(v.dir, name, "config.json"), []byte(content), 0o644))
	must(v.t, os.Symlink(name, filepath.Join(v.dir, "..data_tmp")))
	must(v.t, os.Rename(filepath.Join(v.dir, "..data_tmp"), filepath.Join(v.dir, "..data")))
	if v.version == 1 {
		must(v.t, os.Symlink("..data/config.json", filepath.Join(v.dir, "config.json")))
		return
	}
	must(v.t, os.RemoveAll(filepath.Join(v.dir, fmt.Sprintf("..version_%d", v.version-1))))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// output is a log that a test reads while it is written.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(b)
}

func (o *output) count(s string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.Count(o.b.String(), s)
}

// running is a File that is kept up with until the test ends.
type running struct {
	t       *testing.T
	log     output
	reg     *prometheus.Registry
	updates chan *config.Config
}

func start(t *testing.T, path string) *running {
	t.Helper()
	r := &running{t: t, reg: prometheus.NewPedanticRegistry(), updates: make(chan *config.Config)}
	f, c, err := reload.Load(path, "intel.com", slog.New(slog.NewTextHandler(&r.log, nil)), r.reg)
	must(t, err)
	if len(c.Pools) != 1 || c.Pools[0].Resource != "intel.com/first" {
		t.Fatalf("pools %+v, want intel.com/first", c.Pools)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx, r.updates) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return r
}

func (r *running) expect(resource string) {
	r.t.Helper()
	select {
	case c := <-r.updates:
		if len(c.Pools) != 1 || c.Pools[0].Resource != resource {
			r.t.Fatalf("pools %+v, want %s", c.Pools, resource)
		}
	case <-time.After(20 * time.Second):
		r.t.Fatalf("no configuration, want %s", resource)
	}
}

// expectMetrics waits: what is counted comes with no update.
func (r *running) expectMetrics(succeeded, failed, good int) {
	r.t.Helper()
	want := fmt.Sprintf(`# HELP numalane_plugin_config_last_reload_successful 1 if the pool configuration in use is what the file says, 0 if the file is bad and an older one is in use.
# TYPE numalane_plugin_config_last_reload_successful gauge
numalane_plugin_config_last_reload_successful %d
# HELP numalane_plugin_config_reloads_total Times that the pool configuration was found changed, by whether the new one could be used.
# TYPE numalane_plugin_config_reloads_total counter
numalane_plugin_config_reloads_total{result="failure"} %d
numalane_plugin_config_reloads_total{result="success"} %d
`, good, failed, succeeded)
	deadline := time.Now().Add(20 * time.Second)
	for {
		err := testutil.GatherAndCompare(r.reg, strings.NewReader(want))
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatal(err)
		}
		select {
		case c := <-r.updates:
			r.t.Fatalf("a configuration of %+v, want none", c.Pools)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func TestConfigMap(t *testing.T) {
	v := &volume{t: t, dir: t.TempDir()}
	v.put(pool("first"))
	r := start(t, filepath.Join(v.dir, "config.json"))
	r.expectMetrics(0, 0, 1)

	v.put(pool("second"))
	r.expect("intel.com/second")
	r.expectMetrics(1, 0, 1)

	v.put(`{"resourceList": [{"resourceName": "-bad-", "selectors": {"vendors": ["80"]}}]}`)
	r.expectMetrics(1, 1, 0)
	for _, mistake := range []string{"resourceList[0].resourceName", "resourceList[0].selectors.vendors[0]"} {
		if n := r.log.count(mistake); n != 1 {
			t.Errorf("%s is logged %d times, want 1:\n%s", mistake, n, &r.log.b)
		}
	}

	v.put(pool("second"))
	r.expectMetrics(1, 1, 1) // it was in use all the time

	v.put(pool("third"))
	r.expect("intel.com/third")
	r.expectMetrics(2, 1, 1)
}

func TestPlainFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.json")
	must(t, os.WriteFile(path, []byte(pool("first")), 0o644))
	r := start(t, path)

	must(t, os.Remove(path))
	r.expectMetrics(0, 1, 0)
	if n := r.log.count("no such file"); n != 1 {
		t.Errorf("the missing file is logged %d times, want 1:\n%s", n, &r.log.b)
	}
	must(t, os.WriteFile(path, []byte(pool("second")), 0o644))
	r.expect("intel.com/second")
}

// What was written between Load and Run is seen.
func TestChangeBeforeTheWatch(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.json")
	must(t, os.WriteFile(path, []byte(pool("first")), 0o644))
	f, _, err := reload.Load(path, "intel.com", slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	must(t, err)
	must(t, os.WriteFile(path, []byte(pool("second")), 0o644))
	updates := make(chan *config.Config)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx, updates) }()
	if c := <-updates; c.Pools[0].Resource != "intel.com/second" {
		t.Errorf("pools %+v, want intel.com/second", c.Pools)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestNothingWithoutAFirstOne(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad.json")
	must(t, os.WriteFile(bad, []byte(`{"resourceList": 3}`), 0o644))
	for path, want := range map[string]string{filepath.Join(dir, "none.json"): "no such file", bad: "resourceList"} {
		_, _, err := reload.Load(path, "intel.com", slog.New(slog.NewTextHandler(io.Discard, nil)), prometheus.NewRegistry())
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want an error with %q", path, err, want)
		}
	}
}
