package machine

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/numalane/numalane/hack/lab/child"
	"github.com/numalane/numalane/hack/lab/debian"
	"github.com/numalane/numalane/hack/lab/disk"
)

const (
	kvm = "kvm"
	// One thread a virtual CPU, in QEMU.
	emulation = "tcg,thread=multi"
)

const (
	// kvmSpeaks is when a kernel on KVM has said its first words, in half a
	// second where nothing else runs, and kvmEnds when it has stopped.
	kvmSpeaks = 3 * time.Second
	kvmEnds   = 10 * time.Second
)

// accelerator is KVM where a stock kernel runs on it. That /dev/kvm opens does
// not say so: under some hypervisors the kernel stops in its first instructions.
// A kernel without a root must get as far as saying that it has none.
func accelerator(ctx context.Context, d disk.Disk, dir string) string {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil || f.Close() != nil {
		return emulation
	}
	ctx, cancel := context.WithTimeout(ctx, kvmEnds)
	defer cancel()
	console := filepath.Join(dir, "kvm.log")
	said := func(what string) bool {
		b, err := os.ReadFile(console)
		return err == nil && strings.Contains(string(b), what)
	}
	cmd := exec.CommandContext(ctx, debian.QEMU, "-nodefaults", "-display", "none", "-no-reboot", "-accel", kvm, "-cpu", "max", "-m", "512M",
		"-machine", "q35,kernel-irqchip=split", "-kernel", d.Kernel, "-append", "console=ttyS0 earlyprintk=ttyS0 panic=-1", "-serial", "file:"+console)
	ended, err := child.Start(cmd)
	if err != nil {
		return emulation
	}
	select {
	case err := <-ended:
		ended = nil
		if err != nil {
			return emulation
		}
	case <-time.After(kvmSpeaks):
		if !said("Linux version") {
			cancel()
		}
	}
	if ended != nil && <-ended != nil || !said("Unable to mount root fs") {
		return emulation
	}
	return kvm
}
