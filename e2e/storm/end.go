package storm

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/numalane/numalane/e2e/cluster"
	"github.com/numalane/numalane/e2e/storm/fleet"
	"github.com/numalane/numalane/e2e/storm/load"
	"github.com/numalane/numalane/e2e/storm/packing"
	"github.com/numalane/numalane/pkg/allocator"
)

// end looks at what the storm left, and fills the cluster once more.
func (s *Storm) end(ctx context.Context, t *Tally) error {
	s.say("the storm held %.0f%% of the VFs and %.0f%% of the exclusive CPUs in the mean", 100*s.sampler.mean(fleet.VF), 100*s.sampler.mean(cpu))
	logs, self, err := s.bulk()
	if err != nil {
		return err
	}
	s.say("the logs have come to %d MiB, this process to %d MiB", logs>>20, self>>20)
	for _, m := range s.members {
		if err := m.Ready(ctx); err != nil {
			return err
		}
	}
	if err := s.settle(ctx, t, "after the load"); err != nil {
		return err
	}
	if err := s.fill(ctx, t); err != nil {
		return err
	}
	return s.metrics(ctx, t)
}

// settle waits for quiet and counts what is stuck.
func (s *Storm) settle(ctx context.Context, t *Tally, when string) error {
	sc, stuck, err := s.calm(ctx)
	for _, text := range stuck {
		fmt.Fprintln(s.Err, "stuck:", text)
	}
	t.Stuck += len(stuck)
	if sc != nil {
		s.say("%s: it is quiet, %d pods wait without a place, %d are stuck", when, len(sc.waiting), len(stuck))
	}
	return err
}

// fill makes room, creates a known load of more than fits, and holds what comes
// to be held against what an exhaustive search could reach.
func (s *Storm) fill(ctx context.Context, t *Tally) error {
	if err := s.makeRoom(ctx); err != nil {
		return err
	}
	sc, _, err := s.calm(ctx)
	if err != nil {
		return fmt.Errorf("before the fill act: %w", err)
	}
	total, before, err := s.held(ctx)
	if err != nil {
		return err
	}
	kinds := load.Fill(total - before)
	var nodes []*allocator.Node
	for name, st := range sc.nodes {
		if st.err != nil {
			return fmt.Errorf("node %s: %w", name, st.err)
		}
		nodes = append(nodes, st.node)
	}
	began := time.Now()
	best := packing.Most(nodes, load.Kinds(kinds))
	s.say("an exhaustive search over %d mixes (%.1f s) places %v of %s", best.Mixes, time.Since(began).Seconds(), best.Counts, load.Describe(kinds))
	if best.Cut {
		s.say("the search was cut short: what it reaches is a lower bound")
	}
	if err := load.CreateFill(ctx, s.client, kinds); err != nil {
		return err
	}
	if err := s.settle(ctx, t, "the fill act"); err != nil {
		return err
	}
	_, after, err := s.held(ctx)
	if err != nil {
		return err
	}
	t.Occupancy, t.Best, t.OccupancyKnown = float64(after)/float64(total), float64(before+best.Value)/float64(total), true
	s.say("of %d VFs %d were held before the fill act and %d after it (%.1f%%); an exhaustive search reaches %d (%.1f%%)",
		total, before, after, 100*t.Occupancy, before+best.Value, 100*t.Best)
	return nil
}

// makeRoom deletes the StatefulSets, what waits and half of what runs, so that
// there are holes everywhere.
func (s *Storm) makeRoom(ctx context.Context) error {
	if err := load.DeleteSets(ctx, s.client); err != nil {
		return err
	}
	dice, none := s.dice(4), int64(0)
	doomed := map[types.UID]bool{}
	for _, p := range s.journal.Live() {
		if p.Node == "" || p.Spec.OwnerReferences != nil || dice.IntN(2) == 0 {
			doomed[p.UID] = true
			err := s.client.CoreV1().Pods(load.Namespace).Delete(ctx, p.Name, metav1.DeleteOptions{GracePeriodSeconds: &none})
			if err != nil && !apierrors.IsNotFound(err) {
				return fmt.Errorf("make room: %w", err)
			}
		}
	}
	return cluster.Wait(ctx, time.Minute, "the deleted pods to go", func(context.Context) error {
		for _, p := range s.journal.Live() {
			if doomed[p.UID] {
				return fmt.Errorf("pod %s is there", p.Name)
			}
		}
		return nil
	})
}

// held counts the VFs, and those that pods hold, by the kubelets' account.
func (s *Storm) held(ctx context.Context) (total, held int, err error) {
	for _, m := range s.members {
		if err := s.sampler.look(ctx, m); err != nil {
			return 0, 0, err
		}
	}
	total, held = s.sampler.total(fleet.VF), s.sampler.held(fleet.VF)
	return total, held, nil
}
