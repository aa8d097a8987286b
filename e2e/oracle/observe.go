package oracle

import (
	"context"
	"errors"
	"fmt"

	v1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/resource"

	"github.com/numalane/numalane/internal/kubelet"
	"github.com/numalane/numalane/pkg/topology"
)

// observed is a NodeState as it came through the annotations.
type observed struct {
	*topology.NodeState
	// held is each pod's allocation as text, those of no pod of the API too.
	held map[string]string
}

// state is what the product would know of the node at this moment.
func (n *node) state(ctx context.Context) (*observed, error) {
	if n.latest != nil {
		return n.latest, nil
	}
	in := kubelet.Input{Host: n.tree.host, Minor: n.minor, Pools: n.pools}
	for _, p := range n.pods {
		if !p.static {
			in.Pods = append(in.Pods, kubelet.Pod{UID: string(p.UID), Namespace: p.Namespace, Name: p.Name, Ended: !p.runs})
		}
	}
	read, err := n.reader.Read(ctx, in)
	if err != nil {
		return nil, fmt.Errorf("read the kubelet's state: %w", err)
	}
	if why := read.Topology.Inexact; why != "" {
		return nil, fmt.Errorf("read the kubelet's state: it is not exact: %s", why)
	}
	state, err := n.carrier.carry(&read)
	if err != nil {
		return nil, err
	}
	state.Totals = n.totals()
	n.latest = state
	return state, nil
}

// totals are what the API adds: the Node's allocatable and the pods' requests.
func (n *node) totals() *topology.Totals {
	t := &topology.Totals{Allocatable: map[string]int64{}, Requested: map[string]int64{}}
	add(t.Allocatable, n.s.Allocatable)
	for _, d := range n.devices() {
		t.Allocatable[d.Resource] = int64(d.Allocatable)
	}
	for _, p := range n.running() {
		add(t.Requested, resource.PodRequests(p.Pod, resource.PodResourcesOptions{}))
		t.Requested[string(v1.ResourcePods)]++
	}
	return t
}

func add(to map[string]int64, list v1.ResourceList) {
	for name, q := range list {
		if name == v1.ResourceCPU {
			to[string(name)] += q.MilliValue()
		} else {
			to[string(name)] += q.Value()
		}
	}
}

// carrier takes states through the annotations, and decodes again only what
// has changed.
type carrier struct {
	topology carried[topology.NodeTopology]
	pools    carried[topology.NodePools]
	held     map[string]*carried[topology.Allocation] // by pod UID
}

type carried[T topology.Document] struct {
	text string
	doc  T
}

func (c *carried[T]) through(doc T) (T, error) {
	text, err := topology.Encode(doc)
	if err != nil {
		return doc, err
	}
	if text != c.text {
		if c.doc, err = topology.Decode[T](text); err != nil {
			return doc, fmt.Errorf("%w: %s", err, text)
		}
		c.text = text
	}
	return c.doc, nil
}

func (c *carrier) carry(read *topology.NodeState) (*observed, error) {
	state := &observed{NodeState: &topology.NodeState{}, held: make(map[string]string, len(read.Held))}
	var errTopology, errPools error
	state.Topology, errTopology = c.topology.through(read.Topology)
	state.Pools, errPools = c.pools.through(read.Pools)
	if err := errors.Join(errTopology, errPools); err != nil {
		return nil, fmt.Errorf("carry the state in annotations: %w", err)
	}
	held := make(map[string]*carried[topology.Allocation], len(read.Held))
	for _, a := range read.Held {
		doc := c.held[a.UID]
		if doc == nil {
			doc = &carried[topology.Allocation]{}
		}
		allocation, err := doc.through(a)
		if err != nil {
			return nil, fmt.Errorf("carry the state in annotations: %w", err)
		}
		held[a.UID] = doc
		state.Held = append(state.Held, allocation)
		state.held[a.UID] = doc.text
	}
	c.held = held
	for _, a := range state.Pools.Unowned {
		text, err := topology.Encode(a)
		if err != nil {
			return nil, fmt.Errorf("carry the state in annotations: %w", err)
		}
		state.held[a.UID] = text
	}
	return state, nil
}
