package demo

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func outcomes() []Outcome {
	held := func(cpus string, cpuNode int, vf string, vfNodes ...int) []Held {
		return []Held{{CPUs: cpus, CPUNodes: []int{cpuNode}, VFs: []string{vf}, VFNodes: vfNodes}}
	}
	return []Outcome{
		{Pod: "b", Node: "edge-1", Phase: "Running", Held: held("2-3", 0, "0000:3b:02.0", 0)},
		{Pod: "a", Node: "edge-1", Phase: "Running", Held: held("4", 1, "0000:3b:02.1", 0)},
		{Pod: "c", Node: "edge-2", Phase: "Failed", Reason: "TopologyAffinityError"},
		{Pod: "d", Phase: "Pending", Reason: "Unschedulable"},
		{Pod: "e", Node: "edge-2", Phase: "Running"}, // holds nothing: not aligned
	}
}

func TestCount(t *testing.T) {
	if diff := cmp.Diff(Tally{Pods: 5, Refused: 1, Aligned: 1, Pending: 1}, Count(outcomes())); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestWriteOutcomes(t *testing.T) {
	var b strings.Builder
	if err := WriteOutcomes(&b, outcomes()); err != nil {
		t.Fatal(err)
	}
	want := `  NODE    POD  CPUs  NUMA  VFs           NUMA  
  edge-1  a    4     1     0000:3b:02.1  0     ✘ crosses NUMA nodes
          b    2-3   0     0000:3b:02.0  0     ✔ aligned
  -       d  … waits                  Unschedulable
  edge-2  c  ✘ refused by the kubelet  TopologyAffinityError
`
	if diff := cmp.Diff(strings.Fields(want), strings.Fields(b.String())); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestLastLine(t *testing.T) {
	got := LastLine(Tally{Pods: 20, Refused: 9}, Tally{Pods: 20, Aligned: 20})
	want := "demo: plain kube-scheduler: 9 of 20 refused by the kubelet; numalane: 0 of 20 refused, 20 of 20 aligned"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
