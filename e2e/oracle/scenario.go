package oracle

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	v1 "k8s.io/api/core/v1"

	"github.com/numalane/numalane/internal/sysfstest"
	"github.com/numalane/numalane/pkg/allocator"
	"github.com/numalane/numalane/pkg/topology"
)

// Scenario is one kubelet's life. It holds all that it takes to live it again,
// but for what the kubelet leaves to chance.
type Scenario struct {
	Seed  uint64 `json:"seed"`  // of the run that it comes from
	Index uint64 `json:"index"` // among the scenarios of its kubelet
	Minor int    `json:"minor"` // the kubelet's

	Machine sysfstest.Machine `json:"machine"`
	// Packages are CPUs on another package than the rest of their NUMA node.
	Packages map[int]int `json:"packages,omitempty"`
	// Bridges are those above each PF, the nearest first, by the PF's address.
	Bridges map[string][]topology.Address `json:"bridges,omitempty"`
	// Kubelet is the KubeletConfiguration.
	Kubelet map[string]any `json:"kubelet"`
	// Allocatable is the Node's, without devices.
	Allocatable v1.ResourceList `json:"allocatable"`
	Pools       []Pool          `json:"pools,omitempty"`   // ours
	Foreign     []ForeignPool   `json:"foreign,omitempty"` // of other vendors
	Steps       []Step          `json:"steps"`
}

// Pool is one of our pools, in the words of its configuration.
type Pool struct {
	Resource         string           `json:"resource"`
	AllocationPolicy allocator.Policy `json:"allocationPolicy"`
	ExcludeTopology  bool             `json:"excludeTopology,omitempty"`
	RootDevices      []string         `json:"rootDevices"` // 0000:3b:00.0#0-3
}

// ForeignPool is a pool of another vendor's plugin.
type ForeignPool struct {
	Resource string          `json:"resource"`
	Devices  []ForeignDevice `json:"devices"`
	// Prefers: the plugin offers GetPreferredAllocation. It names the last of
	// the devices that it is offered, which is nothing that anyone could know.
	Prefers bool `json:"prefers,omitempty"`
}

// ForeignDevice is a device of another vendor's plugin.
type ForeignDevice struct {
	ID        string `json:"id"`
	NUMANodes []int  `json:"numaNodes,omitempty"`
}

// Step is one thing that happens. Exactly one of the first four is set.
type Step struct {
	Admit   *v1.Pod  `json:"admit,omitempty"`
	End     string   `json:"end,omitempty"` // UID of a pod that runs
	Health  *Health  `json:"health,omitempty"`
	Restart *Restart `json:"restart,omitempty"`

	// Gone: a pod that ends here, or is refused, is not in the API any more,
	// rather than there with its phase.
	Gone bool `json:"gone,omitempty"`
	// Static: the pod is the kubelet's own and the API does not have it.
	Static bool `json:"static,omitempty"`
}

// Health is what becomes of some devices of one of our pools.
type Health struct {
	Resource string   `json:"resource"`
	Devices  []string `json:"devices"`
	Healthy  bool     `json:"healthy"`
}

// Restart is a restart of the kubelet over its checkpoints, and of our plugin.
type Restart struct {
	// PodsFirst: the running pods are admitted again before any plugin has registered.
	PodsFirst bool `json:"podsFirst,omitempty"`
}

// validate refuses what no run could do, such as a file edited by hand.
func (s *Scenario) validate() error {
	for i, step := range s.Steps {
		kinds := 0
		for _, set := range []bool{step.Admit != nil, step.End != "", step.Health != nil, step.Restart != nil} {
			if set {
				kinds++
			}
		}
		if kinds != 1 {
			return fmt.Errorf("step %d does %d things, want one", i, kinds)
		}
	}
	if s.Kubelet == nil {
		return errors.New("no kubelet configuration")
	}
	return nil
}

// LoadScenario reads a scenario, or the one of a mismatch, from a file.
func LoadScenario(path string) (*Scenario, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read scenario: %w", err)
	}
	var file struct {
		Scenario *Scenario `json:"scenario"`
	}
	if err := json.Unmarshal(b, &file); err != nil {
		return nil, fmt.Errorf("decode scenario %s: %w", path, err)
	}
	s := file.Scenario
	if s == nil {
		s = &Scenario{}
		if err := json.Unmarshal(b, s); err != nil {
			return nil, fmt.Errorf("decode scenario %s: %w", path, err)
		}
	}
	if err := s.validate(); err != nil {
		return nil, fmt.Errorf("scenario %s: %w", path, err)
	}
	return s, nil
}
