package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"

	"github.com/vishvananda/netlink"

	"github.com/numalane/numalane/e2e/vm/view"
)

const podResourcesSocket = "unix:///var/lib/kubelet/pod-resources/kubelet.sock"

func dial() (*grpc.ClientConn, error) {
	return grpc.NewClient(podResourcesSocket, grpc.WithTransportCredentials(insecure.NewCredentials()))
}

// allocatable prints the kubelet's devices once.
func allocatable(ctx context.Context, out io.Writer) error {
	conn, err := dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	d, err := devices(ctx, conn)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(d)
}

func devices(ctx context.Context, conn *grpc.ClientConn) (view.Devices, error) {
	resp, err := podresources.NewPodResourcesListerClient(conn).GetAllocatableResources(ctx, &podresources.AllocatableResourcesRequest{})
	if err != nil {
		return nil, fmt.Errorf("the kubelet's allocatable devices: %w", err)
	}
	all := view.Devices{}
	for _, d := range resp.GetDevices() {
		var nodes []int64
		for _, n := range d.GetTopology().GetNodes() {
			nodes = append(nodes, n.GetID())
		}
		for _, id := range d.GetDeviceIds() {
			all[d.GetResourceName()] = append(all[d.GetResourceName()], view.Device{ID: id, NUMA: nodes})
		}
	}
	for _, list := range all {
		slices.SortFunc(list, func(a, b view.Device) int { return strings.Compare(a.ID, b.ID) })
	}
	return all, nil
}

// watch prints what happens: the kernel's messages about interfaces and PCI
// devices as they come, and each change of the kubelet's allocatable devices,
// which has no event and is looked at all the time.
func watch(ctx context.Context, out io.Writer) error {
	var mu sync.Mutex
	enc := json.NewEncoder(out)
	say := func(e view.Event) error {
		e.Time = time.Now()
		mu.Lock()
		defer mu.Unlock()
		return enc.Encode(e)
	}
	links := make(chan netlink.LinkUpdate, 256)
	if err := netlink.LinkSubscribe(links, ctx.Done()); err != nil {
		return fmt.Errorf("subscribe to links: %w", err)
	}
	uevents, err := ueventSocket()
	if err != nil {
		return err
	}
	defer unix.Close(uevents)
	conn, err := dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	failed := make(chan error, 3)
	go func() {
		for l := range links {
			if err := say(view.Event{Link: l.Link.Attrs().Name, Carrier: l.Link.Attrs().RawFlags&unix.IFF_LOWER_UP != 0}); err != nil {
				failed <- err
				return
			}
		}
	}()
	go func() { failed <- readUevents(uevents, say) }()
	go func() { failed <- lookAtDevices(ctx, conn, say) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		return nil
	}
}

func lookAtDevices(ctx context.Context, conn *grpc.ClientConn, say func(view.Event) error) error {
	const every = 100 * time.Millisecond // more would take the CPUs from those that are watched
	var last view.Event
	for first := true; ; first = false {
		d, err := devices(ctx, conn)
		e := view.Event{Devices: d, Gone: err != nil}
		if first || !reflect.DeepEqual(e, last) {
			if err := say(e); err != nil {
				return err
			}
			last = e
		}
		select {
		case <-time.After(every):
		case <-ctx.Done():
			return nil
		}
	}
}

func ueventSocket() (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return -1, fmt.Errorf("uevent socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("bind the uevent socket: %w", err)
	}
	return fd, nil
}

func readUevents(fd int, say func(view.Event) error) error {
	b := make([]byte, 1<<16)
	for {
		n, _, err := unix.Recvfrom(fd, b, 0)
		if err != nil {
			return fmt.Errorf("read uevents: %w", err)
		}
		fields := map[string]string{}
		for _, f := range strings.Split(string(b[:n]), "\x00") {
			if k, v, ok := strings.Cut(f, "="); ok {
				fields[k] = v
			}
		}
		if fields["SUBSYSTEM"] != "pci" {
			continue
		}
		if err := say(view.Event{Uevent: fields["ACTION"], PCI: fields["PCI_SLOT_NAME"]}); err != nil {
			return err
		}
	}
}
