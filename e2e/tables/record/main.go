// Record runs the kubelet's own tests, unchanged, with a recorder in between,
// and writes down what they feed to the kubelet's resource managers and what
// these make of it: the vectors that the allocator's tests replay.
//
// It is run from the e2e module whenever that requires another Kubernetes:
//
//	go run ./tables/record -to ../pkg/allocator/testdata/kubelet
//
// Nothing of the kubelet is copied. For the time of the run a few functions of
// its files are renamed (a build overlay shows the compiler the changed files),
// and a file of ours in each package, under _kubelet, takes their names: it
// calls the kubelet's function and notes what went in and out. Beyond that it
// asks the kubelet's code what becomes of each pod under every policy of the
// topology manager. A function that is no longer there ends the run.
package main

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"

	"github.com/numalane/numalane/e2e/tables/vector"
)

//go:embed all:_kubelet
var recorders embed.FS

const (
	module = "k8s.io/kubernetes"
	parent = "pkg/kubelet/cm"
)

// renamed are the functions of the kubelet that a recorder stands in for.
var renamed = map[string][]string{
	"devicemanager": {
		"ManagerImpl.GetTopologyHints", "ManagerImpl.GetPodTopologyHints", "ManagerImpl.Allocate",
		"ManagerImpl.generateDeviceTopologyHints", "ManagerImpl.devicesToAllocate",
	},
	"memorymanager": {
		"staticPolicy.Allocate", "staticPolicy.AllocatePod", "staticPolicy.GetTopologyHints",
		"staticPolicy.GetPodTopologyHints", "staticPolicy.calculateHints",
	},
	"topologymanager": {"bestEffortPolicy.Merge", "restrictedPolicy.Merge", "singleNumaNodePolicy.Merge"},
	"cpumanager": {
		"takeByTopologyNUMAPacked", "takeByTopologyNUMADistributed",
		"staticPolicy.Allocate", "staticPolicy.AllocatePod", "staticPolicy.GetTopologyHints",
		"staticPolicy.GetPodTopologyHints", "staticPolicy.generateCPUTopologyHints",
	},
}

func main() {
	to := flag.String("to", "", "folder for the tables")
	only := flag.String("only", "", "the one package to record again")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *to, *only); err != nil {
		fmt.Fprintln(os.Stderr, "record:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, to, only string) error {
	if to == "" {
		return errors.New("-to is not given")
	}
	var found struct{ Dir, Version string }
	out, err := output(ctx, "go", "list", "-m", "-json", module)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(out, &found); err != nil {
		return fmt.Errorf("read what go list says of %s: %w", module, err)
	}
	tmp, err := os.MkdirTemp("", "tables-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	r, err := newRecorder(ctx, tmp, found.Dir)
	if err != nil {
		return err
	}
	manifest := vector.Manifest{Kubernetes: found.Version, Tables: map[string]vector.Count{}}
	path := filepath.Join(to, "manifest.json")
	if only != "" {
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(b, &manifest); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	for _, name := range packages() {
		if only != "" && name != only {
			continue
		}
		table, count, err := r.record(ctx, name)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		manifest.Tables[name] = count
		if err := os.WriteFile(filepath.Join(to, name+".json"), table, 0o644); err != nil {
			return err
		}
		fmt.Printf("%s: %+v\n", name, count)
	}
	b, err := json.MarshalIndent(manifest, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

// recorder runs the tests of packages.
type recorder struct {
	tmp     string
	sources string // the kubelet's module
	modfile string
}

// newRecorder gives the kubelet's module a second path: the go command takes no
// overlay on files of the module cache.
func newRecorder(ctx context.Context, tmp, sources string) (*recorder, error) {
	r := &recorder{tmp: tmp, sources: filepath.Join(tmp, "kubernetes"), modfile: filepath.Join(tmp, "go.mod")}
	if err := os.Symlink(sources, r.sources); err != nil {
		return nil, err
	}
	for _, name := range []string{"go.mod", "go.sum"} {
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("not run in the e2e module: %w", err)
		}
		if err := os.WriteFile(filepath.Join(tmp, name), b, 0o600); err != nil {
			return nil, err
		}
	}
	_, err := output(ctx, "go", "mod", "edit", "-replace="+module+"="+r.sources, r.modfile)
	return r, err
}

// record runs the tests of one package.
func (r *recorder) record(ctx context.Context, name string) ([]byte, vector.Count, error) {
	dir := filepath.Join(r.tmp, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, vector.Count{}, err
	}
	overlay, err := writeOverlay(dir, filepath.Join(r.sources, parent, name), name)
	if err != nil {
		return nil, vector.Count{}, err
	}
	sink := filepath.Join(dir, "vectors")
	cmd := exec.CommandContext(ctx, "go", "test", "-count=1", "-modfile="+r.modfile, "-overlay="+overlay, module+"/"+parent+"/"+name)
	cmd.Env = append(os.Environ(), vector.SinkVariable+"="+sink)
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, vector.Count{}, fmt.Errorf("the kubelet's tests do not pass: %w\n%s", err, failures(out))
	}
	lines, err := os.ReadFile(sink)
	if err != nil {
		return nil, vector.Count{}, err
	}
	return reduce(lines)
}

func output(ctx context.Context, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", cmd, err)
	}
	return out, nil
}

// failures are the lines of a test's output that say what failed.
func failures(out []byte) string {
	var said []string
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(strings.TrimSpace(line), "--- FAIL") || strings.Contains(line, "_test.go:") || strings.Contains(line, "panic") || strings.Contains(line, "record.go:") {
			said = append(said, line)
		}
	}
	return strings.Join(said[:min(len(said), 60)], "")
}
