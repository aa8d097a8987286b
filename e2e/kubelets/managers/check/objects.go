package check

import (
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	numaNodes    = 2
	coresPerNode = 4
	bytesPerNode = 16 << 30
)

// cAdvisor's types, whose package's name is another one in 1.37.
type (
	machineInfo struct {
		Cores    int        `json:"num_cores"`
		Physical int        `json:"num_physical_cores"`
		Sockets  int        `json:"num_sockets"`
		Memory   uint64     `json:"memory_capacity"`
		Topology []numaNode `json:"topology"`
	}
	numaNode struct {
		ID        int      `json:"node_id"`
		Memory    uint64   `json:"memory"`
		Cores     []core   `json:"cores"`
		Distances []uint64 `json:"distances"`
	}
	core struct {
		ID      int   `json:"core_id"`
		Threads []int `json:"thread_ids"`
		Socket  int   `json:"socket_id"`
	}
)

// machine has two threads a core; siblings are half of the CPUs apart.
func machine() *machineInfo {
	const cores = numaNodes * coresPerNode
	m := &machineInfo{Cores: 2 * cores, Physical: cores, Sockets: numaNodes, Memory: numaNodes * bytesPerNode}
	for id := range numaNodes {
		n := numaNode{ID: id, Memory: bytesPerNode, Distances: []uint64{21, 21}}
		n.Distances[id] = 10
		for c := range coresPerNode {
			first := id*coresPerNode + c
			n.Cores = append(n.Cores, core{ID: c, Threads: []int{first, first + cores}, Socket: id})
		}
		m.Topology = append(m.Topology, n)
	}
	return m
}

func apiNode() *v1.Node {
	all := v1.ResourceList{
		v1.ResourceCPU: resource.MustParse("15"), v1.ResourceMemory: resource.MustParse("31Gi"), v1.ResourcePods: resource.MustParse("110"),
	}
	return &v1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "node"},
		Status:     v1.NodeStatus{Capacity: all, Allocatable: all},
	}
}

func resources(cpus string, gpus int64) v1.ResourceList {
	list := v1.ResourceList{v1.ResourceCPU: resource.MustParse(cpus), v1.ResourceMemory: resource.MustParse("1Gi")}
	if gpus > 0 {
		list[gpu] = *resource.NewQuantity(gpus, resource.DecimalSI)
	}
	return list
}

// pod has one container with these limits, and requests that are equal.
func pod(name, cpus string, gpus int64) *v1.Pod {
	list := resources(cpus, gpus)
	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: types.UID(name + "-uid")},
		Spec: v1.PodSpec{Containers: []v1.Container{{
			Name: "main", Resources: v1.ResourceRequirements{Requests: list, Limits: list},
		}}},
	}
}
