package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
)

// unpack is what a runtime's import does first.
func unpack(t *testing.T, archive string) string {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	dir := t.TempDir()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return dir
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(dir, h.Name)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func binary(t *testing.T, content string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "numalane-plugin")
	if err := os.WriteFile(file, []byte(content), 0o755); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestImage(t *testing.T) {
	out := filepath.Join(t.TempDir(), "image.tar")
	binaries := map[string]string{"amd64": binary(t, "for amd64"), "ppc64le": binary(t, "for ppc64le")}
	const name = "registry.example/numalane-plugin:v1"
	args := []string{"amd64=" + binaries["amd64"], "ppc64le=" + binaries["ppc64le"]}
	if err := build(name, out, args); err != nil {
		t.Fatal(err)
	}
	top, err := layout.ImageIndexFromPath(unpack(t, out))
	if err != nil {
		t.Fatal(err)
	}
	m, err := top.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Manifests) != 1 || m.Manifests[0].Annotations["io.containerd.image.name"] != name || m.Manifests[0].Annotations["org.opencontainers.image.ref.name"] != "v1" {
		t.Fatalf("index.json names %v, want %s", m.Manifests, name)
	}
	index, err := top.ImageIndex(m.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	if m, err = index.IndexManifest(); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, d := range m.Manifests {
		image, err := index.Image(d.Digest)
		if err != nil {
			t.Fatal(err)
		}
		arch := d.Platform.Architecture
		seen[arch] = true
		holds(t, image, arch, binaries[arch])
	}
	if len(seen) != 2 {
		t.Errorf("architectures %v, want amd64 and ppc64le", seen)
	}

	again := filepath.Join(t.TempDir(), "again.tar")
	if err := build(name, again, args); err != nil {
		t.Fatal(err)
	}
	first, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	second, err := os.ReadFile(again)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first, second) {
		t.Error("the same binaries gave another archive")
	}
}

func holds(t *testing.T, image v1.Image, arch, file string) {
	t.Helper()
	c, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if c.Architecture != arch || c.OS != "linux" || len(c.Config.Entrypoint) != 1 || c.Config.Entrypoint[0] != "/numalane-plugin" {
		t.Errorf("%s: configuration of %s/%s with entry point %v", arch, c.OS, c.Architecture, c.Config.Entrypoint)
	}
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	if len(layers) != 1 {
		t.Fatalf("%s: %d layers, want 1", arch, len(layers))
	}
	content, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer content.Close()
	r := tar.NewReader(content)
	h, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if h.Name != "numalane-plugin" || h.Mode != 0o755 || !bytes.Equal(got, want) {
		t.Errorf("%s: holds %s (mode %o) with %q, want %q", arch, h.Name, h.Mode, got, want)
	}
}

func TestRefuses(t *testing.T) {
	out := filepath.Join(t.TempDir(), "image.tar")
	for name, args := range map[string][]string{
		"no binary":       nil,
		"no architecture": {binary(t, "x")},
		"not there":       {"amd64=" + filepath.Join(t.TempDir(), "none")},
	} {
		if err := build("registry.example/x:v1", out, args); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
