package oracle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/resource"

	"github.com/numalane/numalane/e2e/kubelets/wire"
	"github.com/numalane/numalane/pkg/topology"
)

// source says what happens next to a node of which it is told how it is. It is
// false at the end.
type source interface {
	next(now *view) (Step, bool)
}

// view is what a source goes by.
type view struct {
	state   *topology.NodeState
	running []*v1.Pod
}

// script is a source that knows beforehand.
type script []Step

func (s *script) next(*view) (Step, bool) {
	if len(*s) == 0 {
		return Step{}, false
	}
	step := (*s)[0]
	*s = (*s)[1:]
	return step, true
}

// watcher is told what happens in a run. Its methods are called in order.
type watcher interface {
	// stepped is a step that is no admission.
	stepped(step *Step)
	// admitted is one case. The difference is zero when it was foretold.
	admitted(f *foretold, h *happened, d difference)
}

// errMismatch ends a run at a case that was not foretold.
var errMismatch = errors.New("not foretold")

// drive lets the steps happen until the source ends, most admissions have been
// or one is not foretold. It returns the steps, which make up a script.
func (n *node) drive(ctx context.Context, src source, most int, w watcher) (steps []Step, err error) {
	for cases := 0; cases < most; {
		if err := ctx.Err(); err != nil {
			return steps, err
		}
		now, err := n.state(ctx)
		if err != nil {
			return steps, err
		}
		v := &view{state: now.NodeState}
		for _, p := range n.running() {
			v.running = append(v.running, p.Pod)
		}
		step, ok := src.next(v)
		if !ok {
			return steps, nil
		}
		steps = append(steps, step)
		if step.Admit != nil {
			cases++
			err = n.admit(ctx, &step, w)
		} else {
			n.latest = nil
			err = n.happen(ctx, &step)
			w.stepped(&step)
		}
		if err != nil {
			return steps, err
		}
	}
	return steps, nil
}

// admit is one case.
func (n *node) admit(ctx context.Context, step *Step, w watcher) error {
	h := happened{pod: step.Admit}
	var err error
	if h.before, err = n.state(ctx); err != nil {
		return err
	}
	f, errForetell := foretell(h.before.NodeState, step.Admit)
	if h.admission, err = n.bring(step.Admit); err != nil {
		return err
	}
	p := &pod{Pod: step.Admit, runs: h.admission.Admit, static: step.Static && h.admission.Admit}
	if p.runs || !step.Gone && !step.Static {
		n.pods = append(n.pods, p)
	}
	n.latest = nil
	if h.after, err = n.state(ctx); err != nil {
		return err
	}
	var d difference
	if errForetell != nil {
		d = difference{isUncompiled, fmt.Sprintf("the state before it cannot be compiled: %v", errForetell)}
	} else {
		d = compare(&f, &h)
	}
	w.admitted(&f, &h, d)
	if d.Kind != "" {
		return errMismatch
	}
	return nil
}

// bring gives a pod to the kubelet.
func (n *node) bring(p *v1.Pod) (wire.Admission, error) {
	b, err := json.Marshal(p)
	if err != nil {
		return wire.Admission{}, fmt.Errorf("encode pod %s: %w", p.UID, err)
	}
	answer, err := n.managers.Must(wire.Command{Admit: b})
	if err != nil {
		return wire.Admission{}, fmt.Errorf("admit pod %s: %w", p.UID, err)
	}
	if answer.Admission == nil {
		return wire.Admission{}, fmt.Errorf("admit pod %s: the kubelet's process gave no answer", p.UID)
	}
	return *answer.Admission, nil
}

// happen does a step that is no admission.
func (n *node) happen(ctx context.Context, step *Step) error {
	switch {
	case step.End != "":
		return n.end(step.End, step.Gone)
	case step.Health != nil:
		if err := n.tree.setHealth(step.Health); err != nil {
			return err
		}
		return n.advertise()
	default:
		return n.restart(ctx, step)
	}
}

// end ends a pod. One that does not run, as may be after steps were left out,
// has ended already.
func (n *node) end(uid string, gone bool) error {
	i := slices.IndexFunc(n.pods, func(p *pod) bool { return string(p.UID) == uid && p.runs })
	if i < 0 {
		return nil
	}
	n.pods[i].runs = false
	if gone || n.pods[i].static {
		n.pods = slices.Delete(n.pods, i, i+1)
	}
	_, err := n.managers.Must(wire.Command{End: uid})
	return err
}

// restart restarts kubelet and plugins. The running pods are admitted again,
// as a kubelet does that meets its pods anew; one that it refuses ends. What the
// others hold must not have changed.
func (n *node) restart(ctx context.Context, step *Step) error {
	before, err := n.state(ctx)
	if err != nil {
		return err
	}
	if err := n.stopPlugins(); err != nil {
		return err
	}
	if err := n.startKubelet(); err != nil {
		return fmt.Errorf("restart: %w", err)
	}
	if !step.Restart.PodsFirst {
		if err := n.startPlugins(ctx); err != nil {
			return fmt.Errorf("restart: %w", err)
		}
	}
	for _, p := range n.running() {
		admission, err := n.bring(p.Pod)
		if err != nil {
			return fmt.Errorf("restart: %w", err)
		}
		if !admission.Admit {
			if err := n.end(string(p.UID), step.Gone); err != nil {
				return fmt.Errorf("restart: %w", err)
			}
		}
	}
	if step.Restart.PodsFirst {
		if err := n.startPlugins(ctx); err != nil {
			return fmt.Errorf("restart: %w", err)
		}
	}
	n.latest = nil
	after, err := n.state(ctx)
	if err != nil {
		return err
	}
	for _, p := range n.running() {
		if p.static || resource.IsPodLevelResourcesSet(p.Pod) {
			continue // it may be taken for a like one, or is given CPUs and memory anew (cpumanager allocatePodForAdd)
		}
		if uid := string(p.UID); before.held[uid] != after.held[uid] {
			return fmt.Errorf("restart: pod %s held %s and now holds %s", uid, before.held[uid], after.held[uid])
		}
	}
	return nil
}
