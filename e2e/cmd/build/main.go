// build makes the binaries of the lane: Kubernetes and etcd from their Go
// modules, and ours. The first time takes some minutes; after that only what
// changed is made again.
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

type binary struct {
	name string
	pkg  string
	dir  string // of the module, from e2e/
	tags string
}

// foreign are pinned by go.mod: they are made again only when go.sum or the
// toolchain changes.
var foreign = []binary{
	{"kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver", ".", ""},
	{"kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager", ".", ""},
	{"kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler", ".", ""},
	{"etcd", "go.etcd.io/etcd/server/v3", ".", ""},
	{"kubectl", "k8s.io/kubernetes/cmd/kubectl", ".", ""},
}

// productTags are those of the Makefile's build: without gRPC's trace pages and
// their templates the linker can leave out what is never called, half the
// plugin's size.
const productTags = "grpcnotrace"

var own = []binary{
	{"simnode", "./cmd/simnode", ".", ""},
	{"demo", "./cmd/demo", ".", ""},
	{"numalane-plugin", "./cmd/plugin", "..", productTags},
	{"numalane-extender", "./cmd/extender", "..", productTags},
}

func main() {
	out := flag.String("o", filepath.Join(".cache", "bin"), "folder for the binaries")
	flag.Parse()
	if err := run(*out); err != nil {
		fmt.Fprintln(os.Stderr, "build:", err)
		os.Exit(1)
	}
}

func run(out string) error {
	out, err := filepath.Abs(out)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	version, err := kubernetesVersion()
	if err != nil {
		return err
	}
	key, err := stamp(version)
	if err != nil {
		return err
	}
	stampFile := filepath.Join(out, ".stamp")
	made, err := os.ReadFile(stampFile)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if string(made) != key || !present(out, foreign) {
		fmt.Printf("building Kubernetes %s from its Go modules: some minutes the first time, seconds after that\n", version)
		if err := build(out, ldflags(version), foreign); err != nil {
			return err
		}
		if err := os.WriteFile(stampFile, []byte(key), 0o644); err != nil {
			return err
		}
	}
	return build(out, ldflags(version), own)
}

func build(out, ldflags string, binaries []binary) error {
	for _, b := range binaries {
		start := time.Now()
		fmt.Printf("  %-24s", b.name)
		cmd := exec.Command("go", "build", "-trimpath", "-tags", b.tags, "-ldflags", ldflags, "-o", filepath.Join(out, b.name), b.pkg)
		cmd.Dir = b.dir
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		done := alive(start)
		msg, err := cmd.CombinedOutput()
		done()
		if err != nil {
			fmt.Println()
			return fmt.Errorf("%s: %w\n%s", b.name, err, msg)
		}
		fmt.Printf(" %6.1fs\n", time.Since(start).Seconds())
	}
	return nil
}

// alive prints every half minute how long a build has taken, until it is told
// that it is done.
func alive(start time.Time) (done func()) {
	tick := time.NewTicker(30 * time.Second)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-tick.C:
				fmt.Printf(" %.0fs …", time.Since(start).Seconds())
			case <-stop:
				return
			}
		}
	}()
	return func() {
		tick.Stop()
		close(stop)
		<-stopped
	}
}

func present(out string, binaries []binary) bool {
	for _, b := range binaries {
		if _, err := os.Stat(filepath.Join(out, b.name)); err != nil {
			return false
		}
	}
	return true
}

// stamp is the same as long as the foreign binaries would come out the same.
func stamp(version string) (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, runtime.Version(), version)
	for _, f := range []string{"go.mod", "go.sum"} {
		b, err := os.ReadFile(f)
		if err != nil {
			return "", fmt.Errorf("run this in e2e/: %w", err)
		}
		h.Write(b)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func kubernetesVersion() (string, error) {
	b, err := exec.Command("go", "list", "-m", "-f", "{{.Version}}", "k8s.io/kubernetes").Output()
	if err != nil {
		return "", fmt.Errorf("version of k8s.io/kubernetes: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// ldflags tell the binaries their version: without them they say v0.0.0.
func ldflags(version string) string {
	parts := strings.SplitN(strings.TrimPrefix(version, "v"), ".", 3)
	flags := []string{"-s", "-w"}
	for _, pkg := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		flags = append(flags, "-X", pkg+".gitVersion="+version, "-X", pkg+".gitMajor="+parts[0], "-X", pkg+".gitMinor="+parts[1])
	}
	return strings.Join(flags, " ")
}
