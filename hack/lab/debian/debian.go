// Package debian installs what the lab needs on this machine from Debian
// packages: QEMU with the igb device, mmdebstrap and mke2fs.
//
// In goes what is missing, out comes a machine that has it. The user's package
// sources stay as they are: where the release's own QEMU is too old, that of its
// backports is found by a list of sources of the lab's own.
package debian

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/numalane/numalane/hack/lab/child"
)

// QEMU is the program that runs the machine.
const QEMU = "qemu-system-x86_64"

// Ensure installs what is missing. Lists of packages are kept in cache.
func Ensure(ctx context.Context, cache string, progress func(string, ...any)) error {
	var plain []string
	for program, pkg := range map[string]string{"mmdebstrap": "mmdebstrap", "mke2fs": "e2fsprogs"} {
		if _, err := exec.LookPath(program); err != nil {
			plain = append(plain, pkg)
		}
	}
	qemu := !hasIGB(ctx)
	if _, err := exec.LookPath("qemu-img"); err != nil { // machines run on layers above the disk
		qemu = true
	}
	if len(plain) == 0 && !qemu {
		return nil
	}
	if os.Geteuid() != 0 {
		return errors.New("root is needed to install QEMU and mmdebstrap")
	}
	release, err := codename()
	if err != nil {
		return err
	}
	apt, err := newApt(cache, release)
	if err != nil {
		return err
	}
	progress("reading the package lists of %s and its backports", release)
	if err := apt.run(ctx, "update"); err != nil {
		return err
	}
	if len(plain) > 0 {
		progress("installing %s", strings.Join(plain, ", "))
		if err := apt.run(ctx, append([]string{"install"}, plain...)...); err != nil {
			return err
		}
	}
	if !qemu {
		return nil
	}
	// The release's own first: a newer Debian needs no backports.
	progress("installing QEMU")
	ownErr := apt.run(ctx, "install", "qemu-system-x86", "qemu-utils")
	if ownErr == nil && hasIGB(ctx) {
		return nil
	}
	progress("the QEMU of %s has no igb: installing that of its backports", release)
	if err := apt.run(ctx, "install", "-t", release+"-backports", "qemu-system-x86", "qemu-utils"); err != nil {
		return errors.Join(ownErr, err)
	}
	if !hasIGB(ctx) {
		return fmt.Errorf("QEMU has no igb device: 8.0 or newer is needed, neither %s nor its backports have it", release)
	}
	return nil
}

// hasIGB tells whether QEMU is there and emulates a network card with VFs.
func hasIGB(ctx context.Context) bool {
	out, err := exec.CommandContext(ctx, QEMU, "-device", "help").Output()
	return err == nil && strings.Contains(string(out), `name "igb"`)
}

// codename is the release's name: bookworm.
func codename() (string, error) {
	b, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "", err
	}
	var id, name string
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch key {
		case "ID":
			id = strings.Trim(value, `"`)
		case "VERSION_CODENAME":
			name = value
		}
	}
	if id != "debian" || name == "" {
		return "", fmt.Errorf("this is no Debian (/etc/os-release has ID=%s): install qemu-system-x86 8.0 or newer, qemu-utils, mmdebstrap and e2fsprogs by hand", id)
	}
	return name, nil
}

// apt is apt-get with the user's sources, the backports, and lists of its own.
type apt struct{ options []string }

func newApt(cache, release string) (*apt, error) {
	// apt takes a relative path for one below /etc/apt.
	dir, err := filepath.Abs(filepath.Join(cache, "apt"))
	if err != nil {
		return nil, err
	}
	sources := filepath.Join(dir, "sources")
	if err := os.RemoveAll(sources); err != nil {
		return nil, err
	}
	for _, d := range []string{sources, filepath.Join(dir, "lists", "partial")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
	}
	const theirs = "/etc/apt/sources.list.d"
	entries, err := os.ReadDir(theirs)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); ext != ".sources" && ext != ".list" {
			continue
		}
		if err := os.Symlink(filepath.Join(theirs, e.Name()), filepath.Join(sources, e.Name())); err != nil {
			return nil, err
		}
	}
	backports := fmt.Sprintf("Types: deb\nURIs: http://deb.debian.org/debian\nSuites: %s-backports\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n", release)
	if err := os.WriteFile(filepath.Join(sources, "numalane-lab-backports.sources"), []byte(backports), 0o644); err != nil {
		return nil, err
	}
	return &apt{options: []string{
		"-q", "-y", "--no-install-recommends",
		"-o", "Dir::Etc::sourceparts=" + sources,
		"-o", "Dir::State::lists=" + filepath.Join(dir, "lists"),
		"-o", "DPkg::Lock::Timeout=120",
	}}, nil
}

func (a *apt) run(ctx context.Context, args ...string) error {
	return child.Run(ctx, []string{"DEBIAN_FRONTEND=noninteractive"}, "apt-get", append(a.options, args...)...)
}
