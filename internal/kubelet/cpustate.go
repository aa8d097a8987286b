package kubelet

import (
	"fmt"

	"github.com/numalane/numalane/pkg/topology"
)

// CPUState is a kubelet's cpu_manager_state.
type CPUState struct {
	Policy string
	// Containers are the exclusive CPUs by pod UID and container name.
	Containers map[string]map[string]topology.CPUSet
	// Pods are the CPUs that a pod with pod-level resources holds as a whole
	// (gate PodLevelResourceManagers); its containers share or split them.
	Pods map[string]topology.CPUSet
	// Default are the CPUs that no pod holds, the reserved ones too.
	Default topology.CPUSet
	// Unknown names fields that this version does not understand.
	Unknown []string
}

// cpuData are the fields that every format has: at the top level up to
// Kubernetes 1.36, from 1.37 in the string "data", which then is the one that
// counts (cpumanager/state, CPUManagerCheckpointV2 to V4).
type cpuData struct {
	PolicyName    string                                `json:"policyName"`
	DefaultCPUSet topology.CPUSet                       `json:"defaultCpuSet"`
	Entries       map[string]map[string]topology.CPUSet `json:"entries"`
	PodEntries    map[string]struct {
		CPUSet topology.CPUSet `json:"cpuSet"`
	} `json:"podEntries"`
	// Baselines are what containers had at admission, before a resize in
	// place. Entries tell what they hold now.
	Baselines map[string]map[string]struct {
		Baseline topology.CPUSet `json:"baseline"`
	} `json:"baselines"`
}

// ParseCPUState reads any format of cpu_manager_state that Kubernetes 1.34 to
// 1.37 write.
func ParseCPUState(b []byte) (CPUState, error) {
	data, unknown, err := unwrap(b, func(d *cpuData) string { return d.PolicyName })
	if err != nil {
		return CPUState{}, fmt.Errorf("decode cpu_manager_state: %w", err)
	}
	s := CPUState{Policy: data.PolicyName, Containers: data.Entries, Default: data.DefaultCPUSet, Unknown: unknown}
	if len(data.PodEntries) > 0 {
		s.Pods = make(map[string]topology.CPUSet, len(data.PodEntries))
		for uid, e := range data.PodEntries {
			s.Pods[uid] = e.CPUSet
		}
	}
	return s, nil
}
