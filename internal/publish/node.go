package publish

import (
	"context"
	"log/slog"
	"strconv"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	corev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/numalane/numalane/internal/kubelet"
	"github.com/numalane/numalane/pkg/topology"
)

// nodeWriter keeps the Node's annotations and labels.
type nodeWriter struct {
	client corev1.NodeInterface
	name   string
	log    *slog.Logger

	written record
	free    time.Time // when free counts began to differ; zero: they do not
	said    string
}

// write patches the Node if it differs. The result is when to come back; 0: no need.
func (w *nodeWriter) write(ctx context.Context, node *v1.Node, state *topology.NodeState, own []kubelet.Pool) time.Duration {
	live := meta{node.Annotations, node.Labels}
	if w.written.newerThan(node) {
		live = w.written.meta
	}
	want, err := nodeMeta(state, own)
	if err != nil {
		w.say("cannot write down this node's state", err)
		return 0
	}
	wait := w.delayFree(live, &want)
	if want.equal(live) {
		return wait
	}
	if left := w.written.retry.left(); left > 0 {
		return left
	}
	body, err := patch(live, want, "")
	if err != nil {
		w.say("cannot write down this node's state", err)
		return 0
	}
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	written, err := w.client.Patch(ctx, w.name, types.MergePatchType, body, metav1.PatchOptions{FieldManager: FieldManager})
	if err != nil {
		if denied(err) {
			w.say("not allowed to write to this node: it is not published until the plugin may; apply deploy/plugin-rbac", err)
		} else {
			w.say("cannot write to this node, will try again", err)
		}
		w.written.retry.failed()
		return w.written.retry.left()
	}
	w.said = ""
	w.written.set(want, written)
	w.free = time.Time{}
	w.log.Info("published the node", "bytes", len(body))
	return 0
}

func (w *nodeWriter) say(msg string, err error) {
	if text := msg + err.Error(); text != w.said {
		w.said = text
		w.log.Warn(msg, "err", err)
	}
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

func inventory(annotation string) (string, error) {
	p, err := topology.Decode[topology.NodePools](annotation)
	if err != nil {
		return "", err
	}
	p.Unowned = nil
	for i := range p.Pools {
		for j := range p.Pools[i].Groups {
			p.Pools[i].Groups[j].Free = 0
		}
	}
	return topology.Encode(p)
}

// nodeMeta is all that a Node shall have of ours.
func nodeMeta(state *topology.NodeState, own []kubelet.Pool) (meta, error) {
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
