package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/numalane/numalane/e2e/vm/view"
)

// hold tells what this container was given, by itself and not by the kubelet,
// and stays until it is stopped.
func hold(ctx context.Context, out io.Writer) error {
	v := view.Container{Env: map[string]string{}}
	for _, e := range os.Environ() {
		if name, value, _ := strings.Cut(e, "="); strings.HasPrefix(name, "PCIDEVICE_") {
			v.Env[name] = value
		}
	}
	for file, to := range map[string]*string{"cpuset.cpus.effective": &v.CPUs, "cpuset.mems.effective": &v.Mems} {
		b, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", file))
		if err != nil {
			return fmt.Errorf("read the container's cgroup: %w", err)
		}
		*to = strings.TrimSpace(string(b))
	}
	for dir, to := range map[string]*[]string{"/dev/vfio": &v.VFIO, "/sys/class/net": &v.Interfaces} {
		entries, err := os.ReadDir(dir)
		if err != nil && !os.IsNotExist(err) {
			return err
		}
		for _, e := range entries {
			*to = append(*to, e.Name())
		}
	}
	// A device node that cannot be opened is none. A group opens once its
	// device is bound to vfio-pci.
	for _, name := range v.VFIO {
		f, err := os.OpenFile(filepath.Join("/dev/vfio", name), os.O_RDWR, 0)
		if err != nil {
			v.Faults = append(v.Faults, err.Error())
			continue
		}
		f.Close()
	}
	if err := json.NewEncoder(out).Encode(v); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}
