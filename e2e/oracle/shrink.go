package oracle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

const (
	// shrinkTime and shrinkTries bound the making small of one mismatch.
	shrinkTime  = 90 * time.Second
	shrinkTries = 1500
	// confirmations is how often a mismatch is tried again that does not show:
	// where the kubelet picks at random it may be one of many ways to go.
	confirmations = 6
)

// shrink replaces a mismatch by the smallest that it finds of the same kind.
func shrink(ctx context.Context, w *worker, m *Mismatch) {
	s := shrinker{ctx: ctx, worker: w, best: m, until: time.Now().Add(shrinkTime)}
	shown := false
	for i := 0; i < confirmations && !shown; i++ {
		shown = s.try(m.Scenario)
	}
	if !shown {
		m.Shrunk = fmt.Sprintf("not shrunk: it did not show again in %d tries", confirmations)
		return
	}
	for smaller := true; smaller && s.able(); {
		smaller = false
		for _, reduce := range reductions() {
			smaller = s.reduce(reduce) || smaller
		}
	}
	*m = *s.best
	m.Shrunk = fmt.Sprintf("shrunk in %d tries to %d steps", s.tries, len(m.Scenario.Steps))
}

type shrinker struct {
	ctx    context.Context
	worker *worker
	best   *Mismatch
	until  time.Time
	tries  int
}

func (s *shrinker) able() bool {
	return s.ctx.Err() == nil && s.tries < shrinkTries && time.Now().Before(s.until)
}

// find lives a scenario and returns its mismatch, with the steps up to it.
func (s *shrinker) find(sc *Scenario) (*Mismatch, error) {
	s.tries++
	watch := &counter{scenario: sc, result: &result{tally: tally{}}}
	todo := script(sc.Steps)
	steps, err := s.worker.live(s.ctx, sc, &todo, len(sc.Steps), watch)
	switch {
	case s.ctx.Err() != nil:
		return nil, s.ctx.Err()
	case err == nil || errors.Is(err, errRefusesToStart):
		return nil, nil
	}
	found := watch.last
	if found == nil {
		found = &Mismatch{Difference: difference{isFault, err.Error()}}
	}
	upTo := *sc
	upTo.Steps = steps
	found.Scenario = &upTo
	return found, nil
}

// try keeps a scenario that shows the same kind of mismatch.
func (s *shrinker) try(sc *Scenario) bool {
	found, err := s.find(sc)
	if err != nil || found == nil || found.Difference.Kind != s.best.Difference.Kind {
		return false
	}
	if found.class() != s.best.class() && (found.Difference.Kind == isFault || found.Difference.Kind == isVerdict) {
		return false
	}
	s.best = found
	return true
}

// reduction makes a scenario smaller in its i-th way. It is false when there
// is no such way.
type reduction func(s *Scenario, i int) bool

// reduce goes through a reduction's ways. One that still shows the mismatch is
// kept, and its number tried again: what was behind it has moved up.
func (s *shrinker) reduce(r reduction) bool {
	any := false
	for i := 0; s.able(); {
		sc := clone(s.best.Scenario)
		if !r(sc, i) {
			break
		}
		if s.try(sc) {
			any = true
		} else {
			i++
		}
	}
	return any
}

func clone(s *Scenario) *Scenario {
	text, err := json.Marshal(s)
	if err != nil {
		panic(err) // it came from JSON, or went there before
	}
	c := &Scenario{}
	if err := json.Unmarshal(text, c); err != nil {
		panic(err)
	}
	return c
}
