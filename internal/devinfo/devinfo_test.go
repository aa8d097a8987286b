package devinfo_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/numalane/numalane/internal/devinfo"
)

const (
	resource = "intel.com/sriov-net"
	first    = "intel.com-sriov-net-0000:3b:02.0-device.json"
	second   = "intel.com-sriov-net-0000:3b:02.1-device.json"
)

func infos(ids ...string) map[string][]byte {
	m := map[string][]byte{}
	for _, id := range ids {
		m[id] = []byte(`{"about":"` + id + `"}`)
	}
	return m
}

func put(t *testing.T, dir string, age time.Duration, names ...string) {
	t.Helper()
	for _, name := range names {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("there before"), 0o444); err != nil {
			t.Fatal(err)
		}
		old(t, path, age)
	}
}

func old(t *testing.T, path string, age time.Duration) {
	t.Helper()
	at := time.Now().Add(-age)
	if err := os.Chtimes(path, at, at); err != nil {
		t.Fatal(err)
	}
}

func list(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	names := []string{}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestWrite(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "there", "yet")
	f := devinfo.New(dir)
	if err := f.Write(resource, infos("0000:3b:02.0", "0000:3b:02.1")); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{first, second}, list(t, dir)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	if got := read(t, filepath.Join(dir, second)); got != `{"about":"0000:3b:02.1"}` {
		t.Errorf("it says %s", got)
	}
	info, err := os.Stat(filepath.Join(dir, first))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != 0o444 {
		t.Errorf("mode %v, want that of the library, -r--r--r--", info.Mode())
	}
}

// The file of an earlier pod, or of another plugin, gives way.
func TestWriteReplaces(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, 0, first)
	if err := devinfo.New(dir).Write(resource, infos("0000:3b:02.0")); err != nil {
		t.Fatal(err)
	}
	if got := read(t, filepath.Join(dir, first)); got != `{"about":"0000:3b:02.0"}` {
		t.Errorf("it says %s", got)
	}
}

// Whichever of the files cannot be written, none is left.
func TestWriteAllOrNone(t *testing.T) {
	for _, bad := range []string{first, second} {
		t.Run(bad, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.MkdirAll(filepath.Join(dir, bad, "in the way"), 0o755); err != nil {
				t.Fatal(err)
			}
			err := devinfo.New(dir).Write(resource, infos("0000:3b:02.0", "0000:3b:02.1"))
			if err == nil || !strings.Contains(err.Error(), bad) {
				t.Fatalf("error %v, want one that names %s", err, bad)
			}
			if diff := cmp.Diff([]string{bad}, list(t, dir)); diff != "" {
				t.Errorf("files (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRestore(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, 0, first)
	if err := devinfo.New(dir).Restore(resource, infos("0000:3b:02.0", "0000:3b:02.1")); err != nil {
		t.Fatal(err)
	}
	if got := read(t, filepath.Join(dir, first)); got != "there before" {
		t.Errorf("the file that was there says %s", got)
	}
	if got := read(t, filepath.Join(dir, second)); got != `{"about":"0000:3b:02.1"}` {
		t.Errorf("the file that was missing says %s", got)
	}
}

func TestSweep(t *testing.T) {
	dir := t.TempDir()
	free := []string{second, ".numalane-123"}
	stay := []string{
		first, // held
		"intel.com-sriov-net-b-0000:3b:02.1-device.json", // of another resource that begins alike
		"intel.com-sriov-0000:3b:02.1-device.json",       // of one that this begins like
		"nvidia.com-gpu-0000:3b:02.1-device.json",        // of another plugin
		"intel.com-sriov-net-0000:3B:02.1-device.json",   // no id of ours
		"intel.com-sriov-net-0000:3b:02.1-device.json.swp",
		"intel.com-sriov-net-device.json",
		"0000:3b:02.1-device.json",
	}
	put(t, dir, 2*devinfo.Settle, slices.Concat(free, stay)...)
	put(t, dir, devinfo.Settle/2, "intel.com-sriov-net-0000:3b:02.2-device.json")
	stay = append(stay, "intel.com-sriov-net-0000:3b:02.2-device.json") // allocated just now
	if err := devinfo.New(dir).Sweep(resource, []string{"0000:3b:02.0"}); err != nil {
		t.Fatal(err)
	}
	slices.Sort(stay)
	if diff := cmp.Diff(stay, list(t, dir)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

func TestSweepWithoutFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "missing")
	if err := devinfo.New(dir).Sweep(resource, nil); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Sweep made the folder: %v", err)
	}
}

func TestWritable(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	if err := devinfo.New(dir).Writable(); err != nil {
		t.Error(err)
	}
	if got := list(t, dir); len(got) > 0 {
		t.Errorf("left behind: %v", got)
	}
	// Nobody may make a folder in sysfs, not even root.
	if err := devinfo.New("/sys/numalane").Writable(); !errors.Is(err, devinfo.ErrReadOnly) {
		t.Errorf("error %v, want ErrReadOnly", err)
	}
	// What a person can put right is not given up.
	put(t, dir, 0, "file")
	if err := devinfo.New(filepath.Join(dir, "file")).Writable(); err == nil || errors.Is(err, devinfo.ErrReadOnly) {
		t.Errorf("error %v, want one that is not ErrReadOnly", err)
	}
}
