// Package judge says of a pod that its kubelet refused who is to blame, by what
// the journal has of its node: it replays the admission with what could be known
// when the pod was bound.
package judge

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/numalane/numalane/e2e/storm/journal"
	"github.com/numalane/numalane/pkg/allocator"
	"github.com/numalane/numalane/pkg/topology"
)

// Class is the kind of a refusal.
type Class string

// The classes, in the order in which they are looked for.
const (
	Foreign Class = "foreign" // by a pod that never passed through the extender
	Lost    Class = "lost"    // kubelet or plugin were down between binding and admission
	Outrun  Class = "outrun"  // pods ended without notice, nobody could know in time, and more room made a yes a no
	Behind  Class = "behind"  // the kubelet counted by a Node that the API no longer had
	Refused Class = "refused" // ours
)

// Verdict is what a refusal is, why, and what was replayed for it.
type Verdict struct {
	Class   Class
	Why     string
	Replays []string
}

const (
	// unseen is how long before a binding something may have happened without its
	// maker knowing: the request was under way by then, or the watch was.
	unseen = time.Second
	// lag is how long a watch may take to show what a node publishes: those of the
	// extender begin anew when the API server was killed.
	lag = 3 * time.Second
	// fresh is how long before a binding a pod may have gone and the kubelet not
	// know it yet.
	fresh = 3 * time.Second
	// late is how long after a refusal was seen the end of a pod may be that the
	// kubelet knew before it: it tells the API of both, each in its own time.
	late = 3 * time.Second
	// mostEnded is up to how many ended pods every subset is replayed.
	mostEnded = 8
	// mostTold is how many replays with a yes go into a trace.
	mostTold = 40
	// mostWork bounds the steps of all replays for one refusal: a few seconds.
	mostWork = 100_000
)

// Of judges a refused pod. The case is that of its node.
func Of(c *journal.Case, p *journal.Pod) Verdict {
	if p.Foreign {
		return Verdict{Class: Foreign, Why: "it never passed through the extender"}
	}
	q := newInquiry(c, p)
	for i := range c.Outages {
		o := &c.Outages[i]
		if !o.Touches(p.BoundAt(), p.DecidedAt()) {
			continue
		}
		if why := q.hopeless(); why != "" {
			return Verdict{Class: Refused, Why: "it should not have been bound, whoever was down: " + why, Replays: q.replays}
		}
		return Verdict{Class: Lost, Why: fmt.Sprintf("%s was down or not up yet from %s to %s", o.What, clock(o.From), clock(o.To)), Replays: q.replays}
	}
	return q.verdict()
}

// inquiry is one pod's case, taken apart.
type inquiry struct {
	c   *journal.Case
	pod *journal.Pod
	pub journal.Publication // when it was bound

	// known are the tenants that could be known when it was bound, and those of
	// ours that were bound since; foreign the others that came too late for that.
	known, foreign []tenant
	// noticed have ended or were to end by then and may still have been there;
	// ended did so without notice since.
	noticed, ended []*journal.Pod
	// gone had gone by then, a moment before: the kubelet may have counted them still.
	gone []tenant
	// unseen are those of gone whose end, without notice, whoever bound the pod may
	// not have seen, in the order of their ends.
	unseen []tenant

	replays []string
	asked   int
	work    int
}

func newInquiry(c *journal.Case, p *journal.Pod) *inquiry {
	q := &inquiry{c: c, pod: p}
	q.pub, _ = c.Node.At(p.Bound)
	decided := journal.Moment{At: p.DecidedAt()}
	for i := range c.Pods {
		o := &c.Pods[i]
		if o.UID == p.UID || !o.Bound.Before(decided) || o.Refused() && o.Ended.Before(decided) {
			continue // it is the pod itself, came after it, or came to nothing
		}
		t := tenant{pod: o, held: o.HeldAt(p.Bound)}
		if left := o.Left(); left.By(p.Bound) {
			if left.At.After(p.BoundAt().Add(-fresh)) {
				t.held = lastHeld(o)
				q.gone = append(q.gone, t)
				since := journal.Moment{At: p.BoundAt().Add(-unseen)}
				if !left.Before(since) && (o.Deleting.IsZero() || !o.Deleting.Before(since)) {
					q.unseen = append(q.unseen, t)
				}
			}
			continue
		}
		if o.Foreign && !o.Bound.Before(journal.Moment{At: p.BoundAt().Add(-unseen)}) {
			q.foreign = append(q.foreign, t)
			continue
		}
		q.known = append(q.known, t)
		if left := o.Left(); left.IsZero() || left.At.After(decided.At.Add(late)) {
			if !o.Deleting.By(p.Bound) {
				continue
			}
		}
		if o.Deleting.By(p.Bound) {
			q.noticed = append(q.noticed, o)
		} else {
			q.ended = append(q.ended, o)
		}
	}
	slices.SortFunc(q.ended, byEnd)
	slices.SortFunc(q.unseen, func(a, b tenant) int { return byEnd(a.pod, b.pod) })
	return q
}

func byEnd(a, b *journal.Pod) int { return a.Left().At.Compare(b.Left().At) }

// unaware is the same inquiry for somebody who had not seen the last n of the ends
// that may not have been seen: a watch shows them in their order.
func (q *inquiry) unaware(n int) *inquiry {
	u := *q
	last := q.unseen[len(q.unseen)-n:]
	u.known = slices.Concat(q.known, last)
	u.ended = nil
	for _, t := range last {
		u.ended = append(u.ended, t.pod)
	}
	u.ended = append(u.ended, q.ended...)
	u.unseen = nil
	return &u
}

func (q *inquiry) ask(what string, tenants []tenant) answer {
	if q.work > mostWork {
		return answer{err: errors.New("it has taken too long")}
	}
	a, steps := replay(&q.pub, q.pod, tenants)
	q.work += steps
	if q.asked++; q.asked <= mostTold || a.no() || q.work > mostWork {
		q.replays = append(q.replays, what+": "+a.String())
	}
	return a
}

func (q *inquiry) verdict() Verdict {
	if q.pub.IsZero() {
		return Verdict{Class: Refused, Why: "its node had published nothing when it was bound"}
	}
	class, why := q.cause()
	if class == Refused {
		why += q.staleness()
	}
	q.hindsight()
	return Verdict{Class: class, Why: why, Replays: q.replays}
}

// hopeless tells why the pod had no place when it was bound, by what had been
// known for long enough. Sums are left out: a kubelet whose plugin goes says at
// once that it has no devices.
func (q *inquiry) hopeless() string {
	if q.pub.IsZero() || q.pub.At.After(q.pod.BoundAt().Add(-lag)) {
		return ""
	}
	if t, err := topology.Decode[topology.NodeTopology](q.pub.Topology); err == nil && t.Away {
		return "its node had said that its kubelet was away"
	}
	if a := q.ask("with what was known when it was bound", q.known); a.no() && a.Reason != allocator.OutOfTotals {
		return a.String()
	}
	return ""
}

func (q *inquiry) cause() (Class, string) {
	if known := q.ask("with what was known when it was bound", q.known); !known.yes() {
		for n := range q.unseen {
			u := q.unaware(n + 1)
			class, why := u.cause()
			q.replays, q.asked, q.work = u.replays, u.asked, u.work
			if class == Outrun {
				return class, fmt.Sprintf("%s (an end within %s before the binding may not have been seen)", why, unseen)
			}
		}
		return Refused, "it should not have been bound: " + known.String()
	}
	if len(q.foreign) > 0 && q.ask("with foreign pods that came too late to be known", slices.Concat(q.known, q.foreign)).no() {
		return Foreign, "foreign pods came too late to be known, and with them it may be refused: " + names(q.foreign)
	}
	if gone := q.byNoticed(); gone != nil {
		return Refused, "it was known that these may be gone, and without them it may be refused: " + podNames(gone)
	}
	if gone := q.byEnded(); gone != nil {
		return Outrun, "these ended unannounced, and without them it may be refused: " + podNames(gone)
	}
	if why := q.behind(); why != "" {
		return Behind, why
	}
	if q.work > mostWork {
		return Refused, "no reason was found, and not all was looked at"
	}
	return Refused, "whatever was known or has ended since, the answer is yes"
}

// byNoticed looks for pods that were being deleted when the pod was bound, and
// without which it may be refused.
func (q *inquiry) byNoticed() (found []*journal.Pod) {
	subsets(q.noticed, mostEnded, func(gone []*journal.Pod) bool {
		if len(gone) > 0 && q.ask("without pods that were being deleted when it was bound: "+podNames(gone), without(q.known, gone)).no() {
			found = gone
		}
		return found == nil
	})
	return found
}

// byEnded looks for pods that have ended since, without notice, and without
// which the pod may be refused, whichever of those that were being deleted were
// still there. Who was on the way may have come before those ends, and sit where
// there was room then: where it sits is known by now.
func (q *inquiry) byEnded() (found []*journal.Pod) {
	settled := slices.Clone(q.known)
	for i := range settled {
		if t := &settled[i]; t.held == nil {
			t.held = lastHeld(t.pod)
		}
	}
	subsets(q.ended, mostEnded, func(gone []*journal.Pod) bool {
		subsets(q.noticed, mostEnded/2, func(too []*journal.Pod) bool {
			all := slices.Concat(gone, too)
			if len(gone) > 0 && (q.ask("without pods that ended unannounced: "+podNames(all), without(q.known, all)).no() ||
				q.ask("the same, the others where they came to sit: "+podNames(all), without(settled, all)).no()) {
				found = gone
			}
			return found == nil
		})
		return found == nil
	})
	return found
}

// staleness tells whether the pod would be refused by a kubelet that still
// counted pods that had just gone, all or one of them. It excuses nothing: it is
// where to look.
func (q *inquiry) staleness() string {
	if len(q.gone) == 0 {
		return ""
	}
	no := q.ask("with pods that had just gone still there: "+names(q.gone), slices.Concat(q.known, q.gone)).no()
	for i := range q.gone {
		if no || len(q.gone) == 1 {
			break
		}
		no = q.ask("with one that had just gone still there: "+q.gone[i].pod.Name, append(slices.Clip(q.known), q.gone[i])).no()
	}
	if !no {
		return ""
	}
	return "; these had gone a moment before it was bound, and with them still there it may be refused: " + names(q.gone)
}

// lastHeld is what a node last said that a pod holds.
func lastHeld(p *journal.Pod) *topology.Allocation {
	for i := len(p.Acks) - 1; i >= 0; i-- {
		if a := p.Acks[i].Allocation; a != nil {
			return a
		}
	}
	return nil
}

// hindsight replays with what is known by now: where pods that were on their way
// have come to sit.
func (q *inquiry) hindsight() {
	decided := journal.Moment{At: q.pod.DecidedAt()}
	pub, _ := q.c.Node.At(decided)
	var there []tenant
	for _, t := range slices.Concat(q.known, q.foreign) {
		if left := t.pod.Left(); left.By(decided) {
			continue
		}
		t.held = lastHeld(t.pod)
		there = append(there, t)
	}
	a, _ := replay(&pub, q.pod, there)
	q.replays = append(q.replays, "in hindsight, where all came to sit, those that had gone by then gone: "+a.String())
}

func clock(t time.Time) string {
	if t.IsZero() {
		return "now"
	}
	return t.Format("15:04:05.000")
}

func names(ts []tenant) string {
	var pods []*journal.Pod
	for _, t := range ts {
		pods = append(pods, t.pod)
	}
	return podNames(pods)
}

func podNames(pods []*journal.Pod) string {
	text := ""
	for i, p := range pods {
		if i > 0 {
			text += ", "
		}
		text += p.Name
	}
	return text
}
