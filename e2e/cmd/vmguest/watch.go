package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"

	"github.com/vishvananda/netlink"

	"github.com/numalane/numalane/e2e/vm/view"
)

const podResourcesSocket = "unix:///var/lib/kubelet/pod-resources/kubelet.sock"

func dial() (*grpc.ClientConn, error) {
	// A kubelet that comes back is seen at once, and not after a wait that has grown.
	again := grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1, MaxDelay: 100 * time.Millisecond}, MinConnectTimeout: 5 * time.Second}
	return grpc.NewClient(podResourcesSocket, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithConnectParams(again))
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
// devices, what the plugin tells the kubelet, and each change of the kubelet's
// allocatable devices. These have no event: they are looked at often for a while
// after each sign of a change, and seldom else, for a look takes the CPUs from
// those that are watched.
func watch(ctx context.Context, out io.Writer) error {
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
	enc := json.NewEncoder(out)
	events, failed := make(chan view.Event, 256), make(chan error, 1)
	go func() {
		for l := range links {
			events <- view.Event{Time: time.Now(), Link: l.Link.Attrs().Name, Carrier: l.Link.Attrs().RawFlags&unix.IFF_LOWER_UP != 0}
		}
	}()
	go func() { failed <- readUevents(uevents, events) }()
	log := follower{pattern: pluginLog, offsets: map[string]int64{}}
	told, err := log.start()
	if err != nil {
		return err
	}
	var last view.Event
	var sign time.Time
	const often, seldom, lively = 100 * time.Millisecond, 300 * time.Millisecond, 3 * time.Second
	var looked time.Time
	tick := time.NewTicker(often)
	defer tick.Stop()
	for {
		select {
		case e := <-events:
			if e.Uevent != "" {
				sign = time.Now()
			}
			if err := enc.Encode(e); err != nil {
				return err
			}
			continue
		case err := <-failed:
			return err
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		for _, t := range told {
			sign = time.Now()
			if err := enc.Encode(view.Event{Time: t.Time, Told: &t}); err != nil {
				return err
			}
		}
		if told, err = log.read(); err != nil {
			return err
		}
		if time.Since(sign) > lively && time.Since(looked) < seldom {
			continue
		}
		looked = time.Now()
		d, err := devices(ctx, conn)
		for range len(events) { // what caused this comes before it
			if err := enc.Encode(<-events); err != nil {
				return err
			}
		}
		e := view.Event{Devices: d, Gone: err != nil}
		if !reflect.DeepEqual(e, last) {
			last, sign = e, time.Now()
			e.Time = sign
			if err := enc.Encode(e); err != nil {
				return err
			}
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

func readUevents(fd int, events chan<- view.Event) error {
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
		events <- view.Event{Time: time.Now(), Uevent: fields["ACTION"], PCI: fields["PCI_SLOT_NAME"]}
	}
}
