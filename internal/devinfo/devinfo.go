// Package devinfo keeps the DeviceInfo files of devices that pods hold, in the
// folder where Multus looks for them.
//
// In flow the bytes of internal/handout, when a device is allocated, and which
// devices pods hold. Out flow files, one a device, there before the kubelet has
// the answer to Allocate and until the device is free: Multus reads them when it
// attaches the pod, and again when a sandbox is made anew. The end of the plugin
// changes nothing.
//
// A file is of the one pool and device that its name tells. Files of other
// resources belong to other plugins, and are not touched; those that an earlier
// plugin left for a resource of ours are ours.
package devinfo

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/numalane/numalane/pkg/topology"
)

// DefaultDir is where the Network Plumbing Working Group's library, and so
// Multus, looks for what device plugins say.
const DefaultDir = "/var/run/k8s.cni.cncf.io/devinfo/dp"

const (
	suffix     = "-device.json"
	tempPrefix = ".numalane-"

	// Settle is how young a file stays though nobody is known to hold the
	// device: the kubelet writes down what it gave only after Allocate.
	Settle = time.Minute
)

// Folder is a folder of DeviceInfo files.
type Folder struct {
	dir string
	mu  sync.Mutex // one call at a time changes files
}

// New does not touch the folder yet.
func New(dir string) *Folder { return &Folder{dir: filepath.Clean(dir)} }

// Writable tells whether the folder can be made and written to at all.
// [ErrReadOnly] says that it never will be.
func (f *Folder) Writable() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	temp, err := f.temp()
	if err == nil {
		err = errors.Join(temp.Close(), os.Remove(temp.Name()))
	}
	if errors.Is(err, syscall.EROFS) || errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: %w", ErrReadOnly, err)
	}
	return err
}

// ErrReadOnly is that the process may not write to the folder.
var ErrReadOnly = errors.New("the folder for device information cannot be written to")

// Write makes the files of a resource's devices, all or none.
func (f *Folder) Write(resource string, infos map[string][]byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var made []string
	for _, id := range slices.Sorted(maps.Keys(infos)) {
		name := fileName(resource, id)
		if err := f.write(name, infos[id]); err != nil {
			err = fmt.Errorf("write device information: %w", err)
			for _, name := range made {
				err = errors.Join(err, os.Remove(filepath.Join(f.dir, name)))
			}
			return err
		}
		made = append(made, name)
	}
	return nil
}

// Restore makes the files of a resource's devices that are missing. One that is
// there stays as it is: it was written when the device had all of its parts.
func (f *Folder) Restore(resource string, infos map[string][]byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var errs []error
	for _, id := range slices.Sorted(maps.Keys(infos)) {
		name := fileName(resource, id)
		if _, err := os.Lstat(filepath.Join(f.dir, name)); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := f.write(name, infos[id]); err != nil {
			errs = append(errs, fmt.Errorf("restore device information: %w", err))
		}
	}
	return errors.Join(errs...)
}

// Sweep removes the files of a resource's devices that are not held and have
// not been allocated just now.
func (f *Folder) Sweep(resource string, held []string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	entries, err := os.ReadDir(f.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for device information of free devices: %w", err)
	}
	var errs []error
	for _, e := range entries {
		id, ours := device(resource, e.Name())
		torn := strings.HasPrefix(e.Name(), tempPrefix) // by a process that was killed
		if !torn && (!ours || slices.Contains(held, id)) {
			continue
		}
		info, err := e.Info()
		if err != nil || time.Since(info.ModTime()) < Settle {
			continue
		}
		if err := os.Remove(filepath.Join(f.dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove device information of a free device: %w", err))
		}
	}
	return errors.Join(errs...)
}

// fileName is that of the Network Plumbing Working Group's library.
func fileName(resource, id string) string {
	return strings.ReplaceAll(resource+"-"+id, "/", "-") + suffix
}

// device is the one that a file of a resource is about. A resource may begin
// like another's: what is left must be an address, which has no hyphen.
func device(resource, name string) (id string, ok bool) {
	id, ok = strings.CutPrefix(name, strings.ReplaceAll(resource, "/", "-")+"-")
	if !ok {
		return "", false
	}
	if id, ok = strings.CutSuffix(id, suffix); !ok {
		return "", false
	}
	address, err := topology.ParseAddress(id)
	return id, err == nil && address.String() == id
}

// temp makes the folder if need be, for it may be removed at any time.
func (f *Folder) temp() (*os.File, error) {
	if err := os.MkdirAll(f.dir, 0o755); err != nil {
		return nil, err
	}
	return os.CreateTemp(f.dir, tempPrefix+"*")
}

// write puts a whole file in place at once.
func (f *Folder) write(name string, data []byte) error {
	temp, err := f.temp()
	if err != nil {
		return err
	}
	_, err = temp.Write(data)
	err = errors.Join(err, temp.Chmod(0o444), temp.Close())
	if err == nil {
		err = os.Rename(temp.Name(), filepath.Join(f.dir, name))
	}
	if err != nil {
		err = errors.Join(err, os.Remove(temp.Name()))
	}
	return err
}
