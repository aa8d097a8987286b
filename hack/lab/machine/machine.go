// Package machine boots the guest and ends it.
//
// In go a disk and a folder to share, out comes a running machine whose agent
// (package guest) runs programs. A machine that does not come up is started
// again: about one in thirty multi-threaded boots under emulation aborts.
package machine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/numalane/numalane/hack/lab/child"
	"github.com/numalane/numalane/hack/lab/debian"
	"github.com/numalane/numalane/hack/lab/disk"
	"github.com/numalane/numalane/hack/lab/guest"
)

const (
	guestPort = guest.Port
	// bootMost is how long a boot may take under emulation on a busy machine.
	bootMost = 4 * time.Minute
	// silent is how long the console of a boot says nothing only if it hangs.
	silent = 75 * time.Second
	boots  = 3
)

// Config is what differs from one machine to another.
type Config struct {
	Disk disk.Disk
	// Share is a folder of the host; /lab in the guest.
	Share string
	// Files is a folder whose files, as they are at New, are on the second disk,
	// /dev/vdb: large ones are read there at ten times the speed of /lab.
	Files string
	// Agent is a static program that calls guest.Serve when its first argument
	// is "agent"; the second is the file of the token. None: nothing runs.
	Agent string
	// Console is the file that gets the serial console; none: the terminal.
	Console  string
	Progress func(string, ...any)
}

// Machine is a guest with a disk of its own above the shared one, that lives
// until Close.
type Machine struct {
	config  Config
	dir     string
	accel   string
	overlay string
	client  *guest.Client

	qemu  *exec.Cmd
	ended chan struct{} // closed when QEMU has ended
	err   error         // then its error
}

// New makes the machine and does not start it.
func New(ctx context.Context, c Config) (*Machine, error) {
	dir, err := os.MkdirTemp("", "numalane-lab-")
	if err != nil {
		return nil, err
	}
	m := &Machine{config: c, dir: dir, overlay: filepath.Join(dir, "overlay.qcow2")}
	if err := m.furnish(ctx); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

func (m *Machine) furnish(ctx context.Context) error {
	image, err := filepath.Abs(m.config.Disk.Image)
	if err != nil {
		return err
	}
	if m.config.Share, err = filepath.Abs(m.config.Share); err != nil {
		return err
	}
	if err := child.Run(ctx, nil, "qemu-img", "create", "-q", "-f", "qcow2", "-b", image, "-F", "raw", m.overlay); err != nil {
		return err
	}
	if m.config.Files != "" {
		if err := child.Run(ctx, nil, "mke2fs", "-q", "-t", "ext4", "-d", m.config.Files, m.files(), "1G"); err != nil {
			return err
		}
	}
	m.client = &guest.Client{Token: rand.Text()}
	if m.config.Agent != "" {
		if err := os.WriteFile(filepath.Join(m.config.Share, "token"), []byte(m.client.Token), 0o600); err != nil {
			return err
		}
		if err := copyFile(m.config.Agent, filepath.Join(m.config.Share, "agent")); err != nil {
			return err
		}
	}
	m.accel = accelerator(ctx, m.config.Disk, m.dir)
	m.config.Progress("the machine runs on %s", map[string]string{kvm: "KVM", emulation: "emulated CPUs"}[m.accel])
	return nil
}

// up is the file that the guest makes when its agent has been started.
func (m *Machine) up() string { return filepath.Join(m.config.Share, "up") }

func (m *Machine) files() string { return filepath.Join(m.dir, "files.img") }

// Guest runs programs in the machine.
func (m *Machine) Guest() *guest.Client { return m.client }

// Ended is closed when the machine, as it runs now, has ended.
func (m *Machine) Ended() <-chan struct{} { return m.ended }

// Boot starts the machine, the first time or after its end, and waits until the
// agent answers.
func (m *Machine) Boot(ctx context.Context) error {
	var all error
	for try := range boots {
		if try > 0 {
			m.config.Progress("the boot failed, once more: %v", all)
		}
		start := time.Now()
		err := m.Start()
		if err == nil {
			err = m.answers(ctx)
		}
		if err == nil {
			m.config.Progress("the guest is up after %.0f s", time.Since(start).Seconds())
			return nil
		}
		all = errors.Join(all, err)
		m.Kill()
		if ctx.Err() != nil {
			break
		}
	}
	return fmt.Errorf("boot the machine: %w\n%s", all, m.tail())
}

// Start starts the machine and waits for nothing.
func (m *Machine) Start() error {
	if err := os.RemoveAll(m.up()); err != nil {
		return err
	}
	if m.config.Console != "" {
		if err := os.Rename(m.config.Console, m.config.Console+".last"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	port, err := freePort()
	if err != nil {
		return err
	}
	m.client.URL = fmt.Sprintf("http://127.0.0.1:%d", port)
	// It ends with Kill or its parent, not with the context of one boot.
	m.qemu = exec.CommandContext(context.Background(), debian.QEMU, m.args(m.config.Disk, m.accel, m.overlay, port)...)
	log, err := os.Create(filepath.Join(m.dir, "qemu.log"))
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // QEMU has it
	m.qemu.Stderr = log
	if m.config.Console == "" {
		m.qemu.Stdin, m.qemu.Stdout, m.qemu.Stderr = os.Stdin, os.Stdout, os.Stderr
	}
	ended, err := child.Start(m.qemu)
	if err != nil {
		return err
	}
	done := make(chan struct{})
	m.ended = done
	go func() {
		m.err = <-ended
		close(done)
	}()
	return nil
}

// answers waits until the agent does.
func (m *Machine) answers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, bootMost)
	defer cancel()
	size := int64(0)
	grown := time.Now()
	for {
		if console, err := os.Stat(m.config.Console); err == nil && console.Size() != size {
			size, grown = console.Size(), time.Now()
		}
		if time.Since(grown) > silent {
			return fmt.Errorf("the boot hangs: its console has been silent for %s", silent)
		}
		// QEMU accepts what it forwards before the guest listens, and then tries
		// again after some seconds only: the agent's start is told by a file.
		_, err := os.Stat(m.up())
		if err == nil {
			try, cancel := context.WithTimeout(ctx, 20*time.Second)
			_, err = m.client.Output(try, "true")
			cancel()
			if err == nil {
				return nil
			}
		}
		select {
		case <-m.ended:
			return fmt.Errorf("QEMU has ended: %w", m.err)
		case <-ctx.Done():
			return fmt.Errorf("the guest does not answer within %s: %w", bootMost, err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// PowerOff ends the machine as its own shutdown does.
func (m *Machine) PowerOff(ctx context.Context) error { return m.leave(ctx, "poweroff") }

// Reboot ends the machine as a reboot does, and boots it again: its disk stays.
func (m *Machine) Reboot(ctx context.Context) error {
	if err := m.leave(ctx, "reboot"); err != nil {
		return err
	}
	return m.Boot(ctx)
}

func (m *Machine) leave(ctx context.Context, how string) error {
	// After a sync as if the power went: nothing is stopped first, which takes
	// services and containers ten seconds. The connection ends with the machine.
	_, err := m.client.Output(ctx, "sh", "-c", "sync; systemctl --force --force "+how)
	select {
	case <-m.ended:
		return nil
	case <-time.After(90 * time.Second):
	case <-ctx.Done():
	}
	m.Kill()
	return errors.Join(fmt.Errorf("%s: the machine did not end by itself", how), err, ctx.Err())
}

// Kill ends the machine at once.
func (m *Machine) Kill() {
	if m.ended == nil {
		return
	}
	_ = m.qemu.Process.Kill() // it may have ended by itself
	<-m.ended
}

// Close ends the machine and removes what was its own.
func (m *Machine) Close() error {
	m.Kill()
	return os.RemoveAll(m.dir)
}

// tail is the end of what QEMU and the console said.
func (m *Machine) tail() string {
	var all string
	for _, file := range []string{filepath.Join(m.dir, "qemu.log"), m.config.Console} {
		b, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		all += string(b[max(0, len(b)-2000):])
	}
	return all
}

func copyFile(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	_, err = io.Copy(out, in)
	return err
}

// freePort is a port of the loopback that was free a moment ago.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
