package ledger_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"

	"github.com/numalane/numalane/internal/ledger"
	"github.com/numalane/numalane/pkg/allocator"
	"github.com/numalane/numalane/pkg/topology"
)

// TestAnswersOfManyShapes: what a node has said to pods of other shapes, or
// before it changed, is no answer.
func TestAnswersOfManyShapes(t *testing.T) {
	tp, pools := two.state()
	compile := func(moves ...allocator.Move) *allocator.Traffic {
		t.Helper()
		traffic, err := allocator.CompileTraffic(&topology.NodeState{Topology: tp, Pools: pools}, moves)
		if err != nil {
			t.Fatal(err)
		}
		return traffic
	}
	taken := pod("taken", "3", 3)
	inCluster(t, ledger.Policy{}, []runtime.Object{two.node(t, "n1")}, func(t *testing.T, c *cluster) {
		rng := rand.New(rand.NewPCG(1, 0))
		ask := func(truth *allocator.Traffic) (admitted int) {
			t.Helper()
			for range 400 {
				cpus, vf := 1+rng.IntN(9), rng.Int64N(7)
				p := pod(fmt.Sprintf("p-%d", rng.Int()), fmt.Sprint(cpus), vf)
				want := truth.Admit(allocator.NewRequest(p))
				if got := c.admit("n1", p); got != want {
					t.Fatalf("%d CPUs and %d VFs: %+v, want %+v", cpus, vf, got, want)
				}
				if want.OK() {
					admitted++
				}
			}
			return admitted
		}
		free := ask(compile())
		c.put(on("n1", taken))
		// Moments are told apart, and it is the only one.
		full := ask(compile(allocator.Move{Request: allocator.NewRequest(taken), Bound: 1}))
		if free == 0 || full == 0 || full >= free {
			t.Errorf("%d admitted before, %d after", free, full)
		}
	})
}
