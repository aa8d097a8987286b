// Package holdings looks at what pods hold, as their kubelets tell it: over
// PodResources and in their state files. It finds what two pods hold at once,
// and what spans NUMA nodes where nothing may.
package holdings

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"

	"github.com/numalane/numalane/e2e/storm/fleet"
	"github.com/numalane/numalane/internal/kubelet"
	"github.com/numalane/numalane/pkg/topology"
)

// Finding is something that must not be.
type Finding struct {
	Node, Pods string
	Text       string
}

// Look is what one node's kubelet tells at one moment.
type Look struct {
	Findings struct{ Double, Misaligned []Finding }
	Held     map[corev1.ResourceName]int // exclusive CPUs, and devices by resource
}

// account is what a kubelet tells.
type account struct {
	pods          []*podresources.PodResources
	cpus, devices []byte // its state files; devices is nil where none was ever given away
}

// At asks a node's kubelet. live tells which pod UID has a name, of those that
// the API has on the node and that have not ended; "" where it is not one alone.
func At(ctx context.Context, m *fleet.Member, live func(name string) string) (*Look, error) {
	a, err := ask(ctx, m)
	if err != nil {
		return nil, err
	}
	return a.look(m, live)
}

func ask(ctx context.Context, m *fleet.Member) (*account, error) {
	a := &account{}
	err := m.Live.PodResources(ctx, func(ctx context.Context, c podresources.PodResourcesListerClient) error {
		list, err := c.List(ctx, &podresources.ListPodResourcesRequest{})
		a.pods = list.GetPodResources()
		return err
	})
	if err != nil {
		return nil, err
	}
	if a.cpus, err = os.ReadFile(filepath.Join(m.Live.KubeletDir(), "cpu_manager_state")); err != nil {
		return nil, err
	}
	a.devices, err = os.ReadFile(filepath.Join(m.Live.DevicePluginDir(), "kubelet_internal_checkpoint"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return a, nil
}

func (a *account) look(m *fleet.Member, live func(name string) string) (*Look, error) {
	l := &Look{Held: map[corev1.ResourceName]int{}}
	uids := map[string]string{} // name by UID
	listed := holders{}
	for _, p := range a.pods {
		name := p.GetName()
		if uid := live(name); uid != "" {
			uids[uid] = name
		}
		for _, c := range p.GetContainers() {
			for _, cpu := range c.GetCpuIds() {
				listed.add(fmt.Sprintf("CPU %d", cpu), name)
			}
			for _, d := range c.GetDevices() {
				for _, id := range d.GetDeviceIds() {
					listed.add(d.GetResourceName()+" "+id, name)
				}
			}
		}
		l.align(m, p)
	}
	for what := range listed {
		if strings.HasPrefix(what, "CPU ") {
			l.Held[corev1.ResourceCPU]++
		} else {
			l.Held[corev1.ResourceName(strings.Fields(what)[0])]++
		}
	}
	l.doubles(m.Name, "PodResources", listed)
	filed, err := a.files(uids)
	if err != nil {
		return nil, err
	}
	l.doubles(m.Name, "the state files", filed)
	return l, nil
}

// holders are the pods by what they hold.
type holders map[string][]string

func (h holders) add(what, pod string) {
	if !slices.Contains(h[what], pod) {
		h[what] = append(h[what], pod)
	}
}

func (l *Look) doubles(node, source string, h holders) {
	for what, pods := range h {
		if len(pods) > 1 {
			slices.Sort(pods)
			l.Findings.Double = append(l.Findings.Double, Finding{node, strings.Join(pods, " "), fmt.Sprintf("%s is held by %s at once, by %s", what, strings.Join(pods, " and "), source)})
		}
	}
}

// files are what live pods hold by the kubelet's state files, which keep those
// that have ended as well.
func (a *account) files(uids map[string]string) (holders, error) {
	h := holders{}
	state, err := kubelet.ParseCPUState(a.cpus)
	if err != nil {
		return nil, err
	}
	for uid, containers := range state.Containers {
		for _, set := range containers {
			for _, id := range set.List() {
				if name, ok := uids[uid]; ok {
					h.add(fmt.Sprintf("CPU %d", id), name)
				}
			}
		}
	}
	if a.devices == nil {
		return h, nil
	}
	devices, err := kubelet.ParseDeviceState(a.devices)
	if err != nil {
		return nil, err
	}
	for _, d := range devices.Held {
		if name, ok := uids[d.PodUID]; ok {
			h.add(d.Resource+" "+d.ID, name)
		}
	}
	return h, nil
}

// align looks for what spans NUMA nodes on a node that lets nothing do so.
func (l *Look) align(m *fleet.Member, p *podresources.PodResources) {
	if !m.SingleNUMA() {
		return
	}
	whole := map[int64]bool{}
	for _, c := range p.GetContainers() {
		numa := map[int64]bool{}
		for _, cpu := range c.GetCpuIds() {
			numa[int64(m.NUMAOf[int(cpu)])] = true
		}
		for _, d := range c.GetDevices() {
			for _, n := range d.GetTopology().GetNodes() {
				numa[n.GetID()] = true
			}
		}
		for _, mem := range c.GetMemory() {
			for _, n := range mem.GetTopology().GetNodes() {
				numa[n.GetID()] = true
			}
		}
		for n := range numa {
			whole[n] = true
		}
		if m.Scope == topology.ScopeContainer && len(numa) > 1 {
			l.Findings.Misaligned = append(l.Findings.Misaligned, Finding{m.Name, p.GetName(), fmt.Sprintf("container %s holds of %d NUMA nodes: %v", c.GetName(), len(numa), c)})
		}
	}
	if m.Scope == topology.ScopePod && len(whole) > 1 {
		l.Findings.Misaligned = append(l.Findings.Misaligned, Finding{m.Name, p.GetName(), fmt.Sprintf("holds of %d NUMA nodes: %v", len(whole), p)})
	}
}
