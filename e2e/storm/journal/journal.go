// Package journal keeps what happened to every pod and node of a cluster, in
// order: from watches of the API, and from whoever kills and starts processes.
// It judges nothing.
package journal

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Moment is when something happened: in the API's own order where it is of the
// API, and by the clock of when it was seen.
type Moment struct {
	Version uint64 // resource version; 0 for what is not of the API
	At      time.Time
}

// IsZero tells of a moment that has not come.
func (m Moment) IsZero() bool { return m.At.IsZero() }

// Before orders moments. One that has not come is before none.
func (m Moment) Before(o Moment) bool {
	switch {
	case m.IsZero():
		return false
	case o.IsZero():
		return true
	case m.Version != 0 && o.Version != 0:
		return m.Version < o.Version
	}
	return m.At.Before(o.At)
}

// By tells that it had come at the other moment.
func (m Moment) By(o Moment) bool { return !m.IsZero() && !o.Before(m) }

// Event is a line of the journal.
type Event struct {
	Moment
	Node string // empty for what is of no one node
	Pod  string // empty for what is of no pod
	Text string
}

// String is the event as a line.
func (e *Event) String() string {
	return fmt.Sprintf("%s %9d %s %s %s", e.At.Format("15:04:05.000"), e.Version, cmp.Or(e.Node, "-"), cmp.Or(e.Pod, "-"), e.Text)
}

// Outage is a time in which a process of a node was down, or up and not yet
// registered, or a kubelet that did not know yet which pods it has.
type Outage struct {
	Node, What string
	From, To   time.Time // To is zero while it lasts
}

// Touches tells whether the outage and the time from a to b meet.
func (o *Outage) Touches(a, b time.Time) bool {
	return !o.From.After(b) && (o.To.IsZero() || !o.To.Before(a))
}

// Journal is safe for any number of goroutines.
type Journal struct {
	mu      sync.Mutex
	pods    map[types.UID]*Pod
	nodes   map[string]*Node
	outages []*Outage
	events  []Event
}

// New is an empty journal.
func New() *Journal {
	return &Journal{pods: map[types.UID]*Pod{}, nodes: map[string]*Node{}}
}

// Note writes down an event that is not of the API.
func (j *Journal) Note(node, text string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.note(Moment{At: time.Now()}, node, "", text)
}

// Down begins an outage. The function that it returns ends it.
func (j *Journal) Down(node, what string) (up func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	o := &Outage{Node: node, What: what, From: time.Now()}
	j.outages = append(j.outages, o)
	j.note(Moment{At: o.From}, node, "", what+" is killed")
	return func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		o.To = time.Now()
		j.note(Moment{At: o.To}, node, "", what+" is up again")
	}
}

// note is for whoever holds mu.
func (j *Journal) note(m Moment, node, pod, text string) {
	j.events = append(j.events, Event{Moment: m, Node: node, Pod: pod, Text: text})
}

// Pods are copies of all pods that ever were, by the time of their creation.
func (j *Journal) Pods() []Pod {
	j.mu.Lock()
	defer j.mu.Unlock()
	all := make([]Pod, 0, len(j.pods))
	for _, p := range j.pods {
		all = append(all, p.clone())
	}
	slices.SortFunc(all, func(a, b Pod) int {
		if a.Created.Before(b.Created) {
			return -1
		}
		return 1
	})
	return all
}

// Live are the pods that have neither ended nor gone.
func (j *Journal) Live() []Pod {
	j.mu.Lock()
	defer j.mu.Unlock()
	var all []Pod
	for _, p := range j.pods {
		if p.Left().IsZero() {
			all = append(all, p.clone())
		}
	}
	slices.SortFunc(all, byName)
	return all
}

// Pod is a copy of one pod.
func (j *Journal) Pod(uid types.UID) (Pod, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	p, ok := j.pods[uid]
	if !ok {
		return Pod{}, false
	}
	return p.clone(), true
}

// Case is all that happened on one node, for one question about it.
type Case struct {
	Node    Node
	Pods    []Pod // bound to it at any time
	Outages []Outage
	Events  []Event // of the node, and of no one node
}

// On is what happened on a node so far.
func (j *Journal) On(node string) Case {
	j.mu.Lock()
	defer j.mu.Unlock()
	c := Case{Node: Node{Name: node}}
	if n := j.nodes[node]; n != nil {
		c.Node = Node{Name: node, Published: slices.Clone(n.Published), Unready: n.Unready}
	}
	for _, p := range j.pods {
		if p.Node == node {
			c.Pods = append(c.Pods, p.clone())
		}
	}
	slices.SortFunc(c.Pods, byName)
	for _, o := range j.outages {
		if o.Node == node {
			c.Outages = append(c.Outages, *o)
		}
	}
	for _, e := range j.events {
		if e.Node == node || e.Node == "" {
			c.Events = append(c.Events, e)
		}
	}
	return c
}

// Events are all of them, by the clock.
func (j *Journal) Events() []Event {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.events)
}

// Nodes are the names of the nodes that there are.
func (j *Journal) Nodes() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Sorted(maps.Keys(j.nodes))
}

func version(o interface{ GetResourceVersion() string }) uint64 {
	v, err := strconv.ParseUint(o.GetResourceVersion(), 10, 64)
	if err != nil {
		return 0 // then the clock decides
	}
	return v
}

// Schedulable tells whether a node takes pods without tolerations.
func schedulable(n *corev1.Node) bool {
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue && len(n.Spec.Taints) == 0 && !n.Spec.Unschedulable
		}
	}
	return false
}
