package inventory

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// kernelGroup is the multicast group on which the kernel itself sends
// (lib/kobject_uevent.c, uevent_net_broadcast); udev's is another.
const kernelGroup = 1

// watchUevents listens to devices that come, go, and get or lose a driver.
func watchUevents(ctx context.Context, changed func()) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return fmt.Errorf("open uevent socket: %w", err)
	}
	f := os.NewFile(uintptr(fd), "uevents")
	defer f.Close()
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, eventBuffer); err != nil {
		return fmt.Errorf("size buffer of uevent socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: kernelGroup}); err != nil {
		return fmt.Errorf("bind uevent socket: %w", err)
	}
	conn, err := f.SyscallConn()
	if err != nil {
		return fmt.Errorf("poll uevent socket: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { f.Close() }) // ends the read
	defer stop()
	changed()

	buf := make([]byte, 64<<10)
	for {
		var n int
		var from unix.Sockaddr
		var recvErr error
		err := conn.Read(func(fd uintptr) bool {
			n, from, recvErr = unix.Recvfrom(int(fd), buf, 0)
			return recvErr != unix.EAGAIN
		})
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return fmt.Errorf("wait for uevents: %w", err)
		case errors.Is(recvErr, unix.ENOBUFS):
			changed() // events were lost, and the socket is as good as before
		case errors.Is(recvErr, unix.EINTR):
		case recvErr != nil:
			return fmt.Errorf("receive uevents: %w", recvErr)
		case fromKernel(from) && matters(buf[:n]):
			changed()
		}
	}
}

func fromKernel(from unix.Sockaddr) bool {
	nl, ok := from.(*unix.SockaddrNetlink)
	return ok && nl.Pid == 0
}

// matters tells whether an event may change what a scan sees: interfaces come
// as link events. An event is "add@/devices/..." and then KEY=value pairs, all
// ended by a NUL.
func matters(event []byte) bool {
	for pair := range bytes.SplitSeq(event, []byte{0}) {
		if subsystem, ok := bytes.CutPrefix(pair, []byte("SUBSYSTEM=")); ok {
			switch string(subsystem) {
			case "pci", "auxiliary", "cpu", "node",
				// What a device is handed out with comes after its driver.
				"infiniband", "infiniband_verbs", "infiniband_mad", "uio", "vfio", "vdpa", "vhost-vdpa", "misc":
				return true
			}
			return false
		}
	}
	return false
}
