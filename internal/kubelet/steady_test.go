package kubelet

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/numalane/numalane/pkg/topology"
)

// TestSteady: what is seen for a moment is not told, what stays is.
func TestSteady(t *testing.T) {
	const long = 500 * time.Millisecond
	unowned := func(uids ...string) (out []topology.Allocation) {
		for _, uid := range uids {
			out = append(out, topology.Allocation{UID: uid})
		}
		return out
	}
	account := func(free uint64, with ...int) []topology.MemoryAccount {
		return []topology.MemoryAccount{{NUMANode: 1, With: with, Free: map[string]uint64{"memory": free}}}
	}
	looks := []struct {
		name string
		at   time.Duration
		sees topology.NodePools
		told topology.NodePools
		wait time.Duration
	}{
		{"nothing", 0, topology.NodePools{}, topology.NodePools{}, 0},
		{
			"all of it, new", 100 * time.Millisecond,
			topology.NodePools{Leaked: topology.NewCPUSet(1, 2), Unowned: unowned("a"), Memory: account(5, 1)},
			topology.NodePools{},
			long,
		},
		{
			"some of it again, and more", 400 * time.Millisecond,
			topology.NodePools{Leaked: topology.NewCPUSet(2, 3), Unowned: unowned("a", "b")},
			topology.NodePools{},
			200 * time.Millisecond,
		},
		{
			"what has stayed", 600 * time.Millisecond,
			topology.NodePools{Leaked: topology.NewCPUSet(1, 2, 3), Unowned: unowned("a", "b"), Memory: account(5, 1)},
			topology.NodePools{Leaked: topology.NewCPUSet(2), Unowned: unowned("a")},
			300 * time.Millisecond,
		},
		{
			"memory that spans NUMA nodes, at once", 700 * time.Millisecond,
			topology.NodePools{Memory: account(7, 0, 1)},
			topology.NodePools{Memory: account(7, 0, 1)},
			0,
		},
	}
	var s steady
	began := time.Now()
	for _, l := range looks {
		wait := s.hold(&l.sees, began.Add(l.at), long)
		if len(l.sees.Unowned) == 0 {
			l.sees.Unowned = nil
		}
		if len(l.sees.Memory) == 0 {
			l.sees.Memory = nil
		}
		if diff := cmp.Diff(l.told, l.sees); diff != "" {
			t.Errorf("%s (-want +got):\n%s", l.name, diff)
		}
		if wait != l.wait {
			t.Errorf("%s: look again after %s, want %s", l.name, wait, l.wait)
		}
	}
	at := topology.NodePools{Leaked: topology.NewCPUSet(9)}
	if wait := (&steady{}).hold(&at, began, 0); wait != 0 || !at.Leaked.Equals(topology.NewCPUSet(9).CPUSet) {
		t.Errorf("of a kubelet that is still: %s, %s", at.Leaked, wait)
	}
}
