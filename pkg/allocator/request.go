package allocator

import (
	"cmp"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"unique"

	v1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/component-helpers/resource"
)

// Request is what a pod asks of a NUMA-aware kubelet. It does not depend on
// the node, so it is made once a pod and asked of every node.
type Request struct {
	// plain is how kubelets take it, managed how those with the gate
	// PodLevelResourceManagers do. They differ for a pod with pod-level resources.
	plain, managed ask
	// What the general predicates count, with and without what DRA serves.
	totals, unclaimed []amount
	shape             Shape
}

// Shape is the same for two pods that ask for the same, to which every node says
// the same. It is cheap to compare.
type Shape struct {
	text unique.Handle[string]
	sum  uint32
}

func newShape(text string) Shape {
	return Shape{unique.Make(text), crc32.ChecksumIEEE([]byte(text))}
}

// Sum is a hash.
func (s Shape) Sum() uint32 { return s.sum }

// Shape is the pod's.
func (r *Request) Shape() Shape { return r.shape }

// ask is what the resource managers make of a pod.
type ask struct {
	containers []container // in admission order: init containers, then containers
	pod        demand      // what pod scope asks for in one
	guaranteed bool        // in the static managers' eyes
	// asWhole: the pod has pod-level resources, and the managers serve it by these.
	asWhole bool
	// noSharedCPUs and noSharedMemory: its containers with CPUs or memory of
	// their own leave nothing for those without (validatePodScopeResources).
	noSharedCPUs, noSharedMemory bool
}

// shape writes down all that an admission depends on.
func (q *ask) shape() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v,%v,%v,%v,%v", q.pod, q.guaranteed, q.asWhole, q.noSharedCPUs, q.noSharedMemory)
	for i := range q.containers {
		c := &q.containers[i]
		fmt.Fprintf(&b, ";%d,%v", c.kind, c.demand)
	}
	return b.String()
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
	name    string
	count   int64
	claimed bool // DRA serves it (pod.status.extendedResourceClaimStatus)
}

// NewRequest reads of a pod all that a NUMA-aware admission depends on.
func NewRequest(pod *v1.Pod) *Request {
	guaranteed := isGuaranteed(pod)
	podLevel := resource.IsPodLevelResourcesSet(pod)
	// Without the gate the static managers leave pods with pod-level resources
	// in the shared pool (cpumanager getTopologyHintsForAdd, memorymanager GetTopologyHints).
	r := &Request{plain: newAsk(pod, func(*v1.Container) bool { return guaranteed && !podLevel })}
	r.plain.pod, r.plain.guaranteed = podDemand(r.plain.containers), guaranteed && !podLevel
	r.managed = r.plain
	if podLevel {
		r.managed = newAsk(pod, func(c *v1.Container) bool { return guaranteed && guaranteedResources(&c.Resources) })
		r.managed.asWhole, r.managed.guaranteed = true, guaranteed
		r.managed.pod = podDemand(r.managed.containers)
		r.managed.pod.cpus, r.managed.pod.memory = 0, nil
		if guaranteed {
			r.managed.pod.setCompute(pod.Spec.Resources.Requests)
		}
		r.managed.checkShared()
	}
	r.totals, r.unclaimed = podTotals(pod)
	r.shape = newShape(fmt.Sprint(r.plain.shape(), r.managed.shape(), r.totals, r.unclaimed))
	return r
}

// newAsk reads the containers. exclusive tells which of them get CPUs and
// memory of their own.
func newAsk(pod *v1.Pod, exclusive func(*v1.Container) bool) ask {
	q := ask{containers: make([]container, 0, len(pod.Spec.InitContainers)+len(pod.Spec.Containers))}
	add := func(c *v1.Container, kind containerKind) {
		q.containers = append(q.containers, newContainer(pod, c, kind, exclusive(c)))
	}
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		kind := initial
		if IsSidecar(c) {
			kind = sidecar
		}
		add(c, kind)
	}
	for i := range pod.Spec.Containers {
		add(&pod.Spec.Containers[i], app)
	}
	return q
}

// Exclusive tells whether the pod asks for anything that a NUMA node must give:
// exclusive CPUs, NUMA-bound memory or extended resources. Any node admits the
// others, as far as NUMA goes.
func (r *Request) Exclusive() bool {
	for _, q := range []*ask{&r.plain, &r.managed} {
		if !q.pod.isEmpty() {
			return true
		}
		for i := range q.containers {
			if !q.containers[i].isEmpty() {
				return true
			}
		}
	}
	return false
}

// Containers names the containers in admission order, for Verdict.Container.
func (r *Request) Containers() []string {
	names := make([]string, len(r.plain.containers))
	for i := range r.plain.containers {
		names[i] = r.plain.containers[i].name
	}
	return names
}

func newContainer(pod *v1.Pod, c *v1.Container, kind containerKind, exclusive bool) container {
	out := container{name: c.Name, kind: kind}
	// The device manager aligns pods of every QoS class, by limits
	// (devicemanager getContainerDeviceRequest).
	for name, q := range c.Resources.Limits {
		if isExtendedResource(name) {
			out.devices = append(out.devices, amount{string(name), q.Value(), isClaimed(pod, c.Name, string(name))})
		}
	}
	slices.SortFunc(out.devices, byName)
	if exclusive {
		out.setCompute(c.Resources.Requests)
	}
	return out
}

// setCompute reads the CPUs and the memory of a request.
func (d *demand) setCompute(requests v1.ResourceList) {
	d.cpus, d.memory = WholeCPUs(requests[v1.ResourceCPU]), nil
	for name, q := range requests {
		if IsMemory(name) && !q.IsZero() {
			d.memory = append(d.memory, amount{name: string(name), count: q.Value()})
		}
	}
	slices.SortFunc(d.memory, byName)
}

func (d *demand) isEmpty() bool { return d.cpus == 0 && len(d.devices) == 0 && len(d.memory) == 0 }

// isClaimed is devicemanager isDRAExtendedResource.
func isClaimed(pod *v1.Pod, container, resource string) bool {
	claims := pod.Status.ExtendedResourceClaimStatus
	return claims != nil && slices.ContainsFunc(claims.RequestMappings, func(m v1.ContainerExtendedResourceRequest) bool {
		return m.ContainerName == container && m.ResourceName == resource
	})
}

// checkShared finds out whether containers that share the pod's CPUs or memory
// would be left with none (cpumanager and memorymanager validatePodScopeResources).
func (q *ask) checkShared() {
	q.noSharedCPUs = starved(q.containers, q.pod.cpus,
		func(c *container) bool { return c.cpus == 0 }, func(c *container) int64 { return c.cpus })
	for _, m := range q.pod.memory {
		q.noSharedMemory = q.noSharedMemory || starved(q.containers, m.count,
			func(c *container) bool { return len(c.memory) == 0 }, func(c *container) int64 { return find(c.memory, m.name) })
	}
}

func starved(cs []container, budget int64, shares func(*container) bool, own func(*container) int64) bool {
	var kept int64
	longRunning := false
	for i := range cs {
		c := &cs[i]
		switch {
		case !shares(c):
			if c.kind != initial {
				kept += own(c)
			}
		case c.kind != initial:
			longRunning = true
		case kept >= budget:
			return true
		}
	}
	return longRunning && kept >= budget
}

// splits tells whether so many CPUs of the pod can be split among its
// containers (cpumanager allocatePodForAdd).
func (q *ask) splits(cpus int) bool {
	left := int64(cpus)
	for i := range q.containers {
		c := &q.containers[i]
		if c.cpus > left {
			return false
		}
		if c.kind != initial {
			left -= c.cpus
		}
	}
	return true
}

// podDemand sums up as the three hint providers do for a pod: init containers
// count one at a time, with the sidecars started before them; sidecars stay
// (cpumanager podGuaranteedCPUs, component-helpers PodLimits, memorymanager
// getPodRequestedResources).
func podDemand(cs []container) demand {
	var d demand
	d.cpus = longRunning(cs, func(c *container) int64 { return c.cpus })
	for _, name := range names(cs, func(c *container) []amount { return c.devices }) {
		d.devices = append(d.devices, amount{name: name, count: longRunning(cs, func(c *container) int64 { return find(c.devices, name) })})
	}
	// Types that only init containers ask for are left out, as the memory manager does.
	apps := slices.DeleteFunc(slices.Clone(cs), func(c container) bool { return c.kind != app })
	for _, name := range names(apps, func(c *container) []amount { return c.memory }) {
		d.memory = append(d.memory, amount{name: name, count: longRunning(cs, func(c *container) int64 { return find(c.memory, name) })})
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

// guaranteedResources tells whether requests equal limits for CPU and memory,
// both set (cm/qos IsContainerEquivalentQOSGuaranteed).
func guaranteedResources(rr *v1.ResourceRequirements) bool {
	for _, name := range []v1.ResourceName{v1.ResourceCPU, v1.ResourceMemory} {
		req, lim := rr.Requests[name], rr.Limits[name]
		if req.IsZero() || !req.Equal(lim) {
			return false
		}
	}
	return true
}
