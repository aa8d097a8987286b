package trouble

import (
	"context"
	"fmt"
	"time"

	"github.com/numalane/numalane/e2e/cluster"
	"github.com/numalane/numalane/e2e/storm/fleet"
)

// nurse starts a process again that ended without having been killed, as its
// node's kubelet would, and writes it down.
func (m *Maker) nurse(ctx context.Context, key string, n *fleet.Member, p *cluster.Process) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.Ended():
		}
		release, ok := m.take(key)
		if !ok { // it was killed, and whoever did that starts it
			select {
			case <-ctx.Done():
				return
			case <-time.After(50 * time.Millisecond):
			}
			continue
		}
		select {
		case <-p.Ended():
			m.crashed(context.WithoutCancel(ctx), n, p)
		default: // it was killed, and runs again
		}
		release()
	}
}

func (m *Maker) crashed(ctx context.Context, n *fleet.Member, p *cluster.Process) {
	node := ""
	up, restart := func() {}, p.Restart
	if n != nil {
		node = n.Name
		up = m.Journal.Down(node, p.Name)
		restart = func(ctx context.Context) error { return n.Restart(ctx, p) }
	}
	m.Journal.Note(node, fmt.Sprintf("%s has ended by itself; the end of its log: %s", p.Name, p.Tail()))
	m.mu.Lock()
	m.crashes = append(m.crashes, p.Name)
	m.mu.Unlock()
	if err := restart(ctx); err != nil {
		m.failed(err)
		return
	}
	up()
}

// Crashes are the processes that ended by themselves.
func (m *Maker) Crashes() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string(nil), m.crashes...)
}
