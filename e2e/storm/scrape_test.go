package storm

import (
	"math"
	"strings"
	"testing"
)

const exposition = `# TYPE numalane_ledger_bind_to_acknowledged_seconds histogram
numalane_ledger_bind_to_acknowledged_seconds_bucket{le="0.1"} 6
numalane_ledger_bind_to_acknowledged_seconds_bucket{le="0.5"} 9
numalane_ledger_bind_to_acknowledged_seconds_bucket{le="+Inf"} 10
numalane_ledger_bind_to_acknowledged_seconds_sum 3
numalane_ledger_bind_to_acknowledged_seconds_count 10
`

func TestQuantile(t *testing.T) {
	f, err := parse(strings.NewReader(exposition))
	if err != nil {
		t.Fatal(err)
	}
	h := collect([]families{f, f, nil}, acknowledged)
	if h.count != 20 {
		t.Errorf("%d observations, want those of both", h.count)
	}
	for q, want := range map[float64]float64{0.5: 0.1, 0.9: 0.5, 0.99: math.Inf(1)} {
		if got := h.quantile(q); got != want {
			t.Errorf("quantile %v: %v, want %v", q, got, want)
		}
	}
}
