package oracle

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/numalane/numalane/internal/config"
	"github.com/numalane/numalane/internal/config/v1alpha1"
	"github.com/numalane/numalane/internal/plugin"
)

// parsePools reads a scenario's own pools through the product's configuration.
func parsePools(pools []Pool) (*config.Config, error) {
	doc := v1alpha1.PoolConfiguration{APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.Kind, Pools: []v1alpha1.Pool{}}
	for _, p := range pools {
		roots := p.RootDevices
		if len(roots) == 0 {
			roots = []string{"ffff:ff:00.0"} // one that is not there: an empty selector takes every device
		}
		doc.Pools = append(doc.Pools, v1alpha1.Pool{
			Resource: p.Resource, ExcludeTopology: p.ExcludeTopology, AllocationPolicy: string(p.AllocationPolicy),
			Health:    &v1alpha1.Health{Link: new(false)}, // links are no part of a scenario
			Selectors: []v1alpha1.Selector{{RootDevices: roots}},
		})
	}
	text, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("encode pool configuration: %w", err)
	}
	c, err := config.Parse(text, "")
	if err != nil {
		return nil, fmt.Errorf("pool configuration: %w", err)
	}
	return c, nil
}

// ownPlugin is the product's plugin, as cmd/plugin wires it.
type ownPlugin struct {
	updates chan []plugin.Pool
	stop    context.CancelFunc
	done    chan error
}

func startOwnPlugin(ctx context.Context, socketDir string, held func() map[string][]string) *ownPlugin {
	ctx, stop := context.WithCancel(ctx)
	p := &ownPlugin{updates: make(chan []plugin.Pool), stop: stop, done: make(chan error, 1)}
	servers := plugin.New(plugin.Options{SocketDir: socketDir, Held: func() (map[string][]string, error) { return held(), nil }})
	go func() { p.done <- servers.Run(ctx, p.updates) }()
	return p
}

// update hands the pools over.
func (p *ownPlugin) update(pools []plugin.Pool) error {
	select {
	case p.updates <- pools:
		return nil
	case err := <-p.done:
		p.done <- err
		return fmt.Errorf("the plugin has ended: %w", err)
	}
}

// close ends the plugin and waits until its sockets are gone.
func (p *ownPlugin) close() error {
	p.stop()
	return <-p.done
}
