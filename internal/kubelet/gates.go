package kubelet

import (
	"slices"
	"strings"
)

// gate is a feature gate of the kubelet that changes an admission or what the
// managers hold. Source: pkg/features/kube_features.go,
// defaultVersionedKubernetesFeatureGates.
type gate struct {
	name  string
	since int // minor version of its first alpha
	beta  int // minor version of its beta; 0: none yet
	on    int // minor version from which it is on by default; 0: none yet
	fixed int // minor version from which it cannot be switched off; 0: none yet
}

var gates = [...]gate{
	// Extended resources that DRA serves take no device of a device plugin.
	{name: "DRAExtendedResource", since: 34, beta: 36, on: 36, fixed: 37},
	// Exclusive CPUs may change while a pod runs.
	{name: "InPlacePodVerticalScalingExclusiveCPUs", since: 32},
	// Pods with pod-level resources get exclusive CPUs and memory as a whole.
	{name: "PodLevelResourceManagers", since: 36, beta: 37},
}

// gatesOn are the gates that matter and are on, sorted, for a kubelet of this
// minor version whose configuration sets these.
func gatesOn(minor int, set map[string]bool) []string {
	var on []string
	for _, g := range gates {
		if minor >= g.since && g.enabled(minor, set) {
			on = append(on, g.name)
		}
	}
	slices.SortFunc(on, strings.Compare)
	return on
}

// enabled is component-base's order: locked, set by name, set by AllAlpha or
// AllBeta, default (featuregate, setUnsetAlphaGates and setUnsetBetaGates).
func (g *gate) enabled(minor int, set map[string]bool) bool {
	if g.fixed > 0 && minor >= g.fixed {
		return true
	}
	if v, ok := set[g.name]; ok {
		return v
	}
	group := "AllAlpha"
	if g.beta > 0 && minor >= g.beta {
		group = "AllBeta"
	}
	if v, ok := set[group]; ok {
		return v
	}
	return g.on > 0 && minor >= g.on
}
