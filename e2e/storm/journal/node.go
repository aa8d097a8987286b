package journal

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/numalane/numalane/pkg/topology"
)

// Node is what a node published, and what its kubelet says it has to give.
type Node struct {
	Name      string
	Published []Publication
	Unready   bool // as last seen
}

// Publication is the state of a Node that an answer depends on.
type Publication struct {
	Moment
	Topology, Pools string // the annotations
	Allocatable     corev1.ResourceList
}

// At is what was published at a moment.
func (n *Node) At(m Moment) (Publication, bool) {
	for i := len(n.Published) - 1; i >= 0; i-- {
		if n.Published[i].By(m) {
			return n.Published[i], true
		}
	}
	return Publication{}, false
}

// SeeNode takes in a Node as the API has it now.
func (j *Journal) SeeNode(obj *corev1.Node) {
	j.mu.Lock()
	defer j.mu.Unlock()
	n := j.nodes[obj.Name]
	if n == nil {
		n = &Node{Name: obj.Name}
		j.nodes[obj.Name] = n
	}
	n.Unready = !schedulable(obj)
	now := Publication{
		Moment:      Moment{Version: version(obj), At: time.Now()},
		Topology:    obj.Annotations[topology.TopologyAnnotation],
		Pools:       obj.Annotations[topology.PoolsAnnotation],
		Allocatable: obj.Status.Allocatable,
	}
	var last Publication
	if len(n.Published) > 0 {
		last = n.Published[len(n.Published)-1]
	}
	if now.Topology == last.Topology && now.Pools == last.Pools && equality.Semantic.DeepEqual(now.Allocatable, last.Allocatable) {
		return
	}
	n.Published = append(n.Published, now)
	if now.Topology != last.Topology {
		j.note(now.Moment, n.Name, "", "publishes "+topology.TopologyAnnotation+": "+now.Topology)
	}
	if now.Pools != last.Pools {
		j.note(now.Moment, n.Name, "", "publishes "+topology.PoolsAnnotation+": "+now.Pools)
	}
	for name, q := range now.Allocatable {
		if was := last.Allocatable[name]; was.Cmp(q) != 0 {
			j.note(now.Moment, n.Name, "", fmt.Sprintf("has %s of %s allocatable, had %s", q.String(), name, was.String()))
		}
	}
}
