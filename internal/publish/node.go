package publish

import (
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/numalane/numalane/internal/kubelet"
	"github.com/numalane/numalane/pkg/topology"
)

// nodeWriter keeps the Node's annotations and labels.
type nodeWriter struct {
	*object
	uid  types.UID // of the Node that object is about
	name string
	free time.Time // when free counts began to differ; zero: they do not
}

// prepare makes the write that the Node needs; nil: none. The second result is
// when to come back; 0: no need.
func (w *nodeWriter) prepare(node *v1.Node, state *topology.NodeState, own []kubelet.Pool) (*job, time.Duration, error) {
	live := w.current(node)
	if w.gone && live.resource != w.answered.resource {
		w.gone = false
	}
	want, err := wantedNode(state, own)
	if err != nil {
		return nil, 0, err
	}
	wait := w.delayFree(live.meta, &want)
	switch {
	case want.equal(live.meta):
		if !w.writing {
			w.settle(want)
		}
		return nil, wait, nil
	case w.gone:
		return nil, 0, nil
	case w.writing:
		w.missed = true
		return nil, 0, nil
	}
	j := job{kind: "node", name: w.name, uid: node.UID, want: want, corrects: w.alien(live.meta)}
	if left := w.left(j.corrects); left > 0 {
		return nil, left, nil
	}
	j.body, err = patch(live, want)
	return &j, 0, err
}

// prepareAway makes the write that says of a Node that its kubelet is away, and
// leaves all else as it is; nil: none is needed.
func (w *nodeWriter) prepareAway(node *v1.Node) (*job, time.Duration, error) {
	live := w.current(node)
	text, changed := saidAway(live.annotations[topology.TopologyAnnotation])
	if !changed {
		return nil, 0, nil
	}
	if w.writing {
		w.missed = true
		return nil, 0, nil
	}
	if left := w.left(false); left > 0 {
		return nil, left, nil
	}
	want := meta{maps.Clone(live.annotations), live.labels}
	want.annotations[topology.TopologyAnnotation] = text
	j := job{kind: "node", name: w.name, uid: node.UID, want: want}
	var err error
	j.body, err = patch(live, want)
	return &j, 0, err
}

// saidAway is a topology that says that the kubelet is away. What cannot be read
// promises nothing, and stays as it is.
func saidAway(topologyText string) (text string, changed bool) {
	t, err := topology.Decode[topology.NodeTopology](topologyText)
	if err != nil || t.Away {
		return "", false
	}
	t.Away = true
	text, err = topology.Encode(t)
	return text, err == nil
}

// current is the version of the Node to decide by.
func (w *nodeWriter) current(node *v1.Node) version {
	if w.uid != node.UID {
		// The kubelet made its Node anew: nothing of the old one counts.
		w.object, w.uid = &object{writing: w.writing}, node.UID
	}
	return w.newest(versionOf(node, nodeMeta(node)))
}

func nodeMeta(o metav1.Object) meta {
	annotations, labels := nodeMetaOf(o)
	return meta{annotations, labels}
}

// delayFree leaves the published pools as they are for freeDelay when all that
// differs is what is free or held outside the API: that is for people, and the
// second comes and goes as the watch on pods catches up with the kubelet.
func (w *nodeWriter) delayFree(live meta, want *meta) time.Duration {
	before, published := live.annotations[topology.PoolsAnnotation]
	after := want.annotations[topology.PoolsAnnotation]
	if before == after {
		w.free = time.Time{}
		return 0
	}
	if !published || !sameInventory(before, after) {
		return 0
	}
	if w.free.IsZero() {
		w.free = time.Now()
	}
	left := time.Until(w.free.Add(freeDelay))
	if left <= 0 {
		return 0
	}
	quiet := *want
	quiet.annotations = kept(want.annotations, topology.TopologyAnnotation)
	quiet.annotations[topology.PoolsAnnotation] = before
	if quiet.equal(live) {
		*want = quiet
		return left
	}
	return 0 // the node is written anyway: with what is free now
}

// sameInventory tells whether two pools annotations differ in no more than
// what is free and what is held outside the API.
func sameInventory(a, b string) bool {
	x, errX := inventory(a)
	y, errY := inventory(b)
	return errX == nil && errY == nil && x == y
}

// inventory fails for what this version would have written otherwise: that of
// another version, or of somebody's editor, is not to stand for a moment.
func inventory(annotation string) (string, error) {
	p, err := topology.Decode[topology.NodePools](annotation)
	if err != nil {
		return "", err
	}
	if again, err := topology.Encode(p); err != nil || again != annotation {
		return "", fmt.Errorf("not in the form of this version: %w", err)
	}
	p.Unowned = nil
	for i := range p.Pools {
		for j := range p.Pools[i].Groups {
			p.Pools[i].Groups[j].Free = 0
		}
	}
	return topology.Encode(p)
}

// wantedNode is all that a Node shall have of ours.
func wantedNode(state *topology.NodeState, own []kubelet.Pool) (meta, error) {
	m := meta{annotations: map[string]string{}, labels: map[string]string{}}
	var err error
	if m.annotations[topology.TopologyAnnotation], err = topology.Encode(state.Topology); err != nil {
		return meta{}, err
	}
	if m.annotations[topology.PoolsAnnotation], err = topology.Encode(state.Pools); err != nil {
		return meta{}, err
	}
	m.labels[topology.PolicyLabel] = state.Topology.Kubelet.TopologyPolicy
	m.labels[topology.ScopeLabel] = state.Topology.Kubelet.TopologyScope
	ours := make(map[string]bool, len(own))
	for i := range own {
		ours[own[i].Resource] = true
	}
	for i := range state.Pools.Pools {
		p := &state.Pools.Pools[i]
		if !ours[p.Resource] {
			continue
		}
		key := topology.PoolLabelPrefix + strings.ReplaceAll(p.Resource, "/", "_")
		if errs := validation.IsQualifiedName(key); len(errs) > 0 {
			continue // a resource name of up to 317 characters; the annotation has it
		}
		m.labels[key] = strconv.Itoa(largest(p))
	}
	return m, nil
}

// largest is the most healthy devices that one NUMA node has. Devices that do
// not say where they sit are aligned by nobody and count together.
func largest(p *topology.Pool) int {
	byNode := map[int]int{}
	most := 0
	for _, g := range p.Groups {
		nodes := g.NUMANodes
		if len(nodes) == 0 {
			nodes = []int{topology.NoNUMANode}
		}
		for _, n := range nodes {
			byNode[n] += g.Healthy
			most = max(most, byNode[n])
		}
	}
	return most
}
