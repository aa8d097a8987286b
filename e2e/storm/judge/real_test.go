package judge

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/cpuset"

	"github.com/numalane/numalane/e2e/storm/journal"
	"github.com/numalane/numalane/pkg/topology"
)

// These are refusals that storms have had, the kubelet's log read by a human,
// reduced to what matters. Moments are milliseconds since the pod was bound, and
// order the API's versions as well.

// ms is a moment that has come.
func ms(n int) journal.Moment {
	return journal.Moment{Version: uint64(1_000_000 + n), At: noon.Add(time.Duration(n) * time.Millisecond)}
}

// allocatable is what a node has in all.
func allocatable(cpus, vfs string) corev1.ResourceList {
	return corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse(cpus), corev1.ResourceMemory: resource.MustParse("63Gi"),
		corev1.ResourcePods: resource.MustParse("110"), vf: resource.MustParse(vfs),
	}
}

// held are CPUs and VFs of one NUMA node.
func held(numa int, cpus, pf string, vfs ...string) *topology.ContainerAllocation {
	c := &topology.ContainerAllocation{}
	if cpus != "" {
		set, err := cpuset.Parse(cpus)
		if err != nil {
			panic(err) // the test is wrong
		}
		c.CPUs = map[int]topology.CPUSet{numa: {CPUSet: set}}
	}
	if len(vfs) > 0 {
		c.Devices = []topology.DeviceAllocation{{Resource: vf, PF: pf, NUMANodes: []int{numa}, IDs: vfs}}
	}
	return c
}

const (
	n12Topology = `{"version":1,"kubelet":{"minor":37,"topologyPolicy":"single-numa-node","topologyScope":"container","cpuPolicy":"static","memoryPolicy":"None"},"numaNodes":[` +
		`{"id":0,"cores":[{"socket":0,"cache":0,"cpus":["0","1","2","3","4"]}],"reserved":"0","distances":{"0":10,"1":12,"2":21,"3":21}},` +
		`{"id":1,"cores":[{"socket":0,"cache":0,"cpus":["5","6","7","8","9","10"]}],"distances":{"0":12,"1":10,"2":21,"3":21}},` +
		`{"id":2,"cores":[{"socket":1,"cache":1,"cpus":["11","12","13","14","15","16"]}],"distances":{"0":21,"1":21,"2":10,"3":12}},` +
		`{"id":3,"cores":[{"socket":1,"cache":1,"cpus":["17","18","19","20","21","22"]}],"distances":{"0":21,"1":21,"2":12,"3":10}}]}`
	n12Pools = `{"version":1,"pools":[{"resource":"numalane.io/vf","allocationPolicy":"packed","groups":[` +
		`{"numaNodes":[1],"pf":"0000:41:00.0","total":5,"healthy":5,"free":2},{"numaNodes":[3],"pf":"0000:21:00.0","total":2,"healthy":2,"free":2}]}]}`
	n03Topology = `{"version":1,"kubelet":{"minor":37,"topologyPolicy":"restricted","topologyScope":"container","cpuPolicy":"static","memoryPolicy":"None"},"numaNodes":[` +
		`{"id":0,"cores":[{"socket":0,"cache":0,"cpus":["0,4","1,5"]}],"reserved":"0,4","distances":{"0":10,"1":21}},` +
		`{"id":1,"cores":[{"socket":1,"cache":1,"cpus":["2,6","3,7"]}],"distances":{"0":21,"1":10}}]}`
	n14Topology = `{"version":1,"kubelet":{"minor":37,"featureGates":["DRAExtendedResource"],"topologyPolicy":"single-numa-node","topologyScope":"container","cpuPolicy":"static","memoryPolicy":"None"},` +
		`"numaNodes":[{"id":0,"cores":[{"socket":0,"cache":0,"cpus":["0","1","2","3","4","5","6","7","8","9","10","11"]}],"reserved":"0","distances":{"0":10,"1":12,"2":21}},` +
		`{"id":1,"cores":[{"socket":0,"cache":0,"cpus":["12","13","14","15","16"]}],"distances":{"0":12,"1":10,"2":21}},` +
		`{"id":2,"cores":[{"socket":1,"cache":1,"cpus":["17","18","19","20","21","22","23","24"]}],"distances":{"0":21,"1":21,"2":10}}]}`
	n14Pools = `{"version":1,"pools":[{"resource":"numalane.io/vf","allocationPolicy":"packed","groups":[{"numaNodes":[0],"pf":"0000:41:00.0","total":2,"healthy":2,"free":0},{"numaNodes":[2],"pf":"0000:21:00.0","total":4,"healthy":4,"free":0}]}]}`

	n03Pools = `{"version":1,"pools":[{"resource":"numalane.io/vf","allocationPolicy":"packed","groups":[{"numaNodes":[1],"pf":"0000:41:00.0","total":5,"healthy":5,"free":0}]}]}`
)

// withInit puts an init container in front of a pod's container.
func withInit(p journal.Pod, cpus int64) journal.Pod {
	rl := corev1.ResourceList{corev1.ResourceCPU: *resource.NewQuantity(cpus, resource.DecimalSI), corev1.ResourceMemory: resource.MustParse("1Mi")}
	p.Spec.Spec.InitContainers = []corev1.Container{{Name: "init", Resources: corev1.ResourceRequirements{Requests: rl, Limits: rl}}}
	return p
}

// lived gives a pod, which knows seconds, a life in milliseconds.
func lived(p journal.Pod, bound, acked, deleting, ended int) journal.Pod {
	moment := func(n int) journal.Moment {
		if n == 0 {
			return journal.Moment{}
		}
		return ms(n)
	}
	p.UID = types.UID(p.Name)
	p.Bound, p.Deleting, p.Gone = ms(bound), moment(deleting), moment(ended)
	p.Admitted = moment(acked)
	for i := range p.Acks {
		p.Acks[i].Moment = moment(acked)
	}
	return p
}

func refused(p journal.Pod, at int) journal.Pod {
	p.Ended, p.Failed, p.Reason = ms(at), true, "TopologyAffinityError"
	return p
}

func TestRealCases(t *testing.T) {
	tests := map[string]struct {
		topology, pools string
		allocatable     corev1.ResourceList
		pods            []journal.Pod
		outages         []journal.Outage
		victim          journal.Pod
		want            Class
		why             string
	}{
		// storm-00345 on n12, seed 21. When it was bound NUMA node 0 had CPUs 1
		// and 2 free, its init container's 3 had to go elsewhere, and all was
		// well. storm-00278 was deleted by force 18 ms later and gave up CPU 4: the
		// init container went to NUMA node 0, which has no VFs, and the kubelet
		// gives its app container the same CPUs again. That storm-00289 had just
		// gone has nothing to do with it.
		"more room, a moment later": {
			topology: n12Topology, pools: n12Pools, allocatable: allocatable("22", "7"),
			pods: []journal.Pod{
				lived(pod("storm-00101", 1, 0, life{}, held(0, "3", "")), -62137, -62000, 0, 0),
				lived(pod("storm-00277", 1, 2, life{}, held(1, "8", "0000:41:00.0", "0000:41:02.3", "0000:41:02.4")), -17070, -17000, 18, 2231),
				lived(pod("storm-00278", 1, 0, life{}, held(0, "4", "")), -11713, -11700, 18, 165),
				lived(pod("storm-00289", 2, 1, life{}, held(1, "9-10", "0000:41:00.0", "0000:41:02.1")), -13427, -13400, -7721, -209),
				lived(pod("storm-00273", 6, 1, life{}, nil), -1, 0, 63, 165),
			},
			victim: refused(lived(withInit(pod("storm-00345", 1, 1, life{}, nil), 3), 0, 0, 0, 0), 1264),
			want:   Outrun, why: "storm-00278",
		},
		// The same, had storm-00278 been about to go when storm-00345 was bound.
		"more room was to be expected": {
			topology: n12Topology, pools: n12Pools, allocatable: allocatable("22", "7"),
			pods: []journal.Pod{
				lived(pod("storm-00101", 1, 0, life{}, held(0, "3", "")), -62137, -62000, 0, 0),
				lived(pod("storm-00278", 1, 0, life{}, held(0, "4", "")), -11713, -11700, -18, 165),
			},
			victim: refused(lived(withInit(pod("storm-00345", 1, 1, life{}, nil), 3), 0, 0, 0, 0), 1264),
			want:   Refused, why: "may be gone",
		},
		// storm-02302 on n14, seed 402. Its binding and that of storm-02224 were made
		// 10 ms and 0 ms after the end of storm-02300, which had its VF on NUMA node
		// 0. With that VF taken, storm-02224 goes to NUMA node 2 and storm-02302 to
		// NUMA node 0; without, the one takes both VFs of NUMA node 0 and the other's
		// init container the CPUs there.
		"more room, a moment before it was bound": {
			topology: n14Topology, pools: n14Pools, allocatable: allocatable("24", "6"),
			pods: []journal.Pod{
				lived(pod("storm-01881", 4, 2, life{}, held(2, "17-20", "0000:21:00.0", "0000:21:02.0", "0000:21:02.1")), -100000, -99000, 0, 0),
				lived(pod("storm-01926", 2, 2, life{}, held(2, "21-22", "0000:21:00.0", "0000:21:02.2", "0000:21:02.3")), -40709, -40278, 0, -259),
				lived(pod("storm-01926's second container", 2, 1, life{}, held(0, "4,8", "0000:41:00.0", "0000:41:02.1")), -40709, -40278, 0, -259),
				lived(pod("storm-02031", 1, 0, life{}, held(0, "1-3", "")), -76137, -75900, 0, 0),
				lived(pod("storm-02224", 0, 2, life{}, nil), -10, 0, 0, 0),
				lived(pod("storm-02300", 0, 1, life{}, held(0, "", "0000:41:00.0", "0000:41:02.0")), -12241, -11788, 0, -10),
			},
			victim: refused(lived(withInit(pod("storm-02302", 1, 1, life{}, nil), 4), 0, 0, 0, 0), 360),
			want:   Outrun, why: "storm-02300 (an end within 1s before the binding",
		},
		// The same, had its end been seen for long.
		"more room that was known": {
			topology: n14Topology, pools: n14Pools, allocatable: allocatable("24", "6"),
			pods: []journal.Pod{
				lived(pod("storm-01881", 4, 2, life{}, held(2, "17-20", "0000:21:00.0", "0000:21:02.0", "0000:21:02.1")), -100000, -99000, 0, 0),
				lived(pod("storm-02031", 1, 0, life{}, held(0, "1-3", "")), -76137, -75900, 0, 0),
				lived(pod("storm-02224", 0, 2, life{}, nil), -10, 0, 0, 0),
				lived(pod("storm-02300", 0, 1, life{}, held(0, "", "0000:41:00.0", "0000:41:02.0")), -12241, -11788, 0, -1010),
			},
			victim: refused(lived(withInit(pod("storm-02302", 1, 1, life{}, nil), 4), 0, 0, 0, 0), 360),
			want:   Refused, why: "should not have been bound",
		},
		// The same, had it been announced.
		"more room that had been announced": {
			topology: n14Topology, pools: n14Pools, allocatable: allocatable("24", "6"),
			pods: []journal.Pod{
				lived(pod("storm-01881", 4, 2, life{}, held(2, "17-20", "0000:21:00.0", "0000:21:02.0", "0000:21:02.1")), -100000, -99000, 0, 0),
				lived(pod("storm-02031", 1, 0, life{}, held(0, "1-3", "")), -76137, -75900, 0, 0),
				lived(pod("storm-02224", 0, 2, life{}, nil), -10, 0, 0, 0),
				lived(pod("storm-02300", 0, 1, life{}, held(0, "", "0000:41:00.0", "0000:41:02.0")), -12241, -11788, -5010, -10),
			},
			victim: refused(lived(withInit(pod("storm-02302", 1, 1, life{}, nil), 4), 0, 0, 0, 0), 360),
			want:   Refused, why: "should not have been bound",
		},
		// The same as the first, had nothing ended.
		"no more room": {
			topology: n12Topology, pools: n12Pools, allocatable: allocatable("22", "7"),
			pods: []journal.Pod{
				lived(pod("storm-00101", 1, 0, life{}, held(0, "3", "")), -62137, -62000, 0, 0),
				lived(pod("storm-00278", 1, 0, life{}, held(0, "4", "")), -11713, -11700, 0, 0),
				lived(pod("storm-00289", 2, 1, life{}, held(1, "9-10", "0000:41:00.0", "0000:41:02.1")), -13427, -13400, -7721, -209),
			},
			victim: refused(lived(withInit(pod("storm-00345", 1, 1, life{}, nil), 3), 0, 0, 0, 0), 1264),
			want:   Refused, why: "the answer is yes",
		},
		// storm-00153 on n03, seed 21: the kubelet was killed, storm-00065 was deleted
		// by force while it was down, the plugin registered with the new one, the
		// pod was bound, and was in the first batch that this one met, 515 ms later.
		"in a new kubelet's first batch": {
			topology: n03Topology, pools: n03Pools, allocatable: allocatable("6", "5"),
			pods: []journal.Pod{
				lived(pod("storm-00042", 1, 3, life{}, held(1, "2", "0000:41:00.0", "0000:41:02.0", "0000:41:02.1", "0000:41:02.2")), -14000, -13200, 0, 0),
				lived(pod("storm-00065", 0, 2, life{}, held(1, "", "0000:41:00.0", "0000:41:02.3", "0000:41:02.4")), -10523, -10352, -1724, -1706),
			},
			outages: []journal.Outage{{What: "kubelet", From: ms(-3517).At, To: ms(515).At}},
			victim:  refused(lived(pod("storm-00153", 0, 2, life{}, nil), 0, 0, 0, 0), 10687),
			want:    Lost, why: "kubelet was down or not up yet",
		},
		// The same, had the node said that its kubelet is away.
		"bound to a node that was away": {
			topology: strings.Replace(n03Topology, `"kubelet":{`, `"away":true,"kubelet":{`, 1), pools: n03Pools, allocatable: allocatable("6", "5"),
			outages: []journal.Outage{{What: "kubelet", From: ms(-3517).At, To: ms(515).At}},
			victim:  refused(lived(pod("storm-00153", 0, 2, life{}, nil), 0, 0, 0, 0), 10687),
			want:    Refused, why: "kubelet was away",
		},
		// The same, had it been bound after that batch: then a pod that has gone
		// is no excuse.
		"after a new kubelet's first batch": {
			topology: n03Topology, pools: n03Pools, allocatable: allocatable("6", "5"),
			pods: []journal.Pod{
				lived(pod("storm-00042", 1, 3, life{}, held(1, "2", "0000:41:00.0", "0000:41:02.0", "0000:41:02.1", "0000:41:02.2")), -14000, -13200, 0, 0),
				lived(pod("storm-00065", 0, 2, life{}, held(1, "", "0000:41:00.0", "0000:41:02.3", "0000:41:02.4")), -10523, -10352, -1724, -1706),
			},
			outages: []journal.Outage{{What: "kubelet", From: ms(-3517).At, To: ms(-10).At}},
			victim:  refused(lived(pod("storm-00153", 0, 2, life{}, nil), 0, 0, 0, 0), 10687),
			want:    Refused, why: "had gone a moment before it was bound, and with them still there it may be refused: storm-00065",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			node := journal.Node{Name: "n", Published: []journal.Publication{{Moment: ms(-100_000), Topology: tt.topology, Pools: tt.pools, Allocatable: tt.allocatable}}}
			c := journal.Case{Node: node, Pods: append(tt.pods, tt.victim), Outages: tt.outages}
			got := Of(&c, &tt.victim)
			if got.Class != tt.want || !strings.Contains(got.Why, tt.why) {
				t.Errorf("%s (%s), want %s (%s)\n%s", got.Class, got.Why, tt.want, tt.why, fmt.Sprint(strings.Join(got.Replays, "\n")))
			}
		})
	}
}
