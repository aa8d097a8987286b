// Package nodefeature tells Node Feature Discovery of a node's pools.
//
// In flow the pools as they are advertised, out flows one NodeFeature object
// of this node, applied when what it says has changed: NFD's rules make labels
// and taints of it (NodeFeatureRule, matchFeatures numalane.pool). It is a
// summary for people's rules; the extender reads the Node's annotations.
package nodefeature

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"github.com/numalane/numalane/internal/kubelet"
)

// Resource is where NodeFeatures are in the API.
var Resource = schema.GroupVersionResource{Group: "nfd.k8s-sigs.io", Version: "v1alpha1", Resource: "nodefeatures"}

const (
	// Feature is the name that NodeFeatureRules match.
	Feature = "numalane.pool"

	// nodeLabel is how NFD's master knows whose features these are.
	nodeLabel = "nfd.node.kubernetes.io/node-name"

	fieldManager = "numalane-plugin"

	// delay gathers changes: NFD's master goes through all rules at each.
	delay      = time.Second
	firstRetry = time.Second
	lastRetry  = 5 * time.Minute
)

// Options are what a Writer works with. The functions give snapshots that
// nobody changes afterwards.
type Options struct {
	Features  dynamic.Interface
	Nodes     kubernetes.Interface
	Namespace string // of the object: the plugin's own
	NodeName  string
	Pools     func() []kubelet.Pool // the plugin's own pools, as advertised
	// Ready tells whether the kubelet listens to this plugin instance.
	Ready func() bool
	// Changed has a token after Pools or Ready may answer differently.
	Changed <-chan struct{}
	Logger  *slog.Logger // slog.Default
}

// Writer keeps the NodeFeature object.
type Writer struct {
	o       Options
	log     *slog.Logger
	written []byte
	said    string
}

// New is a Writer that Run starts.
func New(o Options) *Writer {
	return &Writer{o: o, log: cmp.Or(o.Logger, slog.Default()).With("component", "nodefeature")}
}

// Run writes until the context ends. What fails is logged once and tried again:
// NFD may be installed later.
func (w *Writer) Run(ctx context.Context) error {
	wait := time.NewTimer(0)
	defer wait.Stop()
	retry := firstRetry
	pending := true
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.o.Changed:
			if !pending {
				pending = true
				wait.Reset(delay)
			}
			continue
		case <-wait.C:
		}
		pending = false
		err := w.write(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			retry, w.said = firstRetry, ""
			continue
		}
		level := slog.LevelDebug
		if err.Error() != w.said {
			level, w.said = slog.LevelWarn, err.Error()
		}
		// A part of it is chance: the nodes of a cluster fail all at once.
		in := retry/2 + rand.N(retry/2)
		w.log.Log(ctx, level, "NodeFeature not written", "err", err, "retry", in)
		pending = true
		wait.Reset(in)
		retry = min(2*retry, lastRetry)
	}
}

// write applies the object if it says something new.
func (w *Writer) write(ctx context.Context) error {
	if !w.o.Ready() {
		return nil // whoever the kubelet listens to writes
	}
	spec := Spec(w.o.Pools())
	text, err := json.Marshal(spec)
	if err != nil {
		return fmt.Errorf("encode the NodeFeature: %w", err)
	}
	if string(text) == string(w.written) {
		return nil
	}
	node, err := w.o.Nodes.CoreV1().Nodes().Get(ctx, w.o.NodeName, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("get the Node that the NodeFeature is of: %w", err)
	}
	object := &unstructured.Unstructured{Object: map[string]any{"spec": spec}}
	object.SetAPIVersion(Resource.GroupVersion().String())
	object.SetKind("NodeFeature")
	object.SetName(Name(w.o.NodeName))
	object.SetLabels(map[string]string{nodeLabel: w.o.NodeName})
	// The object goes with its Node.
	object.SetOwnerReferences([]metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}})
	body, err := json.Marshal(object)
	if err != nil {
		return fmt.Errorf("encode the NodeFeature: %w", err)
	}
	force := true
	_, err = w.o.Features.Resource(Resource).Namespace(w.o.Namespace).
		Patch(ctx, object.GetName(), types.ApplyPatchType, body, metav1.PatchOptions{FieldManager: fieldManager, Force: &force})
	if apierrors.IsNotFound(err) {
		return errors.New("the API has no NodeFeatures, or no such namespace: install Node Feature Discovery, or leave --node-feature away")
	}
	if err != nil {
		return fmt.Errorf("apply NodeFeature %s/%s: %w", w.o.Namespace, object.GetName(), err)
	}
	w.written = text
	w.log.Debug("NodeFeature written", "name", object.GetName())
	return nil
}

// Name is that of a node's object: another than NFD's own worker has, which is
// the node's.
func Name(node string) string { return "numalane-" + node }

// Spec is a NodeFeature's: an instance of numalane.pool for each resource, NUMA
// node and PF.
func Spec(pools []kubelet.Pool) map[string]any {
	type key struct {
		resource, numaNode, pf string
	}
	type group struct {
		key
		pfName, link          string
		speed, total, healthy int
	}
	groups := map[key]*group{}
	for _, p := range pools {
		for _, d := range p.Devices {
			k := key{p.Resource, numaText(d.NUMANodes), d.PF}
			g := groups[k]
			if g == nil {
				g = &group{key: k, pfName: d.PFName, link: d.Link, speed: d.Speed}
				groups[k] = g
			}
			g.total++
			if d.Healthy {
				g.healthy++
			}
		}
	}
	sorted := make([]*group, 0, len(groups))
	for _, g := range groups {
		sorted = append(sorted, g)
	}
	slices.SortFunc(sorted, func(a, b *group) int {
		return cmp.Or(strings.Compare(a.resource, b.resource), strings.Compare(a.numaNode, b.numaNode), strings.Compare(a.pf, b.pf))
	})
	elements := []any{}
	for _, g := range sorted {
		attributes := map[string]any{"resource": g.resource, "total": strconv.Itoa(g.total), "healthy": strconv.Itoa(g.healthy)}
		for name, value := range map[string]string{"numaNode": g.numaNode, "pf": g.pf, "pfName": g.pfName, "link": g.link} {
			if value != "" {
				attributes[name] = value
			}
		}
		if g.speed > 0 {
			attributes["speed"] = strconv.Itoa(g.speed)
		}
		elements = append(elements, map[string]any{"attributes": attributes})
	}
	return map[string]any{"features": map[string]any{"instances": map[string]any{Feature: map[string]any{"elements": elements}}}}
}

// numaText is "0", of a device of several NUMA nodes "0,1", and empty where
// none is known.
func numaText(nodes []int) string {
	texts := make([]string, len(nodes))
	for i, n := range nodes {
		texts[i] = strconv.Itoa(n)
	}
	return strings.Join(texts, ",")
}
