// Package disk makes the guest's disk.
//
// In goes the recipe in recipe.go, out come an image, a kernel and an initramfs
// in a folder of the cache that is named after the recipe's hash: another recipe
// makes another disk, the same one is made once.
package disk

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/numalane/numalane/hack/lab/child"
)

// Disk is a guest's disk. Nobody writes to it: machines run on layers above.
type Disk struct{ Image, Kernel, Initrd string }

// Ensure makes the disk unless the cache has it.
func Ensure(ctx context.Context, cache string, progress func(string, ...any)) (Disk, error) {
	dir := filepath.Join(cache, "disk-"+hash())
	d := Disk{Image: filepath.Join(dir, "disk.img"), Kernel: filepath.Join(dir, "vmlinuz"), Initrd: filepath.Join(dir, "initrd")}
	if _, err := os.Stat(dir); err == nil {
		return d, nil
	}
	others, err := filepath.Glob(filepath.Join(cache, "disk-*"))
	if err != nil {
		return Disk{}, err
	}
	for _, other := range others { // of other recipes, or left by a run that was killed
		if err := os.RemoveAll(other); err != nil {
			return Disk{}, fmt.Errorf("remove an earlier disk: %w", err)
		}
	}
	unfinished := dir + ".unfinished"
	if err := os.MkdirAll(unfinished, 0o755); err != nil {
		return Disk{}, err
	}
	if err := build(ctx, unfinished, progress); err != nil {
		return Disk{}, fmt.Errorf("build the guest's disk: %w", err)
	}
	return d, os.Rename(unfinished, dir)
}

// hash is the same for the same disk.
func hash() string {
	h := sha256.New()
	fmt.Fprintln(h, suite, packages, size, finish)
	for _, name := range slices.Sorted(maps.Keys(early)) {
		fmt.Fprintf(h, "%s\n%s\n", name, early[name])
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}

const size = "6G"

func build(ctx context.Context, dir string, progress func(string, ...any)) error {
	root, files := filepath.Join(dir, "root"), filepath.Join(dir, "files")
	for name, text := range early {
		path := filepath.Join(files, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	finisher, err := filepath.Abs(filepath.Join(dir, "finish.sh"))
	if err != nil {
		return err
	}
	if err := os.WriteFile(finisher, []byte(finish), 0o755); err != nil {
		return err
	}
	start := time.Now()
	progress("making the guest's root folder of Debian %s: a minute or two, once", suite)
	if err := child.Run(ctx, []string{"DEBIAN_FRONTEND=noninteractive", "INITRD=No"}, "mmdebstrap",
		"--mode=root", "--variant=minbase", "--skip=cleanup/reproducible",
		"--include="+strings.Join(packages, ","),
		"--dpkgopt=force-confold",
		"--setup-hook=cp -a --no-preserve=ownership "+files+"/. \"$1\"",
		"--customize-hook="+finisher,
		suite, root); err != nil {
		return err
	}
	progress("the root folder took %.0f s; making the disk", time.Since(start).Seconds())
	for from, to := range map[string]string{"boot/vmlinuz-*": "vmlinuz", "boot/initramfs": "initrd"} {
		found, err := filepath.Glob(filepath.Join(root, from))
		if err != nil {
			return err
		}
		if len(found) != 1 {
			return fmt.Errorf("want one %s, got %v", from, found)
		}
		if err := os.Rename(found[0], filepath.Join(dir, to)); err != nil {
			return err
		}
	}
	if err := child.Run(ctx, nil, "mke2fs", "-q", "-t", "ext4", "-d", root, filepath.Join(dir, "disk.img"), size); err != nil {
		return err
	}
	for _, d := range []string{root, files, finisher} {
		if err := os.RemoveAll(d); err != nil {
			return err
		}
	}
	return nil
}
