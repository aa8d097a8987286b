package storm

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/numalane/numalane/e2e/storm/journal"
	"github.com/numalane/numalane/e2e/storm/judge"
	"github.com/numalane/numalane/e2e/storm/load"
)

// court judges every refusal, once the journal has what came after it.
type court struct {
	s      *Storm
	policy map[string]string // a line about each node
	traces *os.File
	mu     sync.Mutex
	judged map[types.UID]judge.Class
}

const (
	// recess is how long after a refusal it is judged.
	recess = 6 * time.Second
	// keepEnded is how long a pod that has ended stays in the API.
	keepEnded = 4 * time.Second
)

func newCourt(s *Storm) *court {
	c := &court{s: s, policy: map[string]string{}, judged: map[types.UID]judge.Class{}}
	for _, m := range s.members {
		c.policy[m.Name] = m.Describe()
	}
	return c
}

// Traces is the file of the traces.
func (s *Storm) Traces() string { return filepath.Join(s.Keep, fmt.Sprintf("traces-%d.log", s.Seed)) }

func (c *court) run(ctx context.Context) error {
	var err error
	if c.traces, err = os.Create(c.s.Traces()); err != nil {
		return fmt.Errorf("traces: %w", err)
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return c.sit(0)
		case <-tick.C:
		}
		if err := c.sit(recess); err != nil {
			return err
		}
		load.Clear(ctx, c.s.client, c.s.journal.Pods(), keepEnded)
	}
}

// sit judges what is old enough.
func (c *court) sit(old time.Duration) error {
	for _, p := range c.s.journal.Pods() {
		if !p.Refused() || time.Since(p.Ended.At) < old {
			continue
		}
		c.mu.Lock()
		_, done := c.judged[p.UID]
		c.mu.Unlock()
		if done {
			continue
		}
		if err := c.judge(&p); err != nil {
			return err
		}
	}
	return nil
}

func (c *court) judge(p *journal.Pod) error {
	on := c.s.journal.On(p.Node)
	v := judge.Of(&on, p)
	c.mu.Lock()
	c.judged[p.UID] = v.Class
	c.mu.Unlock()
	if v.Class != judge.Lost && !p.Foreign && c.s.Extender {
		fmt.Fprintln(c.s.Err, judge.Short(p, &v))
	}
	judge.Trace(c.traces, &on, p, &v, c.policy[p.Node])
	if v.Class == judge.Lost {
		return nil
	}
	return c.s.said(c.traces, p)
}

func (c *court) count(t *Tally) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t.Refused, t.Lost, t.Foreign, t.Outrun, t.Behind = 0, 0, 0, 0, 0
	for _, class := range c.judged {
		switch class {
		case judge.Refused:
			t.Refused++
		case judge.Lost:
			t.Lost++
		case judge.Foreign:
			t.Foreign++
		case judge.Outrun:
			t.Outrun++
		case judge.Behind:
			t.Behind++
		}
	}
}

func (c *court) close() error {
	if c.traces == nil {
		return nil
	}
	return c.traces.Close()
}
