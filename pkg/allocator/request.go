package allocator

import (
	"cmp"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/component-helpers/resource"
)

// Request is what a pod asks of a NUMA-aware kubelet. It does not depend on
// the node, so it is made once a pod and asked of every node.
type Request struct {
	containers []container // in admission order: init containers, then containers
	pod        demand      // what pod scope asks for in one
	shape      string      // the same for two pods that ask for the same
}

type container struct {
	name string
	kind containerKind
	demand
}

// containerKind decides what a container leaves to those after it.
type containerKind uint8

const (
	app     containerKind = iota
	initial               // a regular init container: ends, and leaves what it held to be reused
	sidecar               // a restartable init container: keeps what it holds
)

// demand is what one hint is computed for: a container, or in pod scope a pod.
type demand struct {
	cpus    int64    // exclusive ones; 0 for the shared pool
	devices []amount // by name; every extended resource, the node knows which of them are devices
	memory  []amount // by name: memory, hugepages-*; bytes, only of Guaranteed pods
}

type amount struct {
	name  string
	count int64
}

// NewRequest reads of a pod all that a NUMA-aware admission depends on.
func NewRequest(pod *v1.Pod) *Request {
	guaranteed := isGuaranteed(pod)
	// Without the feature gate PodLevelResourceManagers the static managers
	// leave pods with pod-level resources in the shared pool (cpumanager
	// getTopologyHintsForAdd, memorymanager GetTopologyHints).
	exclusive := guaranteed && !resource.IsPodLevelResourcesSet(pod)
	r := &Request{containers: make([]container, 0, len(pod.Spec.InitContainers)+len(pod.Spec.Containers))}
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		kind := initial
		if IsSidecar(c) {
			kind = sidecar
		}
		r.containers = append(r.containers, newContainer(c, kind, exclusive))
	}
	for i := range pod.Spec.Containers {
		r.containers = append(r.containers, newContainer(&pod.Spec.Containers[i], app, exclusive))
	}
	r.pod = podDemand(r.containers)
	r.shape = shapeOf(r.containers)
	return r
}

// Exclusive tells whether the pod asks for anything that a NUMA node must give:
// exclusive CPUs, NUMA-bound memory or extended resources. Any node admits the
// others, as far as NUMA goes.
func (r *Request) Exclusive() bool {
	for i := range r.containers {
		c := &r.containers[i]
		if c.cpus > 0 || len(c.devices) > 0 || len(c.memory) > 0 {
			return true
		}
	}
	return false
}

// Containers names the containers in admission order, for Verdict.Container.
func (r *Request) Containers() []string {
	names := make([]string, len(r.containers))
	for i := range r.containers {
		names[i] = r.containers[i].name
	}
	return names
}

func newContainer(c *v1.Container, kind containerKind, exclusive bool) container {
	out := container{name: c.Name, kind: kind}
	// The device manager aligns pods of every QoS class, by limits
	// (devicemanager getContainerDeviceRequest).
	for name, q := range c.Resources.Limits {
		if isExtendedResource(name) {
			out.devices = append(out.devices, amount{string(name), q.Value()})
		}
	}
	if exclusive {
		out.cpus = WholeCPUs(c.Resources.Requests[v1.ResourceCPU])
		for name, q := range c.Resources.Requests {
			if IsMemory(name) && !q.IsZero() {
				out.memory = append(out.memory, amount{string(name), q.Value()})
			}
		}
	}
	slices.SortFunc(out.devices, byName)
	slices.SortFunc(out.memory, byName)
	return out
}

// podDemand sums up as the three hint providers do for a pod: init containers
// count one at a time, with the sidecars started before them; sidecars stay
// (cpumanager podGuaranteedCPUs, component-helpers PodLimits, memorymanager
// getPodRequestedResources).
func podDemand(cs []container) demand {
	var d demand
	d.cpus = longRunning(cs, func(c *container) int64 { return c.cpus })
	for _, name := range names(cs, func(c *container) []amount { return c.devices }) {
		d.devices = append(d.devices, amount{name, longRunning(cs, func(c *container) int64 { return c.device(name) })})
	}
	// Types that only init containers ask for are left out, as the memory manager does.
	apps := slices.DeleteFunc(slices.Clone(cs), func(c container) bool { return c.kind != app })
	for _, name := range names(apps, func(c *container) []amount { return c.memory }) {
		d.memory = append(d.memory, amount{name, longRunning(cs, func(c *container) int64 { return find(c.memory, name) })})
	}
	return d
}

// longRunning is the most that is held at one time while a pod goes through
// its containers: the KEP-753 formula.
func longRunning(cs []container, of func(*container) int64) int64 {
	var apps, sidecars, most int64
	for i := range cs {
		c := &cs[i]
		switch c.kind {
		case app:
			apps += of(c)
		case sidecar:
			sidecars += of(c)
		case initial:
			most = max(most, sidecars+of(c))
		}
	}
	return max(most, apps+sidecars)
}

func names(cs []container, of func(*container) []amount) []string {
	var out []string
	for i := range cs {
		for _, a := range of(&cs[i]) {
			out = append(out, a.name)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (d *demand) device(name string) int64 { return find(d.devices, name) }

func find(as []amount, name string) int64 {
	for i := range as {
		if as[i].name == name {
			return as[i].count
		}
	}
	return 0
}

func byName(a, b amount) int { return cmp.Compare(a.name, b.name) }

// isExtendedResource tells the names that a device plugin can register
// (pkg/apis/core/v1/helper, IsExtendedResourceName).
func isExtendedResource(name v1.ResourceName) bool {
	s := string(name)
	return strings.Contains(s, "/") && !strings.Contains(s, v1.ResourceDefaultNamespacePrefix) &&
		!strings.HasPrefix(s, v1.DefaultResourceRequestsPrefix)
}

// IsSidecar tells a restartable init container, which keeps what it holds, from
// one that ends and leaves it (KEP-753).
func IsSidecar(init *v1.Container) bool {
	return init.RestartPolicy != nil && *init.RestartPolicy == v1.ContainerRestartPolicyAlways
}

// WholeCPUs is the number of CPUs that a request makes exclusive in a
// Guaranteed pod: 0 unless it is whole (cpumanager guaranteedCPUs).
func WholeCPUs(request apiresource.Quantity) int64 {
	if request.MilliValue()%1000 != 0 {
		return 0
	}
	return request.Value()
}

// IsMemory tells the resources that the memory manager gives away.
func IsMemory(name v1.ResourceName) bool {
	return name == v1.ResourceMemory || strings.HasPrefix(string(name), v1.ResourceHugePagesPrefix)
}

// isGuaranteed is the kubelet's GetPodQOS: the status where it is set, else
// requests equal to limits for CPU and memory of every container.
func isGuaranteed(pod *v1.Pod) bool {
	if pod.Status.QOSClass != "" {
		return pod.Status.QOSClass == v1.PodQOSGuaranteed
	}
	if resource.IsPodLevelResourcesSet(pod) {
		return guaranteedResources(pod.Spec.Resources)
	}
	all := true
	for i := range pod.Spec.InitContainers {
		all = all && guaranteedResources(&pod.Spec.InitContainers[i].Resources)
	}
	for i := range pod.Spec.Containers {
		all = all && guaranteedResources(&pod.Spec.Containers[i].Resources)
	}
	return all
}

func guaranteedResources(rr *v1.ResourceRequirements) bool {
	for _, name := range []v1.ResourceName{v1.ResourceCPU, v1.ResourceMemory} {
		req, lim := rr.Requests[name], rr.Limits[name]
		if req.IsZero() || !req.Equal(lim) {
			return false
		}
	}
	return true
}
