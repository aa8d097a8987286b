package topology

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/jaypipes/ghw/pkg/pci"
	"github.com/jaypipes/pcidb"
)

// Option changes how Read works.
type Option func(*reader)

// WithPCIDB names vendors and products after a pci.ids database. Without it,
// and for what it does not list, the names are empty.
func WithPCIDB(db *pcidb.PCIDB) Option {
	return func(r *reader) {
		if db != nil {
			r.db = db
		}
	}
}

// WithPrevious saves ghw's account of the machine where an earlier Read of the
// same root had it: of the PCI devices, whose own files tell the same, and, which
// costs more than the rest on a machine with many CPUs, of the CPUs, when they
// are in the same NUMA nodes as then and there was no problem.
func WithPrevious(h *Host) Option {
	return func(r *reader) { r.previous = h }
}

// Read turns a sysfs into a Host. The root is a folder that holds sys/ (and
// perhaps proc/), such as "/" or an unpacked capture, or a sysfs itself.
//
// It fails only when no sysfs is there, or when its PCI bus is there and
// cannot be listed: a scan that failed must not look like a machine without
// devices. All else that cannot be read is told in Host.Problems or in the
// Problem of the device, and the rest stands.
func Read(root string, opts ...Option) (*Host, error) {
	r, err := newReader(root)
	if err != nil {
		return nil, err
	}
	for _, o := range opts {
		o(r)
	}
	// The two halves of a scan need nothing of each other.
	inventory := make(chan []*pci.Device, 1)
	go func() {
		if r.previous != nil {
			inventory <- nil
			return
		}
		inventory <- r.inventory()
	}()
	r.readMachine()
	if err := r.readDevices(<-inventory); err != nil {
		return nil, err
	}
	r.host.VhostNet = r.vhostNet()
	return &r.host, nil
}

// reader is one scan.
type reader struct {
	sys, proc string
	dev       string // empty: a sysfs alone has none
	db        *pcidb.PCIDB
	previous  *Host
	host      Host
	cpu       map[int]int // CPU id to its index in host.CPUs
	noNUMA    bool        // no devices/system/node: a kernel without CONFIG_NUMA
}

func newReader(root string) (*reader, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("read the machine: %w", err)
	}
	sys, err := Sysfs(root)
	if err != nil {
		return nil, err
	}
	// Never the running machine's /proc and /dev for another one's sysfs. (A
	// sysfs has a dev/ too, which is an index by number.)
	r := &reader{sys: sys, proc: filepath.Join(root, "proc"), db: &pcidb.PCIDB{}}
	if sys != root {
		r.dev = filepath.Join(root, "dev")
	}
	return r, nil
}

// Sysfs finds the sysfs of a root that Read is given.
func Sysfs(root string) (string, error) {
	if _, err := os.Stat(root); err != nil {
		return "", fmt.Errorf("read the machine: %w", err)
	}
	for _, sys := range []string{filepath.Join(root, "sys"), root} {
		for _, mark := range []string{"devices/system", "bus/pci"} {
			if _, err := os.Stat(filepath.Join(sys, mark)); err == nil {
				return sys, nil
			}
		}
	}
	return "", fmt.Errorf("read %s: no sysfs there: want a folder that holds sys/, or one that holds devices/system or bus/pci", root)
}

// problem notes what of the machine could not be read. The path is told
// relative to the sysfs.
func (r *reader) problem(path string, err error) {
	if rel, e := filepath.Rel(r.sys, path); e == nil {
		path = rel
	}
	r.host.Problems = append(r.host.Problems, Problem{Path: path, Text: cause(err)})
}

// cause is an error without the path that its place tells already.
func cause(err error) string {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err.Error()
	}
	return strings.ReplaceAll(err.Error(), "\n", "; ") // of joined errors
}

func missing(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// text reads an attribute. Captures may pad it with NULs to its page.
func text(path string) (string, error) {
	b, err := readAttr(path)
	if err != nil {
		return "", &fs.PathError{Op: "read", Path: path, Err: err}
	}
	b, _, _ = bytes.Cut(b, []byte{0})
	return string(bytes.TrimSpace(b)), nil
}

// page is what sysfs gives at most in one read, on the common architectures.
const page = 4096

// readAttr reads a file by the bare system calls. Attributes are short and
// many, and os.ReadFile makes three times as many calls for each: it asks for
// the flags, for the size, and whether the file can be polled.
func readAttr(path string) ([]byte, error) {
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	for err == syscall.EINTR {
		fd, err = syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	}
	if err != nil {
		return nil, err
	}
	defer syscall.Close(fd)
	var all []byte
	for {
		var b [page]byte
		n, err := syscall.Read(fd, b[:])
		switch {
		case err == syscall.EINTR:
			continue
		case err != nil:
			return nil, err
		}
		all = append(all, b[:n]...)
		if n < page { // the end, without a call to hear so
			return all, nil
		}
	}
}

func number(path string) (int, error) {
	s, err := text(path)
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, fmt.Errorf("%q is not a number", s)
	}
	return n, nil
}

// cpus reads a list of CPUs or, where an old kernel has no list, the mask.
func cpus(dir, list, mask string) (CPUSet, error) {
	s, err := text(filepath.Join(dir, list))
	if err == nil {
		return ParseCPUSet(s)
	}
	if !missing(err) {
		return CPUSet{}, err
	}
	s, maskErr := text(filepath.Join(dir, mask))
	if missing(maskErr) {
		return CPUSet{}, err
	}
	if maskErr != nil {
		return CPUSet{}, maskErr
	}
	return parseCPUMask(s)
}

// parseCPUMask reads the kernel's mask form, hexadecimal words of 32 bits with
// the highest first: "00000001,0000ffff".
func parseCPUMask(s string) (CPUSet, error) {
	var ids []int
	words := strings.Split(s, ",")
	slices.Reverse(words)
	for i, w := range words {
		bits, err := strconv.ParseUint(w, 16, 32)
		if err != nil {
			return CPUSet{}, fmt.Errorf("CPU mask %q: want words of 32 bits, hexadecimal", s)
		}
		for b := range 32 {
			if bits>>b&1 == 1 {
				ids = append(ids, i*32+b)
			}
		}
	}
	return NewCPUSet(ids...), nil
}

// numbered lists the N of a folder's entries that are named prefixN, ascending.
func numbered(dir, prefix string) ([]int, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var ids []int
	for _, e := range entries {
		digits, ok := strings.CutPrefix(e.Name(), prefix)
		if !ok {
			continue
		}
		if n, err := strconv.ParseUint(digits, 10, 31); err == nil {
			ids = append(ids, int(n))
		}
	}
	slices.Sort(ids)
	return ids, nil
}
