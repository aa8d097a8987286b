package inventory_test

import (
	"context"
	"encoding/binary"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/numalane/numalane/internal/inventory"
	"github.com/numalane/numalane/pkg/topology"
)

const inNamespace = "NUMALANE_TEST_IN_NETWORK_NAMESPACE"

// quiet is how long nothing has to come for nothing to be on its way: the
// kernel delivers within microseconds.
const quiet = 150 * time.Millisecond

// inOwnNamespace is false for the process that go test has started: it runs the
// test, or the benchmark, again as a process in a network namespace of its own, where it is true.
// Sockets belong to the namespace of the thread that opens them.
func inOwnNamespace(t testing.TB) bool {
	t.Helper()
	if os.Getenv(inNamespace) != "" {
		return true
	}
	args := []string{"-test.v", "-test.run=^" + t.Name() + "$"}
	if _, benchmark := t.(*testing.B); benchmark {
		args = []string{"-test.run=^$", "-test.bench=^" + t.Name() + "$"}
	}
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if uid := os.Getuid(); uid != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: uid, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("in a network namespace of its own: %v\n%s", err, out)
	}
	t.Logf("in a network namespace of its own:\n%s", out)
	return false
}

// TestEvents lets the kernel send real events to a loop.
func TestEvents(t *testing.T) {
	if !inOwnNamespace(t) {
		return
	}

	scans := make(chan int, 1024)
	n := 0
	l := inventory.New(inventory.Options{
		Events: true, Interval: time.Hour, MinInterval: time.Millisecond,
		Scan: func() (*topology.Host, error) {
			n++
			scans <- n
			return &topology.Host{}, nil
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()

	// calm takes scans until none has come for a while: the first ones are
	// those for the start of each source.
	calm := func() {
		for {
			select {
			case <-scans:
			case <-time.After(quiet):
				return
			}
		}
	}
	expectScan := func(of string) {
		t.Helper()
		select {
		case <-scans:
		case <-time.After(10 * time.Second):
			t.Errorf("no scan after %s", of)
		}
		calm()
	}
	expectNone := func(of string) {
		t.Helper()
		select {
		case <-scans:
			t.Errorf("a scan after %s", of)
		case <-time.After(quiet):
		}
	}

	expectScan("the start")

	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		t.Fatal(err)
	}
	expectScan("a link without a kind went up")

	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "nl0"}, PeerName: "nl1"}
	if err := netlink.LinkAdd(veth); err != nil {
		t.Fatal(err)
	}
	expectNone("a pod's link came")

	if err := netlink.LinkSetUp(veth); err != nil {
		t.Fatal(err)
	}
	if err := netlink.RouteAdd(&netlink.Route{LinkIndex: veth.Index, Dst: prefix(t, "10.0.0.7/32"), Scope: netlink.SCOPE_LINK}); err != nil {
		t.Fatal(err)
	}
	expectNone("a pod's route came")
	if err := netlink.RouteAdd(&netlink.Route{LinkIndex: veth.Index, Dst: prefix(t, "0.0.0.0/0"), Scope: netlink.SCOPE_LINK}); err != nil {
		t.Fatal(err)
	}
	expectScan("a default route came")

	sendUevent(t, "pci")
	expectScan("a PCI device came")
	sendUevent(t, "block")
	expectNone("a disk came")

	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("Run: %v, want nil", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("Run has not ended with its context")
	}
}

// sendUevent has the kernel send an event to this network namespace. Whoever
// owns the namespace may ask for that (lib/kobject_uevent.c, uevent_net_rcv).
func sendUevent(t testing.TB, subsystem string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	const path = "/devices/pci0000:00/0000:00:1f.7"
	event := "add@" + path + "\x00ACTION=add\x00DEVPATH=" + path + "\x00SUBSYSTEM=" + subsystem + "\x00"
	msg := binary.NativeEndian.AppendUint32(nil, uint32(unix.NLMSG_HDRLEN+len(event)))
	msg = binary.NativeEndian.AppendUint16(msg, unix.NLMSG_MIN_TYPE)
	msg = binary.NativeEndian.AppendUint16(msg, unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	msg = binary.NativeEndian.AppendUint32(msg, 1) // sequence number
	msg = binary.NativeEndian.AppendUint32(msg, 0) // port, filled in by the kernel
	msg = append(msg, event...)
	if err := unix.Sendto(fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil || n < unix.NLMSG_HDRLEN+4 {
		t.Fatalf("answer of %d bytes, %v", n, err)
	}
	if errno := int32(binary.NativeEndian.Uint32(answer[unix.NLMSG_HDRLEN:])); errno != 0 {
		t.Fatalf("the kernel refuses the event: %v", syscall.Errno(-errno))
	}
}
