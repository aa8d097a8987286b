// Package fleet is the storm's nodes: machines of different shapes, kubelets of
// different policies, pools.
package fleet

import (
	"fmt"
	"math/rand/v2"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	kubeletconfig "k8s.io/kubelet/config/v1beta1"

	"github.com/numalane/numalane/e2e/cluster"
	"github.com/numalane/numalane/internal/sysfstest"
	"github.com/numalane/numalane/pkg/topology"
)

// The pools' resources. Every node has VF; Slow is a pool of its own on some.
const (
	VF   corev1.ResourceName = "numalane.io/vf"
	Slow corev1.ResourceName = "numalane.io/slow"
)

// onePool has the VFs of both models, twoPools one pool each.
const (
	onePool  = `{"resourceList": [{"resourcePrefix": "numalane.io", "resourceName": "vf", "selectors": {"vendors": ["8086"], "devices": ["154c", "10ed"]}}]}`
	twoPools = `{"resourceList": [
  {"resourcePrefix": "numalane.io", "resourceName": "vf", "selectors": {"vendors": ["8086"], "devices": ["154c"]}},
  {"resourcePrefix": "numalane.io", "resourceName": "slow", "selectors": {"vendors": ["8086"], "devices": ["10ed"]}}]}`
)

// Node is one node to be.
type Node struct {
	cluster.NodeSpec
	Policy, Scope string
	Pools         string // the plugin's configuration
	VFs           map[corev1.ResourceName]int64
	CPUs          int // those that containers may have exclusively
}

// SingleNUMA tells that no container, by scope no pod, may ever span NUMA nodes.
func (n *Node) SingleNUMA() bool { return n.Policy == topology.PolicySingleNUMANode }

// Describe is a line about the node, for people.
func (n *Node) Describe() string {
	text := fmt.Sprintf("%s: %d NUMA nodes, SMT %d, %s by %s", n.Name, len(n.Machine.NUMANodes), n.Machine.ThreadsPerCore, n.Policy, n.Scope)
	for _, nic := range n.Machine.NICs {
		text += fmt.Sprintf(", %d VFs of %s on NUMA node %d", nic.VFs, nic.Driver, nic.NUMANode)
	}
	return text
}

// New makes nodes that differ, the same ones for the same dice.
func New(count int, dice *rand.Rand) []*Node {
	all := make([]*Node, 0, count)
	for i := range count {
		all = append(all, newNode(i, dice))
	}
	return all
}

// Three of four nodes are single-numa-node, as those that the storm is about;
// the others are there because clusters have them.
var policies = [...]string{
	topology.PolicySingleNUMANode, topology.PolicySingleNUMANode, topology.PolicySingleNUMANode, topology.PolicyRestricted,
	topology.PolicySingleNUMANode, topology.PolicySingleNUMANode, topology.PolicySingleNUMANode, topology.PolicyBestEffort,
}

func newNode(i int, dice *rand.Rand) *Node {
	n := &Node{Policy: policies[i%len(policies)], Scope: topology.ScopeContainer}
	if i%20 == 19 {
		n.Policy = topology.PolicyNone
	}
	if i%3 == 1 {
		n.Scope = topology.ScopePod
	}
	n.Name = fmt.Sprintf("n%02d", i)
	n.Machine = machine(dice)
	n.CPUs = len(n.Machine.CPUs()) - n.Machine.ThreadsPerCore // but for the first core
	n.Pools = onePool
	if i%4 == 2 {
		n.Pools = twoPools
	}
	n.VFs = count(n.Machine.NICs, n.Pools == twoPools)
	static := i%5 == 3
	options := map[string]string{}
	if n.Machine.ThreadsPerCore == 2 && i%4 == 1 {
		options["full-pcpus-only"] = "true"
	}
	// It spreads CPUs over NUMA nodes where a policy lets it.
	if n.Policy != topology.PolicySingleNUMANode && i%2 == 1 {
		options["distribute-cpus-across-numa"] = "true"
	}
	n.Verbosity = 2
	n.Kubelet = func(k *kubeletconfig.KubeletConfiguration) {
		k.TopologyManagerPolicy, k.TopologyManagerScope = n.Policy, n.Scope
		k.CPUManagerPolicyOptions = options
		k.SystemReserved, k.ReservedSystemCPUs = nil, firstCore(n.Machine)
		if static {
			k.MemoryManagerPolicy = topology.MemoryManagerStatic
			k.SystemReserved = map[string]string{"memory": "1Gi"}
			k.ReservedMemory = []kubeletconfig.MemoryReservation{{NumaNode: 0, Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Gi")}}}
		}
		// Many kubelets share few cores. What a pod is refused for is never read
		// from the Node's status.
		k.NodeStatusUpdateFrequency.Duration = statusEvery
		k.MaxPods = 110
		k.StaticPodPath = "" // it takes one of the few inotify instances that a user may have
	}
	return n
}

// machine is of 2 to 4 NUMA nodes, with VFs on some. Where VFs are, there are
// about as many CPUs as those who want VFs want: else all VFs could never be held.
func machine(dice *rand.Rand) sysfstest.Machine {
	nodes := 2 + dice.IntN(3)
	m := sysfstest.Machine{ThreadsPerCore: 1 + dice.IntN(2)}
	vfs := make([]int, nodes)
	ports := 2 + dice.IntN(2)
	for i := range ports {
		nic := sysfstest.X710
		if i > 0 && dice.IntN(2) == 0 {
			nic = sysfstest.Intel82599
		}
		at := dice.IntN(nodes)
		if i == 0 {
			at = nodes - 1
		}
		n := 2 + dice.IntN(3)
		vfs[at] += n
		m.NICs = append(m.NICs, nic(fmt.Sprintf("0000:%02x:00.0", 0x21+0x20*i), at, n))
	}
	for id := range nodes {
		cpus := 3 + dice.IntN(4)
		if vfs[id] > 0 {
			cpus = 2*vfs[id] + dice.IntN(2)
		}
		m.NUMANodes = append(m.NUMANodes, sysfstest.NUMANode{
			ID: id, Socket: id * 2 / nodes, Cores: max(2, (cpus+m.ThreadsPerCore-1)/m.ThreadsPerCore), Memory: 16 << 30,
		})
	}
	return m
}

func count(nics []sysfstest.NIC, two bool) map[corev1.ResourceName]int64 {
	vfs := map[corev1.ResourceName]int64{}
	for _, nic := range nics {
		name := VF
		if two && nic.VFDevice == "10ed" {
			name = Slow
		}
		vfs[name] += int64(nic.VFs)
	}
	return vfs
}

// firstCore are the CPUs of the first core, for the system.
func firstCore(m sysfstest.Machine) string {
	var ids []string
	for _, c := range m.CPUs() {
		if c.Core == 0 {
			ids = append(ids, fmt.Sprint(c.ID))
		}
	}
	return strings.Join(ids, ",")
}
