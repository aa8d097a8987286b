package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/numalane/numalane/internal/plugin"
)

// away tells that no kubelet listens.
func (a *app) away() bool {
	return slices.ContainsFunc(a.servers.Status(), func(p plugin.PoolStatus) bool { return p.Phase == plugin.Waiting })
}

func (a *app) statusChanged() {
	if a.away() {
		// Whoever listens next has only started, also if its files tell so later.
		a.kubelet.Lost()
	}
	a.tell()
}

// scanned is nil once the machine has been read.
func (a *app) scanned() error {
	if a.view.Load().host == nil {
		return errors.New("the machine has not been read yet")
	}
	return nil
}

// registered names a pool whose devices the kubelet does not listen to; it is
// nil when it listens to all. A bad new configuration does not count: the pools
// of the last good one are served.
func (a *app) registered() error {
	if err := a.scanned(); err != nil {
		return err
	}
	status := a.servers.Status()
	for _, p := range a.view.Load().pools {
		if !slices.ContainsFunc(status, func(s plugin.PoolStatus) bool { return s.Resource == p.Resource }) {
			return fmt.Errorf("pool %s has not been made yet", p.Resource)
		}
	}
	for _, p := range status {
		if p.Phase != plugin.Live && p.Phase != plugin.Idle {
			return fmt.Errorf("pool %s is %s", p.Resource, p.Phase)
		}
	}
	return nil
}
