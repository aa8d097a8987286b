package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/numalane/numalane/internal/capture"
	"github.com/numalane/numalane/pkg/topology"
)

// writeCapture writes the machine to a file, whole or not at all, and tells
// what it wrote.
func writeCapture(out io.Writer, file, root string, host *topology.Host) error {
	f, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+"-*")
	if err != nil {
		return fmt.Errorf("write capture: %w", err)
	}
	c, err := capture.Write(f, root, host)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		return fmt.Errorf("write capture: %w", errors.Join(err, os.Remove(f.Name())))
	}
	fmt.Fprintf(out, "%s: %d files of %d bytes and %d links: %d devices, %d subfunctions\n",
		file, c.Files, c.Bytes, c.Links, len(host.Devices), len(host.Subfunctions))
	for _, gap := range c.Unread {
		fmt.Fprintf(out, "left out, could not be read: %s: %v\n", gap.Path, gap.Err)
	}
	fmt.Fprintf(out, "To look at it: mkdir machine && tar xzf %s -C machine && numalane-plugin inspect --sysfs-root machine\n", file)
	return nil
}
