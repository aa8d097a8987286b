package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"
)

// As a network plugin vmguest does what Multus would: it gives a pod its
// ordinary interface, asks the kubelet which devices the pod holds, and has the
// host-device plugin move each VF that has an interface. Both plugins are those
// of Debian, and what was done is undone when the pod ends.

const (
	pluginDir = "/usr/lib/cni"
	doneDir   = "/var/lib/cni/vmguest"
	subnetVFs = "192.168.77.0/24"
)

// delegate is one call to another plugin.
type delegate struct {
	IfName string          `json:"ifName"`
	Config json.RawMessage `json:"config"`
	Type   string          `json:"type"`
}

func network(ctx context.Context, in io.Reader, out io.Writer) error {
	var config struct {
		CNIVersion string `json:"cniVersion"`
		Name       string `json:"name"`
	}
	if err := json.NewDecoder(in).Decode(&config); err != nil {
		return fmt.Errorf("read the network's configuration: %w", err)
	}
	unlock, err := lock()
	if err != nil {
		return err
	}
	defer unlock()
	record := filepath.Join(doneDir, os.Getenv("CNI_CONTAINERID"))
	switch command := os.Getenv("CNI_COMMAND"); command {
	case "VERSION":
		_, err := fmt.Fprintln(out, `{"cniVersion":"1.0.0","supportedVersions":["0.4.0","1.0.0"]}`)
		return err
	case "ADD":
		calls, err := plan(ctx, config.CNIVersion, config.Name)
		if err != nil {
			return err
		}
		b, err := json.Marshal(calls)
		if err != nil {
			return err
		}
		if err := errors.Join(os.MkdirAll(doneDir, 0o755), os.WriteFile(record, b, 0o600)); err != nil {
			return err
		}
		var first []byte
		for i, c := range calls {
			result, err := c.call(ctx, command)
			if err != nil {
				return err
			}
			if i == 0 {
				first = result
			}
		}
		_, err = out.Write(first)
		return err
	case "DEL":
		b, err := os.ReadFile(record)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		var calls []delegate
		if err := json.Unmarshal(b, &calls); err != nil {
			return err
		}
		for _, c := range slices.Backward(calls) {
			if _, err := c.call(ctx, command); err != nil {
				return err
			}
		}
		return os.Remove(record)
	default: // CHECK, STATUS, GC: nothing to say
		return nil
	}
}

// plan is what to call for the pod of this call.
func plan(ctx context.Context, version, name string) ([]delegate, error) {
	add := func(ifName, kind string, more map[string]any) (delegate, error) {
		c := map[string]any{"cniVersion": version, "name": name + "-" + ifName, "type": kind}
		for k, v := range more {
			c[k] = v
		}
		b, err := json.Marshal(c)
		return delegate{IfName: ifName, Type: kind, Config: b}, err
	}
	pod, err := add("eth0", "ptp", map[string]any{"ipam": map[string]any{"type": "host-local", "subnet": "10.244.0.0/24"}})
	if err != nil {
		return nil, err
	}
	calls := []delegate{pod}
	vfs, err := interfacesOf(ctx)
	if err != nil {
		return nil, err
	}
	for i, pci := range vfs {
		d, err := add(fmt.Sprintf("net%d", i+1), "host-device", map[string]any{
			"pciBusID": pci,
			"ipam":     map[string]any{"type": "host-local", "subnet": subnetVFs, "dataDir": "/var/lib/cni/vfs"},
		})
		if err != nil {
			return nil, err
		}
		calls = append(calls, d)
	}
	return calls, nil
}

// interfacesOf are the VFs that the pod holds and that have an interface here.
func interfacesOf(ctx context.Context) ([]string, error) {
	of := map[string]string{}
	for _, arg := range strings.Split(os.Getenv("CNI_ARGS"), ";") {
		k, v, _ := strings.Cut(arg, "=")
		of[k] = v
	}
	conn, err := dial()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	list, err := podresources.NewPodResourcesListerClient(conn).List(ctx, &podresources.ListPodResourcesRequest{})
	if err != nil {
		return nil, fmt.Errorf("which devices the pod holds: %w", err)
	}
	var vfs []string
	for _, p := range list.GetPodResources() {
		if p.GetNamespace() != of["K8S_POD_NAMESPACE"] || p.GetName() != of["K8S_POD_NAME"] {
			continue
		}
		for _, c := range p.GetContainers() {
			for _, d := range c.GetDevices() {
				for _, id := range d.GetDeviceIds() {
					if _, err := os.Stat(filepath.Join("/sys/bus/pci/devices", id, "net")); err == nil {
						vfs = append(vfs, id)
					}
				}
			}
		}
	}
	slices.Sort(vfs)
	return vfs, nil
}

// lock has calls wait for each other. The kernel interrupts a list of interfaces
// that changes meanwhile (NLM_F_DUMP_INTR), as it does when pods start together,
// and host-device gives up then: the kubelet would make the pod's sandbox anew.
func lock() (unlock func(), err error) {
	f, err := os.OpenFile("/run/vmguest.lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), err), f.Close())
	}
	return func() { f.Close() }, nil
}

// call calls the plugin, and again where somebody else's change of interfaces, as
// a name that udev gives, interrupted it.
func (d delegate) call(ctx context.Context, command string) (out []byte, err error) {
	for range 5 {
		if out, err = d.once(ctx, command); err == nil || !strings.Contains(err.Error(), "interrupted system call") {
			break
		}
	}
	return out, err
}

func (d delegate) once(ctx context.Context, command string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(pluginDir, d.Type))
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "CNI_") {
			cmd.Env = append(cmd.Env, e)
		}
	}
	cmd.Env = append(cmd.Env, "CNI_COMMAND="+command, "CNI_IFNAME="+d.IfName, "CNI_PATH="+pluginDir,
		"CNI_CONTAINERID="+os.Getenv("CNI_CONTAINERID"), "CNI_NETNS="+os.Getenv("CNI_NETNS"), "CNI_ARGS="+os.Getenv("CNI_ARGS"))
	cmd.Stdin = bytes.NewReader(d.Config)
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s for %s: %w: %s", d.Type, command, d.IfName, err, out)
	}
	return out, nil
}
