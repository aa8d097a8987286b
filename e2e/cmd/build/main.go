// build makes the binaries of the lane: Kubernetes and etcd from their Go
// modules, and ours, all or those that are named; with -kubelets those of the
// oracle and of the registration tests. The first time takes some minutes; after
// that only what changed is made again.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
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
	{"kubelet", "k8s.io/kubernetes/cmd/kubelet", ".", ""},
}

// productTags are those of the Makefile's build: without gRPC's trace pages and
// their templates the linker can leave out what is never called, half the
// plugin's size.
const productTags = "grpcnotrace"

var plugin = binary{"numalane-plugin", "./cmd/plugin", "..", productTags}

var own = []binary{
	{"simnode", "./cmd/simnode", ".", ""},
	{"demo", "./cmd/demo", ".", ""},
	{"storm", "./cmd/storm", ".", ""},
	{"vm", "./cmd/vm", ".", ""},
	{"vmguest", "./cmd/vmguest", ".", ""},
	plugin,
	{"numalane-extender", "./cmd/extender", "..", productTags},
}

func main() {
	out := flag.String("o", filepath.Join(".cache", "bin"), "folder for the binaries")
	kubelets := flag.String("kubelets", "", "make the oracle, the plugin and the resource managers of these kubelets (\"1.34 1.37\") instead")
	flag.Parse()
	if err := run(*out, strings.Fields(*kubelets), flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "build:", err)
		os.Exit(1)
	}
}

func run(out string, kubelets, names []string) error {
	out, err := filepath.Abs(out)
	if err != nil {
		return err
	}
	ours, err := named(names)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	if len(kubelets) > 0 {
		return managers(out, kubelets)
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
	return build(out, ldflags(version), ours)
}

// named are those of ours that are wanted: all if none is named.
func named(names []string) ([]binary, error) {
	if len(names) == 0 {
		return own, nil
	}
	var found []binary
	for _, name := range names {
		i := slices.IndexFunc(own, func(b binary) bool { return b.name == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no %q to build", name)
		}
		found = append(found, own[i])
	}
	return found, nil
}

// managers makes the kubelets' resource managers, each kubelet a module of its
// own, and what is held against them.
func managers(out string, kubelets []string) error {
	binaries := []binary{{"oracle", "./cmd/oracle", ".", ""}, plugin}
	for _, version := range kubelets {
		dir := filepath.Join("kubelets", "v"+strings.ReplaceAll(version, ".", "_"))
		if _, err := os.Stat(dir); err != nil {
			return fmt.Errorf("there is no kubelet %s to build: %w", version, err)
		}
		binaries = append(binaries, binary{"managers-" + version, ".", dir, ""})
	}
	fmt.Printf("building the oracle, the plugin and kubelets %s from their Go modules: some minutes each the first time, seconds after that\n", strings.Join(kubelets, " "))
	return build(out, "-s -w", binaries)
}
