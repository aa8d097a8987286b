package oracle

import (
	"fmt"
	"strings"

	v1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"

	"github.com/numalane/numalane/internal/sysfstest"
	"github.com/numalane/numalane/pkg/topology"
)

// kubelet makes a KubeletConfiguration for the machine that the kubelet of
// this version starts with, as a rule.
func (d dice) kubelet(s *Scenario) map[string]any {
	k := configuration{dice: d, s: s, gates: map[string]bool{}, all: map[string]any{
		"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
		"failSwapOn": false, "failCgroupV1": false, "cgroupsPerQOS": false, "cgroupDriver": "cgroupfs",
		"enforceNodeAllocatable": []string{}, "protectKernelDefaults": true,
		// The loop that writes cgroups has nothing to do here.
		"cpuManagerReconcilePeriod": "24h0m0s",
	}}
	k.topologyManager()
	k.cpuManager()
	k.memoryManager()
	k.featureGates()
	return k.all
}

type configuration struct {
	dice
	s     *Scenario
	gates map[string]bool
	all   map[string]any

	policy         string
	kube, reserved map[string]string // kubeReserved, systemReserved
}

func (k *configuration) topologyManager() {
	k.policy = []string{topology.PolicyNone, topology.PolicyBestEffort, topology.PolicyRestricted, topology.PolicySingleNUMANode}[k.weighted(14, 22, 28, 36)]
	k.all["topologyManagerPolicy"] = k.policy
	k.all["topologyManagerScope"] = []string{topology.ScopeContainer, topology.ScopePod}[k.weighted(58, 42)]
	options := map[string]string{}
	if k.chance(25) && k.dense() {
		options["prefer-closest-numa-nodes"] = k.boolean()
	}
	if k.chance(10) {
		options["max-allowable-numa-nodes"] = fmt.Sprint(k.between(8, 16))
	}
	if len(options) > 0 {
		k.all["topologyManagerPolicyOptions"] = options
	}
}

// dense tells whether the NUMA nodes' ids have no holes: with holes
// prefer-closest-numa-nodes makes the kubelet panic (CalculateAverageFor takes
// an id for a position).
func (k *configuration) dense() bool {
	nodes := k.s.Machine.NUMANodes
	return nodes[len(nodes)-1].ID == len(nodes)-1
}

func (k *configuration) boolean() string {
	if k.chance(90) {
		return "true"
	}
	return "false"
}

func (k *configuration) cpuManager() {
	k.kube, k.reserved = map[string]string{}, map[string]string{}
	var cpus []string
	for _, c := range k.s.Machine.CPUs() {
		if c.Online {
			cpus = append(cpus, fmt.Sprint(c.ID))
		}
	}
	if len(cpus) < 2 || k.chance(12) {
		k.all["cpuManagerPolicy"] = topology.CPUManagerNone
		return
	}
	k.all["cpuManagerPolicy"] = topology.CPUManagerStatic
	most := max(1, min(4, len(cpus)/4))
	switch count := k.between(1, most); k.weighted(55, 30, 15) {
	case 0:
		k.all["reservedSystemCPUs"] = strings.Join(some(k.dice, cpus, count), ",")
	case 1:
		k.kube["cpu"] = fmt.Sprint(count)
	default:
		k.kube["cpu"] = fmt.Sprintf("%dm", 1000*(count-1)+pick(k.dice, 100, 500, 900))
	}
	if options := k.cpuOptions(); len(options) > 0 {
		k.all["cpuManagerPolicyOptions"] = options
	}
}

// cpuOptions are ones that go together (cpumanager NewStaticPolicyOptions,
// ValidateStaticPolicyOptions).
func (k *configuration) cpuOptions() map[string]string {
	options := map[string]string{}
	set := func(name string, percent int) bool {
		if !k.chance(percent) {
			return false
		}
		options[name] = k.boolean()
		return options[name] == "true"
	}
	set("strict-cpu-reservation", 20)
	if k.policy != topology.PolicySingleNUMANode && k.fewSockets() {
		set("align-by-socket", 20)
	}
	switch {
	case set("distribute-cpus-across-cores", 12):
	case set("distribute-cpus-across-numa", 18):
		set("full-pcpus-only", 40)
	default:
		set("full-pcpus-only", 35)
		set("prefer-align-cpus-by-uncorecache", 25)
	}
	for _, alpha := range []string{"align-by-socket", "distribute-cpus-across-cores"} {
		if _, listed := options[alpha]; listed {
			k.gates["CPUManagerPolicyAlphaOptions"] = true
		}
	}
	return options
}

// fewSockets tells whether there are no more sockets than NUMA nodes with CPUs.
func (k *configuration) fewSockets() bool {
	sockets, nodes := map[int]bool{}, map[int]bool{}
	for _, c := range k.s.Machine.CPUs() {
		if id, moved := k.s.Packages[c.ID]; moved {
			c.Socket = id
		}
		if c.Online {
			sockets[c.Socket], nodes[c.NUMANode] = true, true
		}
	}
	return len(sockets) <= len(nodes)
}

// memoryManager reserves of some NUMA nodes what all reservations come to
// (memorymanager validateReservedMemory).
func (k *configuration) memoryManager() {
	const eviction = 100 * mib
	k.all["evictionHard"] = map[string]string{"memory.available": fmt.Sprint(eviction)}
	k.all["memoryManagerPolicy"] = topology.MemoryManagerNone
	var able []sysfstest.NUMANode
	for _, n := range k.s.Machine.NUMANodes {
		if n.Memory > 0 {
			able = append(able, n)
		}
	}
	if k.chance(60) && len(able) > 0 {
		k.all["memoryManagerPolicy"] = topology.MemoryManagerStatic
		total := 0
		var reservations []map[string]any
		for _, n := range some(k.dice, able, k.between(1, len(able))) {
			size := 200*mib + k.between(0, 300)*mib
			if k.chance(30) {
				size += k.between(0, 1000) * (4 << 10)
			}
			total += size
			reservations = append(reservations, map[string]any{"numaNode": n.ID, "limits": map[string]string{"memory": fmt.Sprint(size)}})
		}
		k.all["reservedMemory"] = reservations
		k.reserved["memory"] = fmt.Sprint(total - eviction)
	}
	if len(k.kube) > 0 {
		k.all["kubeReserved"] = k.kube
	}
	if len(k.reserved) > 0 {
		k.all["systemReserved"] = k.reserved
	}
}

func (k *configuration) featureGates() {
	if k.s.Minor >= 36 && k.chance(45) {
		k.gates["PodLevelResourceManagers"] = true
	}
	switch {
	case k.s.Minor <= 35 && k.chance(30):
		k.gates["DRAExtendedResource"] = true
	case k.s.Minor == 36 && k.chance(25):
		k.gates["DRAExtendedResource"] = false
	}
	if len(k.gates) > 0 {
		k.all["featureGates"] = k.gates
	}
}

// allocatable is the Node's. As a rule there is plenty, so that the general
// predicates, which come last, do not hide what comes before.
func (d dice) allocatable(m *sysfstest.Machine) v1.ResourceList {
	list := v1.ResourceList{
		v1.ResourceCPU:              apiresource.MustParse("1000"),
		v1.ResourceMemory:           apiresource.MustParse("10Ti"),
		v1.ResourceEphemeralStorage: apiresource.MustParse("10Ti"),
		v1.ResourcePods:             apiresource.MustParse("1000"),
		"hugepages-2Mi":             apiresource.MustParse("1Ti"),
		"hugepages-1Gi":             apiresource.MustParse("1Ti"),
	}
	if !d.chance(5) {
		return list
	}
	memory := uint64(0)
	for _, n := range m.NUMANodes {
		memory += n.Memory
	}
	list[v1.ResourceCPU] = *apiresource.NewQuantity(int64(len(m.CPUs())), apiresource.DecimalSI)
	list[v1.ResourceMemory] = *apiresource.NewQuantity(int64(memory), apiresource.BinarySI)
	list[v1.ResourcePods] = *apiresource.NewQuantity(int64(d.between(2, 12)), apiresource.DecimalSI)
	list["hugepages-2Mi"] = *apiresource.NewQuantity(64*mib, apiresource.BinarySI)
	return list
}
