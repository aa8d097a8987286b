package kubelet

import (
	"fmt"
	"slices"
	"time"

	"github.com/numalane/numalane/pkg/topology"
)

// steady holds back what a single look may see and what is not so: the kubelet
// writes each step of an admission into its files, one manager and one write
// after the other. Between two writes CPUs are nobody's (cpumanager releases and
// allocates by two writes, state.Delete and SetDefaultCPUSet), memory is
// accounted for and not given (SetMachineState and SetMemoryBlocks), and a pod
// holds something of which the API's watch has not told yet. What is really so
// stays so.
type steady struct {
	seen map[string]time.Time // by what it is, since when
}

// hold takes out of a state what has not been seen for so long. It returns when
// to look again; 0: no need.
func (s *steady) hold(p *topology.NodePools, now time.Time, long time.Duration) time.Duration {
	if long == 0 {
		return 0
	}
	before := s.seen
	s.seen = map[string]time.Time{}
	var wait time.Duration // until the next of them has been seen for long enough
	isNew := func(what string, args ...any) bool {
		key := fmt.Sprintf(what, args...)
		since, known := before[key]
		if !known {
			since = now
		}
		s.seen[key] = since
		left := since.Add(long).Sub(now)
		if left > 0 && (wait == 0 || left < wait) {
			wait = left
		}
		return left > 0
	}
	p.Unowned = slices.DeleteFunc(p.Unowned, func(a topology.Allocation) bool { return isNew("unowned %s", a.UID) })
	leaked := slices.DeleteFunc(p.Leaked.List(), func(cpu int) bool { return isNew("leaked %d", cpu) })
	if p.Leaked = (topology.CPUSet{}); len(leaked) > 0 {
		p.Leaked = topology.NewCPUSet(leaked...)
	}
	// Where memory spans NUMA nodes the account is what counts, from the first moment.
	if !slices.ContainsFunc(p.Memory, func(a topology.MemoryAccount) bool { return len(a.With) > 1 }) && len(p.MemoryElse) == 0 {
		p.Memory = slices.DeleteFunc(p.Memory, func(a topology.MemoryAccount) bool { return isNew("memory %v", a) })
	}
	return wait
}
