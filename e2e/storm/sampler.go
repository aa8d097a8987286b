package storm

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/numalane/numalane/e2e/storm/fleet"
	"github.com/numalane/numalane/e2e/storm/holdings"
	"github.com/numalane/numalane/e2e/storm/journal"
)

// sampler asks one kubelet after the other what its pods hold.
type sampler struct {
	members []*fleet.Member
	journal *journal.Journal

	mu         sync.Mutex
	seen       map[string]map[corev1.ResourceName]int // by node
	double     map[holdings.Finding]time.Time
	misaligned map[holdings.Finding]time.Time
	sums       map[corev1.ResourceName]float64 // of the shares at the end of each round
	rounds     int
}

// cpu stands for exclusive CPUs.
const cpu = corev1.ResourceCPU

// lookEvery is the pause between two kubelets.
const lookEvery = 100 * time.Millisecond

func newSampler(members []*fleet.Member, j *journal.Journal) *sampler {
	return &sampler{
		members: members, journal: j, seen: map[string]map[corev1.ResourceName]int{}, sums: map[corev1.ResourceName]float64{},
		double: map[holdings.Finding]time.Time{}, misaligned: map[holdings.Finding]time.Time{},
	}
}

func (s *sampler) run(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		// A kubelet that is down does not answer, and is asked in the next round.
		_ = s.look(ctx, s.members[i%len(s.members)])
		if i%len(s.members) == 0 {
			vfs, cpus := s.share(fleet.VF), s.share(cpu)
			s.mu.Lock()
			s.sums[fleet.VF] += vfs
			s.sums[cpu] += cpus
			s.rounds++
			s.mu.Unlock()
		}
	}
}

func (s *sampler) look(ctx context.Context, m *fleet.Member) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	uids := map[string][]string{}
	for _, p := range s.journal.Live() {
		if p.Node == m.Name {
			uids[p.Name] = append(uids[p.Name], string(p.UID))
		}
	}
	l, err := holdings.At(ctx, m, func(name string) string {
		if len(uids[name]) == 1 {
			return uids[name][0]
		}
		return ""
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen[m.Name] = l.Held
	note := func(all map[holdings.Finding]time.Time, found []holdings.Finding, kind string) {
		for _, f := range found {
			if _, known := all[f]; !known {
				all[f] = time.Now()
				s.journal.Note(m.Name, kind+": "+f.Text)
			}
		}
	}
	note(s.double, l.Findings.Double, "double-booked")
	note(s.misaligned, l.Findings.Misaligned, "misaligned")
	return nil
}

// held is how much of a resource pods hold, as last seen.
func (s *sampler) held(name corev1.ResourceName) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, m := range s.members {
		n += s.seen[m.Name][name]
	}
	return n
}

// total is how much of it there is to hold.
func (s *sampler) total(name corev1.ResourceName) int {
	n := 0
	for _, m := range s.members {
		if name == cpu {
			n += m.CPUs
		} else {
			n += int(m.VFs[name])
		}
	}
	return n
}

func (s *sampler) share(name corev1.ResourceName) float64 {
	return float64(s.held(name)) / float64(s.total(name))
}

// mean is the mean share since the start.
func (s *sampler) mean(name corev1.ResourceName) float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sums[name] / float64(max(s.rounds, 1))
}

func (s *sampler) count(t *Tally) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t.Double, t.Misaligned = len(s.double), len(s.misaligned)
}

// findings are all that must not be, for people.
func (s *sampler) findings() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for f, at := range s.double {
		out = append(out, "double-booked, seen "+at.Format("15:04:05.000")+" on "+f.Node+": "+f.Text)
	}
	for f, at := range s.misaligned {
		out = append(out, "misaligned, seen "+at.Format("15:04:05.000")+" on "+f.Node+": pod "+f.Pods+" "+f.Text)
	}
	return out
}
