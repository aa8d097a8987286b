// Command image puts a static binary into a container image without a base:
// one binary an architecture in, an OCI archive with an index of them out, for
// "ctr images import", "skopeo copy oci-archive:" and "podman load". The same
// binaries give the same bytes.
package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

func main() {
	name := flag.String("name", "", "the image's name: ghcr.io/numalane/numalane-plugin:v0.1.0")
	out := flag.String("out", "", "the archive to write")
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "usage: image -name NAME -out FILE ARCH=BINARY...\n\n")
		flag.PrintDefaults()
	}
	flag.Parse()
	if err := build(*name, *out, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func build(name, out string, binaries []string) (err error) {
	if name == "" || out == "" || len(binaries) == 0 {
		return errors.New("want -name, -out and at least one ARCH=BINARY")
	}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, b := range binaries {
		arch, file, ok := strings.Cut(b, "=")
		if !ok {
			return fmt.Errorf("%q: want ARCH=BINARY", b)
		}
		image, err := imageOf(arch, file)
		if err != nil {
			return fmt.Errorf("image for %s: %w", arch, err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add:        image,
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}},
		})
	}
	dir, err := os.MkdirTemp(filepath.Dir(out), ".image-")
	if err != nil {
		return fmt.Errorf("make a folder for the layout: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	to, err := layout.Write(dir, empty.Index)
	if err != nil {
		return fmt.Errorf("write the layout: %w", err)
	}
	// The first is what the OCI has for a name, the second containerd's.
	names := map[string]string{"org.opencontainers.image.ref.name": name[strings.LastIndex(name, ":")+1:], "io.containerd.image.name": name}
	if err := to.AppendIndex(index, layout.WithAnnotations(names)); err != nil {
		return fmt.Errorf("write the layout: %w", err)
	}
	return archive(dir, out)
}

// imageOf is an image that holds one binary, which is its entry point.
func imageOf(arch, file string) (v1.Image, error) {
	layer, err := layerOf(file)
	if err != nil {
		return nil, err
	}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	if image, err = mutate.AppendLayers(image, layer); err != nil {
		return nil, fmt.Errorf("add the layer: %w", err)
	}
	c, err := image.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	c = c.DeepCopy()
	c.OS, c.Architecture = "linux", arch
	c.Config.Entrypoint = []string{"/" + filepath.Base(file)}
	return mutate.ConfigFile(image, c)
}

func layerOf(file string) (v1.Layer, error) {
	binary, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	t := tar.NewWriter(&b)
	// A time of its own would make each image another one.
	if err := t.WriteHeader(&tar.Header{Name: filepath.Base(file), Mode: 0o755, Size: int64(len(binary)), Format: tar.FormatUSTAR}); err != nil {
		return nil, err
	}
	if _, err := t.Write(binary); err != nil {
		return nil, err
	}
	if err := t.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(b.Bytes())), nil
	}, tarball.WithMediaType(types.OCILayer))
}

// archive makes one file of a layout.
func archive(dir, out string) (err error) {
	f, err := os.Create(out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	t := tar.NewWriter(f)
	if err := filepath.WalkDir(dir, func(at string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, at)
		if err != nil {
			return err
		}
		content, err := os.ReadFile(at)
		if err != nil {
			return err
		}
		if err := t.WriteHeader(&tar.Header{Name: path.Clean(filepath.ToSlash(rel)), Mode: 0o644, Size: int64(len(content)), Format: tar.FormatUSTAR}); err != nil {
			return err
		}
		_, err = t.Write(content)
		return err
	}); err != nil {
		return fmt.Errorf("write %s: %w", out, err)
	}
	return t.Close()
}
