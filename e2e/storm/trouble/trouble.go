// Package trouble kills what a cluster is made of, and starts it again.
package trouble

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/numalane/numalane/e2e/cluster"
	"github.com/numalane/numalane/e2e/storm/fleet"
	"github.com/numalane/numalane/e2e/storm/journal"
)

// Maker makes trouble. Set all of it; Extender may be nil.
type Maker struct {
	Members   []*fleet.Member
	APIServer *cluster.Process
	Extender  *cluster.Process
	Scheduler *cluster.Process
	Journal   *journal.Journal
	Dice      *rand.Rand

	done  atomic.Int64
	busy  sync.Map // what is being killed or started
	wg    sync.WaitGroup
	mu    sync.Mutex
	fails []error

	crashes []string
}

// Done is how many kills and cuts there were.
func (m *Maker) Done() int { return int(m.done.Load()) }

// kind is one way to make trouble.
type kind struct {
	weight int
	name   string
	make   func(context.Context, string)
}

// Run makes trouble until ctx ends, and then waits until all that it killed is
// up again. The error is of what did not come up.
func (m *Maker) Run(ctx context.Context) error {
	after := context.WithoutCancel(ctx)
	kinds := []kind{
		{35, "plugin", m.killPlugin},
		{20, "kubelet", m.killKubelet},
		{8, "kube-scheduler", func(ctx context.Context, what string) { m.kill(ctx, what, m.Scheduler) }},
		{4, "kube-apiserver", func(ctx context.Context, what string) { m.kill(ctx, what, m.APIServer) }},
		{8, "the API", m.cut},
	}
	if m.Extender != nil {
		kinds = append(kinds, kind{12, "numalane-extender", func(ctx context.Context, what string) { m.kill(ctx, what, m.Extender) }})
	}
	for _, n := range m.Members {
		m.wg.Go(func() { m.nurse(ctx, n.Name, n, n.Plugin) })
		m.wg.Go(func() { m.nurse(ctx, n.Name, n, n.Live.Kubelet) })
	}
	m.wg.Go(func() { m.nurse(ctx, "kube-scheduler", nil, m.Scheduler) })
	m.wg.Go(func() { m.nurse(ctx, "kube-apiserver", nil, m.APIServer) })
	if m.Extender != nil {
		m.wg.Go(func() { m.nurse(ctx, "numalane-extender", nil, m.Extender) })
	}
	for m.pause(ctx, 1500, 4500) {
		k := m.draw(kinds)
		m.wg.Go(func() { k.make(after, k.name) })
	}
	m.wg.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.fails) > 0 {
		return fmt.Errorf("%d did not come up again: %w", len(m.fails), m.fails[0])
	}
	return nil
}

func (m *Maker) draw(kinds []kind) kind {
	total := 0
	for _, k := range kinds {
		total += k.weight
	}
	at := m.Dice.IntN(total)
	for _, k := range kinds {
		if at -= k.weight; at < 0 {
			return k
		}
	}
	return kinds[0]
}

// pause waits for some milliseconds; false when ctx has ended.
func (m *Maker) pause(ctx context.Context, least, most int) bool {
	m.mu.Lock()
	d := time.Duration(least+m.Dice.IntN(most-least)) * time.Millisecond
	m.mu.Unlock()
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// take claims a thing for one kill; the second on top of it is left out.
func (m *Maker) take(what string) (release func(), ok bool) {
	if _, taken := m.busy.LoadOrStore(what, true); taken {
		return nil, false
	}
	return func() { m.busy.Delete(what) }, true
}

func (m *Maker) failed(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fails = append(m.fails, err)
	m.Journal.Note("", err.Error())
}

func (m *Maker) member() *fleet.Member {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.Members[m.Dice.IntN(len(m.Members))]
}

func (m *Maker) killPlugin(ctx context.Context, _ string) {
	n := m.member()
	m.killOn(ctx, n, "numalane-plugin", n.Plugin)
}

func (m *Maker) killKubelet(ctx context.Context, _ string) {
	n := m.member()
	m.killOn(ctx, n, "kubelet", n.Live.Kubelet)
}

// killOn kills a process of a node. The outage lasts until the plugin is
// registered with the kubelet again, and the kubelet knows its pods.
func (m *Maker) killOn(ctx context.Context, n *fleet.Member, what string, p *cluster.Process) {
	release, ok := m.take(n.Name)
	if !ok {
		return
	}
	defer release()
	m.done.Add(1)
	up := m.Journal.Down(n.Name, what)
	p.Kill()
	m.pause(ctx, 200, 3000) // by then the kubelet has seen its plugin's connection end
	if err := n.Restart(ctx, p); err != nil {
		m.failed(err)
		return
	}
	up()
}

// kill kills a process of the control plane.
func (m *Maker) kill(ctx context.Context, what string, p *cluster.Process) {
	release, ok := m.take(what)
	if !ok {
		return
	}
	defer release()
	m.done.Add(1)
	m.Journal.Note("", what+" is killed")
	p.Kill()
	m.pause(ctx, 50, 2000)
	if err := p.Restart(ctx); err != nil {
		m.failed(err)
		return
	}
	m.Journal.Note("", what+" is up again")
}

// cut cuts the API off for seconds: its connections stay, and nothing answers.
func (m *Maker) cut(ctx context.Context, what string) {
	release, ok := m.take("kube-apiserver")
	if !ok {
		return
	}
	defer release()
	m.done.Add(1)
	m.Journal.Note("", what+" is cut off")
	err := m.APIServer.Pause()
	m.pause(ctx, 1000, 6000)
	if err == nil {
		err = m.APIServer.Resume()
	}
	if err != nil {
		m.failed(err)
	}
	m.Journal.Note("", what+" answers again")
}
