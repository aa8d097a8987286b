package capture

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/numalane/numalane/pkg/topology"
)

// An attribute has a page, a list of CPUs or the facts of a host some more; a
// machine with thousands of VFs and CPUs stays far below the others. What is
// larger is no sysfs.
const (
	maxFile    = 1 << 20
	maxBytes   = 64 << 20
	maxEntries = 1 << 19
)

// Contents is what an archive holds.
type Contents struct {
	Files, Links int
	Bytes        int   // of all files
	Unread       []Gap // by Path: what is there and could not be read
}

// Gap is a file that the archive does not have.
type Gap struct {
	Path string
	Err  error
}

// entry is a file, a link or a folder of the archive.
type entry struct {
	kind    byte // of tar
	link    string
	content []byte
}

// machine gathers an archive.
type machine struct {
	sys      string // without links in its path
	entries  map[string]entry
	contents Contents
}

// Write writes the archive, tar with gzip, of the machine below a root that the
// host was read from.
func Write(w io.Writer, root string, host *topology.Host) (Contents, error) {
	m, err := gather(root, host)
	if err != nil {
		return Contents{}, fmt.Errorf("capture %s: %w", root, err)
	}
	if err := m.write(w); err != nil {
		return Contents{}, fmt.Errorf("archive of %s: %w", root, err)
	}
	return m.contents, nil
}

func gather(root string, host *topology.Host) (*machine, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	sys, err := topology.Sysfs(root)
	if err != nil {
		return nil, err
	}
	m := &machine{entries: map[string]entry{}}
	if m.sys, err = filepath.EvalSymlinks(sys); err != nil {
		return nil, err
	}
	for _, pattern := range patterns(host) {
		for _, rel := range m.match(pattern) {
			if err := m.add(rel); err != nil {
				return nil, err
			}
		}
	}
	if sys != root {
		if err := m.addBeside(root); err != nil {
			return nil, err
		}
	}
	facts, err := encodeFacts(host)
	if err != nil || facts == nil {
		return m, err
	}
	return m, m.put(factsFile, entry{kind: tar.TypeReg, content: facts})
}

// addBeside adds what Read reads beside a sysfs. A device node is there or not:
// an empty file stands for it.
func (m *machine) addBeside(root string) error {
	if b, err := read(filepath.Join(root, "proc/meminfo")); err == nil {
		if err := m.put("proc/meminfo", entry{kind: tar.TypeReg, content: steady("meminfo", b)}); err != nil {
			return err
		}
	}
	for _, node := range []string{"dev/vhost-net", "dev/net/tun"} {
		if _, err := os.Lstat(filepath.Join(root, node)); err != nil {
			continue
		}
		if err := m.put(node, entry{kind: tar.TypeReg}); err != nil {
			return err
		}
	}
	return nil
}

// add adds one path of the sysfs, under the name that it has without links on
// the way.
func (m *machine) add(rel string) error {
	name, err := m.place(filepath.Join(m.sys, filepath.Dir(rel)))
	if err != nil {
		return nil //nolint:nilerr // a link that leads nowhere, or out of the sysfs
	}
	name = filepath.Join(name, filepath.Base(rel))
	if _, known := m.entries[name]; known {
		return nil
	}
	path := filepath.Join(m.sys, rel)
	info, err := os.Lstat(path)
	switch {
	case err != nil:
		return nil //nolint:nilerr // it went away meanwhile, as it may for Read
	case info.IsDir():
		return m.put(name, entry{kind: tar.TypeDir})
	case info.Mode()&fs.ModeSymlink != 0:
		return m.addLink(name, path)
	}
	b, err := read(path)
	if err != nil {
		if !mayFail[filepath.Base(rel)] {
			m.contents.Unread = append(m.contents.Unread, Gap{Path: rel, Err: err})
		}
		return nil // told as a gap
	}
	return m.put(name, entry{kind: tar.TypeReg, content: steady(filepath.Base(rel), b)})
}

// addLink adds a link, and the folder that it leads to: the link leads there in
// the archive too.
func (m *machine) addLink(name, path string) error {
	target, err := os.Readlink(path)
	if err != nil {
		return nil //nolint:nilerr // as above
	}
	if err := m.put(name, entry{kind: tar.TypeSymlink, link: target}); err != nil {
		return err
	}
	end, err := m.place(path)
	if err != nil {
		return nil //nolint:nilerr // it leads nowhere, and does so in the archive
	}
	return m.put(end, entry{kind: tar.TypeDir})
}

// place is the name in the archive of what a path leads to.
func (m *machine) place(path string) (string, error) {
	end, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", err
	}
	rel, err := filepath.Rel(m.sys, end)
	if err != nil {
		return "", err
	}
	if !filepath.IsLocal(rel) {
		return "", fmt.Errorf("%s leads out of the sysfs", path)
	}
	return filepath.Join("sys", rel), nil
}

func (m *machine) put(name string, e entry) error {
	if _, known := m.entries[name]; known {
		return nil
	}
	m.entries[name] = e
	m.contents.Bytes += len(e.content)
	if m.contents.Bytes > maxBytes || len(m.entries) > maxEntries {
		return errors.New("more than a machine's sysfs can have: what is this folder?")
	}
	return nil
}

func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("more than %d bytes", maxFile)
	}
	return b, err
}

// steady leaves out of a meminfo what nobody reads and what differs from one
// moment to the next.
func steady(name string, content []byte) []byte {
	if name != "meminfo" {
		return content
	}
	var kept strings.Builder
	for line := range strings.Lines(string(content)) {
		for _, key := range []string{"MemTotal:", "Hugepagesize:", "Hugetlb:"} {
			if strings.Contains(line, key) {
				kept.WriteString(line)
			}
		}
	}
	return []byte(kept.String())
}

func (m *machine) write(w io.Writer) error {
	zip := gzip.NewWriter(w)
	archive := tar.NewWriter(zip)
	for _, name := range slices.Sorted(maps.Keys(m.entries)) {
		e := m.entries[name]
		h := &tar.Header{Typeflag: e.kind, Name: name, Linkname: e.link, Size: int64(len(e.content)), Mode: 0o644}
		switch e.kind {
		case tar.TypeDir:
			h.Name, h.Mode = name+"/", 0o755
		case tar.TypeSymlink:
			h.Mode = 0o777
			m.contents.Links++
		default:
			m.contents.Files++
		}
		if err := archive.WriteHeader(h); err != nil {
			return err
		}
		if _, err := archive.Write(e.content); err != nil {
			return err
		}
	}
	if err := archive.Close(); err != nil {
		return err
	}
	return zip.Close()
}
