package sysfstest

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Unpack makes a captured machine, a tar archive with gzip or bzip2, below a
// folder that is there, and returns the folder that holds its sys. A file name
// with a colon, as sysfs has them, cannot be in a module.
func Unpack(archive io.Reader, dir string) (string, error) {
	b := bufio.NewReader(archive)
	magic, err := b.Peek(2)
	if err != nil {
		return "", fmt.Errorf("unpack: %w", err)
	}
	var r io.Reader = bzip2.NewReader(b)
	if bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		if r, err = gzip.NewReader(b); err != nil {
			return "", fmt.Errorf("unpack: %w", err)
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", fmt.Errorf("unpack: %w", err)
	}
	defer func() { _ = root.Close() }()
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = extract(root, h, tr)
		}
		if err != nil {
			return "", fmt.Errorf("unpack: %w", err)
		}
	}
	tops, err := os.ReadDir(dir)
	if err != nil {
		return "", fmt.Errorf("unpack: %w", err)
	}
	if len(tops) == 1 && tops[0].Name() != "sys" {
		return filepath.Join(dir, tops[0].Name()), nil
	}
	return dir, nil
}

func extract(root *os.Root, h *tar.Header, content io.Reader) error {
	name := filepath.Clean(h.Name)
	if h.Typeflag == tar.TypeDir {
		return root.MkdirAll(name, 0o755)
	}
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeSymlink:
		return root.Symlink(h.Linkname, name)
	case tar.TypeLink:
		return root.Link(filepath.Clean(h.Linkname), name)
	case tar.TypeReg:
		b, err := io.ReadAll(content)
		if err != nil {
			return err
		}
		return root.WriteFile(name, b, 0o644)
	}
	return nil // devices and sockets hold no account of the machine
}
