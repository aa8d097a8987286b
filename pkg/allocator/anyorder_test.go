package allocator

import (
	"testing"

	"github.com/numalane/numalane/pkg/topology"
)

func TestAdmitInAnyOrder(t *testing.T) {
	// Admission is not monotone: see the doc of AdmitInAnyOrder.
	uneven := machine{cores: []int{4, 3}, vfs: []int{1, 0}}
	even := machine{cores: []int{2, 3}, vfs: []int{1, 0}}
	wide, lane := asks{cpu: "3"}, asks{cpu: "2", vf: 1}
	many := func(n int, a ...asks) (out []asks) {
		for i := range n {
			out = append(out, a[i%len(a)])
		}
		return out
	}
	tests := []struct {
		name    string
		machine machine
		pods    []asks
		want    Reason
	}{
		{"none", uneven, nil, Admitted},
		{"one", uneven, []asks{wide}, Admitted},
		{"one order refuses", uneven, []asks{wide, lane}, NUMAUnaligned},
		{"the same, asked the other way round", uneven, []asks{lane, wide}, NUMAUnaligned},
		{"less room, and every order is fine", even, []asks{wide, lane}, Admitted},
		{"equal pods have one order", machine{cores: []int{32, 32}, vfs: []int{16, 16}}, many(16, asks{cpu: "4", vf: 2}), Admitted},
		{"one too many", machine{cores: []int{4, 4}}, many(3, asks{cpu: "4"}), InsufficientCPU},
		{
			"more outcomes than can be followed",
			machine{cores: []int{64, 64, 64, 64}},
			[]asks{{cpu: "33"}, {cpu: "17"}, {cpu: "31"}, {cpu: "5"}, {cpu: "9"}, {cpu: "13"}, {cpu: "29"}, {cpu: "23"}, {cpu: "7"}},
			InFlux,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := tt.machine
			m.scope = topology.ScopeContainer
			n := compile(t, m.state())
			var rs []*Request
			for _, a := range tt.pods {
				rs = append(rs, NewRequest(podOf(a)))
			}
			if got := n.AdmitInAnyOrder(rs); got.Reason != tt.want {
				t.Errorf("%s, want %s", got.Reason.Code(), tt.want.Code())
			}
		})
	}
}
