// Package devicemanager, this file: what the recorder adds to the kubelet's.
// The functions that it stands in for are named kubelet… in the kubelet's files.
package devicemanager

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/klog/v2"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
	"k8s.io/kubernetes/pkg/kubelet/checkpointmanager"
	"k8s.io/kubernetes/pkg/kubelet/cm/admission"
	"k8s.io/kubernetes/pkg/kubelet/cm/topologymanager"
	"k8s.io/kubernetes/pkg/kubelet/lifecycle"

	"github.com/numalane/numalane/e2e/tables/drive"
	"github.com/numalane/numalane/e2e/tables/vector"
	"github.com/numalane/numalane/pkg/topology"
)

// recordedTimes is how often the kubelet is asked what it picks at random: so
// often that whatever it may pick in these small cases is seen.
const recordedTimes = 400

// recorded are the questions to ask when the kubelet's tests have ended.
var recorded vector.Queue

// recordedName is a name that a plugin may register, which many tests' are not.
func recordedName(resource string) string {
	if strings.Contains(resource, "/") {
		return resource
	}
	return "example.com/" + resource
}

func recordedSets(in map[string]sets.Set[string]) map[string]sets.Set[string] {
	out := map[string]sets.Set[string]{}
	for name, set := range in {
		out[recordedName(name)] = set.Clone()
	}
	return out
}

// recordNow is the manager as it is, with names that a plugin may register and
// plugins that have no preference.
func (m *ManagerImpl) recordNow() *ManagerImpl {
	c := &ManagerImpl{
		allDevices: NewResourceDeviceInstances(), podDevices: newPodDevices(), numaNodes: slices.Clone(m.numaNodes),
		healthyDevices: recordedSets(m.healthyDevices), unhealthyDevices: recordedSets(m.unhealthyDevices),
		allocatedDevices: recordedSets(m.allocatedDevices), devicesToReuse: PodReusableDevices{},
		topologyAffinityStore: m.topologyAffinityStore, sourcesReady: &sourcesReadyStub{},
		activePods: func() []*v1.Pod { return nil }, checkpointManager: recordedCheckpoints{}, endpoints: map[string]endpointInfo{},
	}
	slices.Sort(c.numaNodes)
	for name, devices := range m.allDevices {
		c.allDevices[recordedName(name)] = maps.Clone(devices)
	}
	for name := range c.healthyDevices {
		c.endpoints[name] = endpointInfo{e: recordedEndpoint{}}
	}
	for uid, reuse := range m.devicesToReuse {
		c.devicesToReuse[uid] = recordedSets(reuse)
	}
	if m.podDevices == nil {
		return c
	}
	m.podDevices.RLock()
	defer m.podDevices.RUnlock()
	for uid, containers := range m.podDevices.devs {
		c.podDevices.devs[uid] = containerDevices{}
		for name, resources := range containers {
			c.podDevices.devs[uid][name] = resourceAllocateInfo{}
			for resource, info := range resources {
				c.podDevices.devs[uid][name][recordedName(resource)] = info
			}
		}
	}
	return c
}

// fresh is the manager once more, for a pod that arrives: the devices of all
// others are just not free.
func (m *ManagerImpl) fresh(pod *v1.Pod, store topologymanager.Store) *ManagerImpl {
	c := m.recordNow()
	c.topologyAffinityStore, c.podDevices = store, newPodDevices()
	c.activePods = func() []*v1.Pod { return []*v1.Pod{pod} }
	return c
}

func recordedNUMA(d *pluginapi.Device) []int {
	var ids []int
	if d.Topology != nil {
		for _, n := range d.Topology.Nodes {
			ids = append(ids, int(n.ID))
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// recordCount counts devices by the NUMA nodes that they sit on.
func (m *ManagerImpl) recordCount(resource string, ids sets.Set[string]) []vector.Devices {
	var out []vector.Devices
	for _, id := range sets.List(ids) {
		numa := recordedNUMA(m.allDevices[resource][id])
		at := slices.IndexFunc(out, func(d vector.Devices) bool { return slices.Equal(d.NUMANodes, numa) })
		if at < 0 {
			at = len(out)
			out = append(out, vector.Devices{Resource: resource, NUMANodes: numa})
		}
		out[at].Count++
	}
	slices.SortFunc(out, func(a, b vector.Devices) int { return slices.Compare(a.NUMANodes, b.NUMANodes) })
	return out
}

// recordPool is a resource of which some devices are healthy and some are held.
func (m *ManagerImpl) recordPool(s *vector.State, resource string, healthy, held sets.Set[string]) (left string) {
	pool := topology.Pool{Resource: resource, Foreign: true, Groups: []topology.Group{}}
	hold := topology.ContainerAllocation{Name: "held"}
	known := sets.New[string]()
	for _, id := range slices.Sorted(maps.Keys(m.allDevices[resource])) {
		known.Insert(id)
		numa := recordedNUMA(m.allDevices[resource][id])
		at := slices.IndexFunc(pool.Groups, func(g topology.Group) bool { return slices.Equal(g.NUMANodes, numa) })
		if at < 0 {
			at = len(pool.Groups)
			pool.Groups = append(pool.Groups, topology.Group{NUMANodes: numa})
			hold.Devices = append(hold.Devices, topology.DeviceAllocation{Resource: resource, NUMANodes: numa})
		}
		g := &pool.Groups[at]
		g.Total++
		if healthy.Has(id) {
			g.Healthy++
		} else {
			g.Unhealthy = append(g.Unhealthy, id)
		}
		if held.Has(id) {
			hold.Devices[at].IDs = append(hold.Devices[at].IDs, id)
		} else if healthy.Has(id) {
			g.Free++
		}
	}
	if !known.IsSuperset(healthy) || !known.IsSuperset(held) {
		return "devices that the manager does not know"
	}
	hold.Devices = slices.DeleteFunc(hold.Devices, func(d topology.DeviceAllocation) bool { return len(d.IDs) == 0 })
	slices.SortFunc(pool.Groups, func(a, b topology.Group) int { return slices.Compare(a.NUMANodes, b.NUMANodes) })
	s.Pools = append(s.Pools, pool)
	if len(hold.Devices) > 0 {
		s.Held = append(s.Held, hold)
	}
	return ""
}

// recordMachine is a machine of which only the NUMA nodes matter.
func recordMachine(ids []int) []topology.NodeNUMA {
	nodes := make([]topology.NodeNUMA, len(ids))
	for i, id := range ids {
		nodes[i].ID = id
	}
	return nodes
}

// recordPod asks the kubelet about a pod that a test names.
func (m *ManagerImpl) recordPod(pod *v1.Pod) {
	m.mutex.Lock()
	collected := m.recordNow()
	m.mutex.Unlock()
	if m.activePods != nil && m.sourcesReady != nil {
		collected.activePods, collected.sourcesReady = m.activePods, m.sourcesReady
		collected.UpdateAllocatedDevices(klog.Logger{})
	}
	pod = pod.DeepCopy()
	for _, cs := range [][]v1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range cs {
			for _, list := range []v1.ResourceList{cs[i].Resources.Limits, cs[i].Resources.Requests} {
				for name, q := range maps.Clone(list) {
					if m.isDevicePluginResource(string(name)) {
						delete(list, name)
						list[v1.ResourceName(recordedName(string(name)))] = q
					}
				}
			}
		}
	}
	m = collected
	recorded.Later(func(test string) {
		s := vector.State{NUMA: recordMachine(m.numaNodes), Gates: drive.Gates()}
		left := drive.Strange(pod)
		switch {
		case left != "":
		case len(m.numaNodes) == 0:
			left = "a machine without NUMA nodes"
		case m.podDevices.hasPod(string(pod.UID)):
			left = "a pod that has devices already"
		case len(m.devicesToReuse[string(pod.UID)]) > 0:
			left = "a pod whose init containers have run already"
		}
		names := sets.KeySet(m.healthyDevices).Union(sets.KeySet(m.allocatedDevices))
		for _, name := range sets.List(names) {
			if left == "" {
				left = m.recordPool(&s, name, m.healthyDevices[name], m.allocatedDevices[name])
			}
		}
		if left != "" {
			vector.Emit(test, vector.Vector{Left: left})
			return
		}
		drive.EmitPod(test, s, m.numaNodes, pod, recordedTimes, func(store topologymanager.Store) drive.Manager {
			return recordedManager{m.fresh(pod, store)}
		})
	})
}

func (m *ManagerImpl) GetTopologyHints(logger klog.Logger, pod *v1.Pod, container *v1.Container, op lifecycle.Operation) map[string][]topologymanager.TopologyHint {
	m.recordPod(pod)
	return m.kubeletGetTopologyHints(logger, pod, container, op)
}

func (m *ManagerImpl) GetPodTopologyHints(logger klog.Logger, pod *v1.Pod, op lifecycle.Operation) map[string][]topologymanager.TopologyHint {
	m.recordPod(pod)
	return m.kubeletGetPodTopologyHints(logger, pod, op)
}

func (m *ManagerImpl) Allocate(ctx context.Context, pod *v1.Pod, container *v1.Container, op lifecycle.Operation) error {
	if op == lifecycle.AddOperation {
		m.recordPod(pod)
	}
	return m.kubeletAllocate(ctx, pod, container, op)
}

func (m *ManagerImpl) generateDeviceTopologyHints(logger klog.Logger, resource string, available, reusable sets.Set[string], count int) []topologymanager.TopologyHint {
	c, free, reuse := m.recordNow(), available.Clone(), reusable.Clone()
	name := recordedName(resource)
	recorded.Later(func(test string) {
		s := vector.State{NUMA: recordMachine(c.numaNodes)}
		left := c.recordPool(&s, name, free.Union(reuse), reuse.Difference(free))
		if left == "" && len(c.numaNodes) == 0 {
			left = "a machine without NUMA nodes"
		}
		if left != "" {
			vector.Emit(test, vector.Vector{Left: left})
			return
		}
		h := vector.Hints{State: s, Hints: drive.Hints(c.kubeletGenerateDeviceTopologyHints(klog.Logger{}, name, free, reuse, count))}
		h.Demand.Devices, h.Demand.Reuse.Devices = map[string]int{name: count}, c.recordCount(name, reuse)
		vector.Emit(test, vector.Vector{Hints: &h})
	})
	return m.kubeletGenerateDeviceTopologyHints(logger, resource, available, reusable, count)
}

func (m *ManagerImpl) devicesToAllocate(ctx context.Context, podUID, container, resource string, required int, reusable sets.Set[string]) (sets.Set[string], error) {
	m.mutex.Lock()
	c, reuse, plugin := m.recordNow(), reusable.Clone(), m.endpoints[resource]
	m.mutex.Unlock()
	name := recordedName(resource)
	hint := topologymanager.TopologyHint{}
	if m.topologyAffinityStore != nil {
		hint = m.topologyAffinityStore.GetAffinity(klog.Logger{}, podUID, container)
	}
	ready := m.sourcesReady.AllReady()
	recorded.Later(func(test string) {
		// The hint tells which NUMA nodes there are where the test does not.
		ids := sets.New(c.numaNodes...)
		if hint.NUMANodeAffinity != nil {
			ids.Insert(hint.NUMANodeAffinity.GetBits()...)
		}
		if len(c.numaNodes) == 0 {
			for _, d := range c.allDevices[name] {
				ids.Insert(recordedNUMA(d)...)
			}
		}
		if ids.Len() == 0 {
			ids.Insert(0)
		}
		s := vector.State{NUMA: recordMachine(sets.List(ids))}
		left := c.recordPool(&s, name, c.healthyDevices[name], c.allocatedDevices[name])
		switch {
		case left != "":
		case !ready:
			left = "a kubelet that is still starting"
		case c.podDevices.containerDevices(podUID, container, name) != nil:
			left = "a container that has devices already"
		case len(recordedUnknown(c.allDevices[name], reuse)) > 0:
			left = "devices that the manager does not know"
		}
		if left != "" {
			vector.Emit(test, vector.Vector{Left: left})
			return
		}
		g := vector.Grant{State: s, Kind: "app", Hint: drive.Hint(hint)}
		g.Demand.Devices, g.Demand.Reuse.Devices = map[string]int{name: required}, c.recordCount(name, reuse)
		g.Reason, g.Lands = c.recordChoices(podUID, container, name, required, reuse, hint)
		vector.Emit(test, vector.Vector{Grant: &g})
		if plugin.opts == nil || !plugin.opts.GetPreferredAllocationAvailable {
			return
		}
		c.endpoints[name] = plugin
		preferred := g
		preferred.Plugin = true
		preferred.Reason, preferred.Lands = c.recordChoices(podUID, container, name, required, reuse, hint)
		vector.Emit(test, vector.Vector{Grant: &preferred})
	})
	return m.kubeletDevicesToAllocate(ctx, podUID, container, resource, required, reusable)
}

func recordedUnknown(known DeviceInstances, ids sets.Set[string]) []string {
	return slices.DeleteFunc(sets.List(ids), func(id string) bool { return known[id] != nil })
}

// recordChoices is all that the kubelet is seen to choose.
func (m *ManagerImpl) recordChoices(podUID, container, resource string, required int, reuse sets.Set[string], hint topologymanager.TopologyHint) (reason string, lands [][]vector.Landing) {
	for range recordedTimes {
		c := m.fresh(nil, recordedHint{hint})
		c.endpoints = m.endpoints
		got, err := c.kubeletDevicesToAllocate(klog.NewContext(context.Background(), klog.Logger{}), podUID, container, resource, required, reuse)
		if err != nil {
			reason = admission.GetPodAdmitResult(err).Reason
			continue
		}
		lands = drive.Insert(lands, []vector.Landing{{Devices: c.recordCount(resource, got)}, c.recordFree(resource)})
	}
	return reason, lands
}

// recordedManager is a manager that tells what it gave.
type recordedManager struct{ m *ManagerImpl }

func (r recordedManager) GetTopologyHints(logger klog.Logger, pod *v1.Pod, c *v1.Container, op lifecycle.Operation) map[string][]topologymanager.TopologyHint {
	return r.m.kubeletGetTopologyHints(logger, pod, c, op)
}

func (r recordedManager) GetPodTopologyHints(logger klog.Logger, pod *v1.Pod, op lifecycle.Operation) map[string][]topologymanager.TopologyHint {
	return r.m.kubeletGetPodTopologyHints(logger, pod, op)
}

func (r recordedManager) AllocatePod(logger klog.Logger, pod *v1.Pod, op lifecycle.Operation) error {
	return r.m.AllocatePod(logger, pod, op)
}

func (r recordedManager) Allocate(ctx context.Context, pod *v1.Pod, c *v1.Container, op lifecycle.Operation) error {
	return r.m.kubeletAllocate(ctx, pod, c, op)
}

func (r recordedManager) Landings(pod *v1.Pod) []vector.Landing {
	return append(drive.Landings(pod, func(name string, l *vector.Landing) {
		for _, resource := range sets.List(sets.KeySet(r.m.healthyDevices)) {
			l.Devices = append(l.Devices, r.m.recordCount(resource, r.m.podDevices.containerDevices(string(pod.UID), name, resource))...)
		}
	}), r.m.recordFree(sets.List(sets.KeySet(r.m.healthyDevices))...))
}

// recordFree is what nobody holds of some resources.
func (m *ManagerImpl) recordFree(resources ...string) vector.Landing {
	l := vector.Landing{Name: vector.Free}
	for _, resource := range resources {
		l.Devices = append(l.Devices, m.recordCount(resource, m.getAvailableDevices(resource))...)
	}
	return l
}

// recordedHint is a topology manager that has made up its mind.
type recordedHint struct{ hint topologymanager.TopologyHint }

func (h recordedHint) GetAffinity(klog.Logger, string, string) topologymanager.TopologyHint {
	return h.hint
}
func (h recordedHint) GetPolicy() topologymanager.Policy { return nil }
func (h recordedHint) Name() string                      { return "container" }

// recordedEndpoint is a plugin that gives whatever the kubelet chooses.
type recordedEndpoint struct{}

func (recordedEndpoint) getPreferredAllocation(context.Context, []string, []string, int) (*pluginapi.PreferredAllocationResponse, error) {
	return nil, nil
}

func (recordedEndpoint) allocate(context.Context, []string) (*pluginapi.AllocateResponse, error) {
	return &pluginapi.AllocateResponse{ContainerResponses: []*pluginapi.ContainerAllocateResponse{{}}}, nil
}

func (recordedEndpoint) preStartContainer(context.Context, []string) (*pluginapi.PreStartContainerResponse, error) {
	return nil, nil
}
func (recordedEndpoint) setStopTime(time.Time)        {}
func (recordedEndpoint) isStopped() bool              { return false }
func (recordedEndpoint) stopGracePeriodExpired() bool { return false }
func (recordedEndpoint) socketPath() string           { return "" }

// recordedCheckpoints forgets them.
type recordedCheckpoints struct{}

func (recordedCheckpoints) CreateCheckpoint(string, checkpointmanager.Checkpoint) error { return nil }

func (recordedCheckpoints) GetCheckpoint(string, checkpointmanager.Checkpoint) error { return nil }

func (recordedCheckpoints) RemoveCheckpoint(string) error { return nil }

func (recordedCheckpoints) ListCheckpoints() ([]string, error) { return nil, nil }
