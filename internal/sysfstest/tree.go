package sysfstest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// tree writes below a folder and keeps the first error.
type tree struct {
	dir   string
	made  map[string]bool
	local map[int]string // local_cpulist by NUMA node
	err   error
}

func newTree(dir string) *tree {
	return &tree{dir: dir, made: map[string]bool{}, local: map[int]string{}}
}

func (t *tree) mkdir(rel string) {
	if t.err != nil || t.made[rel] {
		return
	}
	if rel == "." {
		t.err = os.MkdirAll(t.dir, 0o755)
	} else {
		t.mkdir(filepath.Dir(rel))
		if err := os.Mkdir(filepath.Join(t.dir, rel), 0o755); err != nil && !os.IsExist(err) && t.err == nil {
			t.err = err
		}
	}
	t.made[rel] = t.err == nil
}

// file writes one attribute, with the newline that the kernel ends it with.
func (t *tree) file(rel, format string, args ...any) {
	t.mkdir(filepath.Dir(rel))
	if t.err == nil {
		t.err = os.WriteFile(filepath.Join(t.dir, rel), []byte(fmt.Sprintf(format, args...)+"\n"), 0o644)
	}
}

// attrs writes a folder's attributes, given as name and value in turn.
func (t *tree) attrs(rel string, pairs ...string) {
	for i := 0; i+1 < len(pairs); i += 2 {
		t.file(rel+"/"+pairs[i], "%s", pairs[i+1])
	}
}

// link makes a relative symbolic link, as sysfs has them. Both are below dir.
func (t *tree) link(rel, target string) {
	t.mkdir(filepath.Dir(rel))
	if t.err != nil {
		return
	}
	up := strings.Repeat("../", strings.Count(rel, "/"))
	a, b := strings.Split(rel, "/"), strings.Split(target, "/")
	same := 0
	for same < len(a)-1 && same < len(b)-1 && a[same] == b[same] {
		same++
	}
	t.err = os.Symlink(up[3*same:]+strings.Join(b[same:], "/"), filepath.Join(t.dir, rel))
}
