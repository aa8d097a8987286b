// Package cdi keeps Container Device Interface specifications of the pools'
// devices, for runtimes that put device nodes into containers by name.
//
// In flow the pools with the device nodes of their devices, and which devices
// pods hold. Out flow one specification file a pool, there before the kubelet
// hears of its devices, and the names that Allocate answers with. A runtime
// looks a name up whenever it makes a container, also one that it makes again
// while the plugin is down: a file stays when the plugin ends, and a device that
// a pod holds stays in it whatever becomes of the device or its pool.
//
// A device's name is <prefix>/net-pci-<name>=<id>, of pool <prefix>/<name>:
// net-accel- for accelerators, net-sf- for subfunctions. The sriov-network-device-plugin
// leaves -<name> out; then its pools of one prefix share a kind, and their
// annotations overwrite each other in a container that has devices of two. The
// word before the name is also what makes any pool's name a valid class, which
// must begin with a letter.
package cdi

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"tags.cncf.io/container-device-interface/pkg/cdi"
	"tags.cncf.io/container-device-interface/pkg/parser"
	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/numalane/numalane/internal/config"
	"github.com/numalane/numalane/internal/handout"
)

// DefaultDir is where runtimes look for specifications that come and go.
const DefaultDir = cdi.DefaultDynamicDir

const (
	filePrefix = "numalane-"
	fileSuffix = ".json"

	// settle is how long a file is left alone that an instance of the plugin
	// with other pools may just have written.
	settle = time.Minute
)

// Pool are the device nodes of the devices of a kind.
type Pool struct {
	Kind  string
	Nodes map[string][]handout.Node // by device id; devices without nodes are left out
}

var classes = map[config.DeviceType]string{
	config.NetDevice:    "net-pci-",
	config.Accelerator:  "net-accel-",
	config.AuxNetDevice: "net-sf-",
}

// Kind is the CDI kind of a resource's devices.
func Kind(resource string, t config.DeviceType) string {
	prefix, name, _ := strings.Cut(resource, "/")
	return prefix + "/" + classes[t] + name
}

// Names are the devices as a runtime looks them up.
func Names(kind string, ids []string) []string {
	vendor, class := parser.ParseQualifier(kind)
	names := make([]string, len(ids))
	for i, id := range ids {
		names[i] = parser.QualifiedName(vendor, class, id)
	}
	return names
}

// Annotation asks a runtime for devices as it was done before the kubelet had a
// field for them. The key says nothing; it has to be another for each pool, and
// its part after the slash is short.
func Annotation(kind string, names []string) (key, value string) {
	vendor, class := parser.ParseQualifier(kind)
	key, err := cdi.AnnotationKey(vendor, class)
	if err != nil { // too long
		key = fmt.Sprintf("%snumalane_%x", cdi.AnnotationPrefix, sha256.Sum256([]byte(kind)))[:len(cdi.AnnotationPrefix)+40]
	}
	return key, strings.Join(names, ",")
}

// Folder is a folder of specifications.
type Folder struct {
	dir string

	mu     sync.Mutex
	wanted map[string]*specs.Spec // by kind
}

// New does not touch the folder yet.
func New(dir string) *Folder { return &Folder{dir: filepath.Clean(dir)} }

// Want says what shall be in the folder: the pools, and beside them the devices
// of other kinds of ours as long as a pod holds them, or may do so.
func (f *Folder) Want(pools []Pool, held func(resource, id string) bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var errs []error
	f.wanted = map[string]*specs.Spec{}
	for _, p := range pools {
		now, err := f.read(p.Kind)
		if err != nil {
			errs = append(errs, err) // it will be written anew
		}
		f.wanted[p.Kind] = specOf(p, now, held)
	}
	others, err := filepath.Glob(filepath.Join(f.dir, filePrefix+"*"+fileSuffix))
	if err != nil {
		errs = append(errs, fmt.Errorf("CDI folder %s: %w", f.dir, err))
	}
	for _, path := range others {
		now, err := cdi.ReadSpec(path, 0)
		if err != nil {
			continue // no specification, so not ours
		}
		_, ours := resourceOf(now.Kind)
		if _, known := f.wanted[now.Kind]; known || !ours || f.path(now.Kind) != path {
			continue
		}
		if info, err := os.Stat(path); err == nil && time.Since(info.ModTime()) >= settle {
			f.wanted[now.Kind] = specOf(Pool{Kind: now.Kind}, now.Spec, held)
		}
	}
	return errors.Join(errs...)
}

// Write makes the folder what it shall be.
func (f *Folder) Write() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var errs []error
	for _, kind := range slices.Sorted(maps.Keys(f.wanted)) {
		errs = append(errs, f.write(kind))
	}
	return errors.Join(errs...)
}

// Ensure does it for one kind.
func (f *Folder) Ensure(kind string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.write(kind)
}

// specOf has the pool's devices, and of those that have left it the ones that
// are held, as they were.
func specOf(p Pool, now *specs.Spec, held func(resource, id string) bool) *specs.Spec {
	s := &specs.Spec{Kind: p.Kind}
	resource, _ := resourceOf(p.Kind)
	for id, nodes := range p.Nodes {
		if len(nodes) == 0 {
			continue
		}
		d := specs.Device{Name: id}
		for _, n := range nodes {
			d.ContainerEdits.DeviceNodes = append(d.ContainerEdits.DeviceNodes, &specs.DeviceNode{Path: n.Container, HostPath: n.Host, Permissions: "rw"})
		}
		s.Devices = append(s.Devices, d)
	}
	if now != nil {
		for _, d := range now.Devices {
			if len(p.Nodes[d.Name]) == 0 && held(resource, d.Name) {
				s.Devices = append(s.Devices, d)
			}
		}
	}
	slices.SortFunc(s.Devices, func(a, b specs.Device) int { return strings.Compare(a.Name, b.Name) })
	return s
}

// resourceOf is the other way of Kind.
func resourceOf(kind string) (resource string, ok bool) {
	vendor, class := parser.ParseQualifier(kind)
	for _, prefix := range slices.Sorted(maps.Values(classes)) {
		if name, ok := strings.CutPrefix(class, prefix); ok {
			return vendor + "/" + name, true
		}
	}
	return "", false
}

func (f *Folder) path(kind string) string {
	return filepath.Join(f.dir, filePrefix+strings.ReplaceAll(kind, "/", "_")+fileSuffix)
}

// read is nil without a file.
func (f *Folder) read(kind string) (*specs.Spec, error) {
	s, err := cdi.ReadSpec(f.path(kind), 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read CDI specification: %w", err)
	}
	return s.Spec, nil
}

// write makes one file what it shall be. A file that is right is not
// touched: runtimes watch the folder.
func (f *Folder) write(kind string) error {
	want := f.wanted[kind]
	if want == nil {
		return nil
	}
	if len(want.Devices) == 0 {
		if err := os.Remove(f.path(kind)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove CDI specification: %w", err)
		}
		return nil
	}
	var err error
	if want.Version, err = specs.MinimumRequiredVersion(want); err != nil {
		return fmt.Errorf("CDI specification of %s: %w", kind, err)
	}
	data, err := json.Marshal(want)
	if err != nil {
		return fmt.Errorf("CDI specification of %s: %w", kind, err)
	}
	if now, err := os.ReadFile(f.path(kind)); err == nil && bytes.Equal(now, data) {
		return nil
	}
	cache, err := cdi.NewCache(cdi.WithSpecDirs(f.dir), cdi.WithAutoRefresh(false))
	if err != nil {
		return fmt.Errorf("CDI folder %s: %w", f.dir, err)
	}
	if err := cache.WriteSpec(want, filepath.Base(f.path(kind))); err != nil {
		return fmt.Errorf("write CDI specification of %s: %w", kind, err)
	}
	return nil
}
