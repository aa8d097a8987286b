package holdings

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"

	"github.com/numalane/numalane/e2e/cluster"
	"github.com/numalane/numalane/e2e/storm/fleet"
	"github.com/numalane/numalane/pkg/topology"
)

const vf = "numalane.io/vf"

// member has CPUs 0 to 3 on NUMA node 0, 4 to 7 on NUMA node 1.
func member(policy, scope string) *fleet.Member {
	m := &fleet.Member{Node: &fleet.Node{NodeSpec: cluster.NodeSpec{Name: "n"}, Policy: policy, Scope: scope}, NUMAOf: map[int]int{}}
	for cpu := range 8 {
		m.NUMAOf[cpu] = cpu / 4
	}
	return m
}

func pod(name string, containers ...*podresources.ContainerResources) *podresources.PodResources {
	return &podresources.PodResources{Name: name, Containers: containers}
}

// container has CPUs, and a VF of a NUMA node if that is not below 0.
func container(name string, cpus []int64, vfID string, numa int64) *podresources.ContainerResources {
	c := &podresources.ContainerResources{Name: name, CpuIds: cpus}
	if numa >= 0 {
		c.Devices = []*podresources.ContainerDevices{{
			ResourceName: vf, DeviceIds: []string{vfID}, Topology: &podresources.TopologyInfo{Nodes: []*podresources.NUMANode{{ID: numa}}},
		}}
	}
	return c
}

// cpuState is a cpu_manager_state of container app of pods by UID.
func cpuState(byUID map[string]string) []byte {
	var entries []string
	for uid, cpus := range byUID {
		entries = append(entries, fmt.Sprintf(`%q:{"app":%q}`, uid, cpus))
	}
	return fmt.Appendf(nil, `{"policyName":"static","defaultCpuSet":"0","entries":{%s},"checksum":1}`, strings.Join(entries, ","))
}

// deviceState is a checkpoint in which pods, by UID, hold a VF each.
func deviceState(byUID map[string]string) []byte {
	var entries []string
	for uid, id := range byUID {
		entries = append(entries, fmt.Sprintf(`{"PodUID":%q,"ContainerName":"app","ResourceName":%q,"DeviceIDs":{"0":[%q]},"AllocResp":""}`, uid, vf, id))
	}
	return fmt.Appendf(nil, `{"Data":{"PodDeviceEntries":[%s],"RegisteredDevices":{}},"Checksum":1}`, strings.Join(entries, ","))
}

func TestLook(t *testing.T) {
	single, restricted := topology.PolicySingleNUMANode, topology.PolicyRestricted
	byContainer, byPod := topology.ScopeContainer, topology.ScopePod
	apart := []*podresources.PodResources{pod("a", container("app", []int64{1}, "v0", 1))}
	two := []*podresources.PodResources{pod("a", container("app", []int64{1}, "v0", 0), container("second", []int64{4}, "v1", 1))}
	tests := map[string]struct {
		policy, scope      string
		account            account
		double, misaligned string // a part of what is found; "": nothing is
	}{
		"all is well": {single, byContainer, account{
			pods:    []*podresources.PodResources{pod("a", container("app", []int64{1, 2}, "v0", 0)), pod("b", container("app", []int64{3}, "v1", 0))},
			cpus:    cpuState(map[string]string{"uid-a": "1-2", "uid-b": "3"}),
			devices: deviceState(map[string]string{"uid-a": "v0", "uid-b": "v1"}),
		}, "", ""},
		"no device was ever given away": {single, byContainer, account{pods: []*podresources.PodResources{pod("a", container("app", []int64{1}, "", -1))}}, "", ""},
		"a CPU of two pods": {single, byContainer, account{
			pods: []*podresources.PodResources{pod("a", container("app", []int64{1, 2}, "v0", 0)), pod("b", container("app", []int64{2, 3}, "v1", 0))},
		}, "CPU 2 is held by a and b at once, by PodResources", ""},
		"a VF of two pods": {single, byContainer, account{
			pods: []*podresources.PodResources{pod("a", container("app", []int64{1}, "v0", 0)), pod("b", container("app", []int64{2}, "v0", 0))},
		}, "numalane.io/vf v0 is held by a and b at once, by PodResources", ""},
		"a VF of two containers of a pod": {single, byContainer, account{
			pods: []*podresources.PodResources{pod("a", container("init", nil, "v0", 0), container("app", nil, "v0", 0))},
		}, "", ""},
		"a CPU of two live pods by the state file": {single, byContainer, account{
			pods: []*podresources.PodResources{pod("a"), pod("b")},
			cpus: cpuState(map[string]string{"uid-a": "1-2", "uid-b": "2"}),
		}, "CPU 2 is held by a and b at once, by the state files", ""},
		"a VF of two live pods by the checkpoint": {single, byContainer, account{
			pods:    []*podresources.PodResources{pod("a"), pod("b")},
			devices: deviceState(map[string]string{"uid-a": "v0", "uid-b": "v0"}),
		}, "numalane.io/vf v0 is held by a and b at once, by the state files", ""},
		"a CPU of a live pod and a dead one": {single, byContainer, account{
			pods: []*podresources.PodResources{pod("a")},
			cpus: cpuState(map[string]string{"uid-a": "1-2", "uid-b": "2"}),
		}, "", ""},
		"a container apart":                         {single, byContainer, account{pods: apart}, "", "container app holds of 2 NUMA nodes"},
		"a container apart, where that may be":      {restricted, byContainer, account{pods: apart}, "", ""},
		"containers apart":                          {single, byContainer, account{pods: two}, "", ""},
		"containers apart, where the pod is one":    {single, byPod, account{pods: two}, "", "holds of 2 NUMA nodes"},
		"the same, where a pod may be in two parts": {restricted, byPod, account{pods: two}, "", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if tt.account.cpus == nil {
				tt.account.cpus = cpuState(nil)
			}
			live := map[string]bool{}
			for _, p := range tt.account.pods {
				live[p.GetName()] = true
			}
			l, err := tt.account.look(member(tt.policy, tt.scope), func(name string) string {
				if live[name] {
					return "uid-" + name
				}
				return ""
			})
			if err != nil {
				t.Fatal(err)
			}
			check(t, "double-booked", l.Findings.Double, tt.double)
			check(t, "misaligned", l.Findings.Misaligned, tt.misaligned)
		})
	}
}

func check(t *testing.T, kind string, found []Finding, want string) {
	t.Helper()
	switch {
	case want == "" && len(found) == 0:
	case want != "" && len(found) == 1 && strings.HasPrefix(found[0].Text, want):
	default:
		t.Errorf("%s: %v, want %q", kind, found, want)
	}
}

func TestLookCounts(t *testing.T) {
	a := account{cpus: cpuState(nil), pods: []*podresources.PodResources{
		pod("a", container("init", []int64{1, 2}, "v0", 0), container("app", []int64{1, 2, 3}, "v0", 0)), pod("b", container("app", nil, "v1", 0)),
	}}
	l, err := a.look(member(topology.PolicySingleNUMANode, topology.ScopeContainer), func(string) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	if l.Held[corev1.ResourceCPU] != 3 || l.Held[vf] != 2 {
		t.Errorf("held: %v, want 3 CPUs and 2 VFs: what a pod's containers share counts once", l.Held)
	}
}

func TestLookBadState(t *testing.T) {
	for name, a := range map[string]account{
		"CPUs":    {cpus: []byte("{")},
		"devices": {cpus: cpuState(nil), devices: []byte("{}")},
	} {
		if l, err := a.look(member(topology.PolicySingleNUMANode, topology.ScopeContainer), func(string) string { return "" }); err == nil {
			t.Errorf("%s: %v, want an error", name, l)
		}
	}
}
