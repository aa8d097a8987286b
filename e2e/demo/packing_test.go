package demo

import "testing"

func TestMost(t *testing.T) {
	large, small := Shape{"large", 4, 2}, Shape{"small", 2, 1}
	tests := []struct {
		name  string
		lanes []Lane
		want  int
	}{
		{"nothing", nil, 0},
		{"CPUs and VFs that never meet", []Lane{{CPUs: 8}, {VFs: 8}}, 0},
		{"one large, one small", []Lane{{CPUs: 6, VFs: 3}}, 2},
		{"a small one alone does not begin the turn", []Lane{{CPUs: 2, VFs: 1}}, 0},
		{"large and small on lanes of their own", []Lane{{CPUs: 4, VFs: 2}, {CPUs: 3, VFs: 1}}, 2},
		{"VFs are the limit", []Lane{{CPUs: 64, VFs: 7}}, 4},
		{"two lanes that waste a CPU each", []Lane{{CPUs: 5, VFs: 9}, {CPUs: 5, VFs: 9}}, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, looked := Most(tt.lanes, []Shape{large, small})
			if got != tt.want {
				t.Errorf("%d pods, want %d (%d mixes looked at)", got, tt.want, looked)
			}
		})
	}
}
