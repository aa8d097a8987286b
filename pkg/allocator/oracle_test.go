package allocator_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"

	"github.com/numalane/numalane/pkg/allocator"
	"github.com/numalane/numalane/pkg/topology"
)

// TestOracleFound replays what the oracle (e2e/oracle) found that was not
// foretold: the row that it prints goes here. want is the kubelet's reason,
// empty for an admission; holds is what the pod then held.
func TestOracleFound(t *testing.T) {
	for _, tt := range []struct{ name, state, pod, want, holds string }{
		{
			name:  "1.35 counts what DRA serves",
			state: `{"Topology":{"version":1,"kubelet":{"minor":35,"featureGates":["DRAExtendedResource"],"topologyPolicy":"single-numa-node","topologyScope":"container","cpuPolicy":"none","memoryPolicy":"None"},"numaNodes":[{"id":0,"cores":[{"socket":0,"cache":0,"cpus":["0,20","1,21","2,22","3,23","4,24","5,25","6,26","7,27","8,28","9,29"]}],"distances":{"0":10,"1":21}},{"id":1,"cores":[{"socket":1,"cache":1,"cpus":["10,30","11,31","12,32","13,33","14,34","15,35","16,36","17,37","18,38","19,39"]}],"distances":{"0":21,"1":10}}]},"Pools":{"version":1,"pools":[{"resource":"numalane.io/vf0","allocationPolicy":"packed","groups":[{"pf":"0000:18:00.0","total":1,"healthy":1,"free":1}]}]},"Held":null,"Totals":{"Allocatable":{"cpu":1000000,"ephemeral-storage":10995116277760,"hugepages-1Gi":1099511627776,"hugepages-2Mi":1099511627776,"memory":10995116277760,"numalane.io/vf0":1,"pods":1000},"Requested":{}}}`,
			pod:   `{"metadata":{"name":"pod-11","namespace":"default","uid":"uid-11"},"spec":{"containers":[{"name":"app0","image":"none","resources":{"limits":{"numalane.io/vf0":"1"},"requests":{"numalane.io/vf0":"1"}}},{"name":"app1","image":"none","resources":{"limits":{"numalane.io/vf0":"1"},"requests":{"numalane.io/vf0":"1"}}}]},"status":{"extendedResourceClaimStatus":{"requestMappings":[{"containerName":"app1","resourceName":"numalane.io/vf0","requestName":"request-0"}],"resourceClaimName":"pod-11-claim"}}}`,
			want:  "OutOfnumalane.io/vf0",
		},
		{
			name:  "another vendor's plugin may prefer any device",
			state: `{"Topology":{"version":1,"kubelet":{"minor":34,"topologyPolicy":"best-effort","topologyScope":"container","cpuPolicy":"none","memoryPolicy":"None"},"numaNodes":[{"id":0,"cores":[{"socket":0,"cache":0,"cpus":["0","1","2"]}],"distances":{"0":10}}]},"Pools":{"version":1,"pools":[{"resource":"vendor.example/dev1","foreign":true,"groups":[{"total":1,"healthy":1,"free":1},{"numaNodes":[2],"total":1,"healthy":1,"free":1}]}]},"Held":null,"Totals":{"Allocatable":{"cpu":1000000,"ephemeral-storage":10995116277760,"hugepages-1Gi":1099511627776,"hugepages-2Mi":1099511627776,"memory":10995116277760,"pods":1000,"vendor.example/dev1":2},"Requested":{}}}`,
			pod:   `{"metadata":{"name":"pod-15","namespace":"default","uid":"uid-15"},"spec":{"initContainers":[{"name":"init1","image":"none","resources":{"limits":{"vendor.example/dev1":"1"},"requests":{"vendor.example/dev1":"1"}}}],"containers":[{"name":"app0","image":"none","resources":{}}]},"status":{}}`,
			holds: `{"version":1,"uid":"uid-15","containers":[{"name":"init1","devices":[{"resource":"vendor.example/dev1","ids":["dev1-4"]}]}]}`,
		},
		{
			name:  "hugepages of a size that the node has not",
			state: `{"Topology":{"version":1,"kubelet":{"minor":37,"featureGates":["DRAExtendedResource"],"topologyPolicy":"restricted","topologyScope":"container","cpuPolicy":"none","memoryPolicy":"None"},"numaNodes":[{"id":0,"cores":[{"socket":0,"cache":0,"cpus":["0","1","2"]}],"distances":{"0":10}}]},"Pools":{"version":1,"pools":null},"Held":null,"Totals":{"Allocatable":{"cpu":1000000,"ephemeral-storage":10995116277760,"hugepages-1Gi":1099511627776,"hugepages-2Mi":1099511627776,"memory":10995116277760,"pods":1000},"Requested":{}}}`,
			pod:   `{"metadata":{"name":"pod-6","namespace":"default","uid":"uid-6"},"spec":{"containers":[{"name":"app0","image":"none","resources":{"limits":{"hugepages-32Mi":"1"},"requests":{"hugepages-32Mi":"1"}}}]},"status":{}}`,
			want:  "OutOfhugepages-32Mi",
		},
		{
			name:  "1.34 leaves to DRA what the node does not list",
			state: `{"Topology":{"version":1,"kubelet":{"minor":34,"featureGates":["DRAExtendedResource"],"topologyPolicy":"restricted","topologyScope":"container","cpuPolicy":"none","memoryPolicy":"None"},"numaNodes":[{"id":0,"cores":[{"socket":0,"cache":0,"cpus":["0","1","2"]}],"distances":{"0":10}}]},"Pools":{"version":1,"pools":null},"Held":null,"Totals":{"Allocatable":{"cpu":1000000,"ephemeral-storage":10995116277760,"hugepages-1Gi":1099511627776,"hugepages-2Mi":1099511627776,"memory":10995116277760,"pods":1000},"Requested":{}}}`,
			pod:   `{"metadata":{"name":"pod-6","namespace":"default","uid":"uid-6"},"spec":{"containers":[{"name":"app0","image":"none","resources":{"limits":{"hugepages-32Mi":"1"},"requests":{"hugepages-32Mi":"1"}}}]},"status":{}}`,
		},
		{
			name:  "1.34 looks for room for no memory",
			state: `{"Topology":{"version":1,"kubelet":{"minor":34,"topologyPolicy":"single-numa-node","topologyScope":"container","cpuPolicy":"none","memoryPolicy":"Static"},"numaNodes":[{"id":0,"cores":[{"socket":0,"cache":0,"cpus":["0"]}],"distances":{"0":10,"1":21},"memory":[{"type":"hugepages-1Gi","allocatable":0,"reserved":0},{"type":"hugepages-2Mi","allocatable":0,"reserved":0},{"type":"memory","allocatable":9252773888,"reserved":420827136}]},{"id":1,"cores":[{"socket":1,"cache":1,"cpus":["1","2","3","4","5","6","7","8","9"]}],"distances":{"0":21,"1":10},"memory":[{"type":"hugepages-1Gi","allocatable":0,"reserved":0},{"type":"hugepages-2Mi","allocatable":0,"reserved":0},{"type":"memory","allocatable":3846254592,"reserved":448790528}]}]},"Pools":{"version":1,"pools":null},"Held":null}`,
			pod:   `{"metadata":{"name":"pod-2","namespace":"default","uid":"uid-2"},"spec":{"containers":[{"name":"app3","image":"none","resources":{}}]},"status":{"qosClass":"Guaranteed"}}`,
			want:  "UnexpectedAdmissionError",
		},
		{
			name:  "unhealthy devices that pods hold count for pods with devices alone",
			state: `{"Topology":{"version":1,"kubelet":{"minor":35,"featureGates":["DRAExtendedResource"],"topologyPolicy":"best-effort","topologyScope":"container","cpuPolicy":"none","memoryPolicy":"None"},"numaNodes":[{"id":0,"cores":[{"socket":0,"cache":0,"cpus":["0","1"]}],"distances":{"0":10}}]},"Pools":{"version":1,"pools":[{"resource":"numalane.io/vf2","allocationPolicy":"packed","groups":[{"numaNodes":[0],"pf":"0000:18:00.0","total":1,"healthy":0,"free":0,"unhealthy":["0000:18:00.2"]}]}]},"Held":[{"version":1,"uid":"uid-3","containers":[{"name":"app0","devices":[{"resource":"numalane.io/vf2","numaNodes":[0],"pf":"0000:18:00.0","ids":["0000:18:00.2"]}]}]}],"Totals":{"Allocatable":{"cpu":1000000,"ephemeral-storage":10995116277760,"memory":10995116277760,"numalane.io/vf2":0,"pods":1000},"Requested":{"numalane.io/vf2":1,"pods":1}}}`,
			pod:   `{"metadata":{"name":"pod-19","namespace":"default","uid":"uid-19"},"spec":{"containers":[{"name":"app0","image":"none","resources":{"limits":{"numalane.io/vf2":"1"},"requests":{"numalane.io/vf2":"1"}}}]},"status":{"extendedResourceClaimStatus":{"requestMappings":[{"containerName":"app0","resourceName":"numalane.io/vf2","requestName":"request-0"}],"resourceClaimName":"pod-19-claim"}}}`,
		},
		{
			name:  "a NUMA node that lies in two sockets comes twice",
			state: `{"Topology":{"version":1,"kubelet":{"minor":34,"topologyPolicy":"restricted","topologyScope":"pod","cpuPolicy":"static","cpuOpts":{"distribute-cpus-across-numa":"true"},"memoryPolicy":"None"},"numaNodes":[{"id":0,"cores":[{"socket":0,"cache":0,"cpus":["0,19","1,20","2,21","3,22"]}],"distances":{"0":10,"1":21,"2":12,"3":21}},{"id":1,"cores":[{"socket":1,"cache":1,"cpus":["4,23","24"]},{"socket":100,"cache":1,"cpus":["5","6,25","7,26","8,27"]}],"reserved":"5,24","distances":{"0":21,"1":10,"2":21,"3":12}},{"id":2,"cores":[{"socket":0,"cache":2,"cpus":["9","10,29","11,30","12,31","13,32"]},{"socket":100,"cache":2,"cpus":["28"]}],"distances":{"0":12,"1":21,"2":10,"3":21}},{"id":3,"cores":[{"socket":1,"cache":1,"cpus":["14,33","15,34","16,35","17,36","18,37"]}],"distances":{"0":21,"1":12,"2":21,"3":10}}]},"Pools":{"version":1,"pools":null},"Held":[{"version":1,"uid":"uid-11","containers":[{"name":"app0","cpus":{"1":"4"}},{"name":"init0","cpus":{"0":"0-2,19-20","1":"4,6-7,23,25-26"}}]}],"Totals":{"Allocatable":{"cpu":1000000,"ephemeral-storage":10995116277760,"hugepages-1Gi":1099511627776,"hugepages-2Mi":1099511627776,"memory":10995116277760,"pods":1000},"Requested":{"cpu":11000,"memory":1,"pods":1}}}`,
			pod:   `{"metadata":{"name":"pod-12","namespace":"default","uid":"uid-12"},"spec":{"containers":[{"name":"app0","image":"none","resources":{"limits":{"cpu":"11"},"requests":{"cpu":"11"}}}]},"status":{"qosClass":"Guaranteed"}}`,
			holds: `{"version":1,"uid":"uid-12","containers":[{"name":"app0","cpus":{"0":"21","2":"9-13,28-32"}}]}`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var state topology.NodeState
			var pod v1.Pod
			var holds topology.Allocation
			decode(t, tt.state, &state)
			decode(t, tt.pod, &pod)
			if tt.holds != "" {
				decode(t, tt.holds, &holds)
			}
			n, err := allocator.Compile(&state)
			if err != nil {
				t.Fatal(err)
			}
			outcomes, complete := n.Outcomes(allocator.NewRequest(&pod), 1000)
			if !complete {
				t.Fatal("too many outcomes")
			}
			var diffs []string
			for i := range outcomes {
				o := &outcomes[i]
				diff := cmp.Diff(tt.want, o.Verdict.KubeletReason())
				if diff == "" && tt.holds != "" {
					diff = cmp.Diff(allocator.LandingsOf(&holds), held(o.Containers))
				}
				if diff == "" {
					return
				}
				diffs = append(diffs, diff)
			}
			t.Errorf("none of %d outcomes (-kubelet +foretold):\n%s", len(diffs), slices.Compact(diffs))
		})
	}
}

func decode(t *testing.T, text string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		t.Fatal(err)
	}
}

// held leaves out the containers that hold nothing, and sorts the others.
func held(all []allocator.Landing) []allocator.Landing {
	holders := slices.DeleteFunc(slices.Clone(all), func(l allocator.Landing) bool {
		return l.CPUs.IsEmpty() && len(l.Memory) == 0 && len(l.Devices) == 0
	})
	slices.SortFunc(holders, func(a, b allocator.Landing) int { return strings.Compare(a.Container, b.Container) })
	return holders
}
