package judge

import (
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/numalane/numalane/e2e/storm/journal"
	"github.com/numalane/numalane/pkg/allocator"
)

// before and after are how much of the node's journal around the binding and the
// refusal goes into a trace.
const before, after = 10 * time.Second, 5 * time.Second

// Short is a refusal in two lines.
func Short(p *journal.Pod, v *Verdict) string {
	return fmt.Sprintf("%s: pod %s on node %s: %s: %s\n  bound %s, refused by %s, asks %s; %s",
		v.Class, p.Name, p.Node, p.Reason, p.Message, clock(p.BoundAt()), clock(p.DecidedAt()), journal.Asks(p.Spec), v.Why)
}

// Trace is all that is known about a refusal.
func Trace(w io.Writer, c *journal.Case, p *journal.Pod, v *Verdict, policy string) {
	fmt.Fprintf(w, "==== %s\n", Short(p, v))
	fmt.Fprintf(w, "pod %s, UID %s, created %s, bound %s (version %d), refusal seen %s (version %d)\nnode %s\n",
		p.Name, p.UID, clock(p.Created.At), clock(p.Bound.At), p.Bound.Version, clock(p.Ended.At), p.Ended.Version, policy)
	for _, r := range v.Replays {
		fmt.Fprintf(w, "replay %s\n", r)
	}
	if pub, ok := c.Node.At(p.Bound); ok {
		fmt.Fprintf(w, "published when it was bound (at %s, version %d):\n  %s\n  %s\n", clock(pub.At), pub.Version, pub.Topology, pub.Pools)
		room(w, c, p, &pub)
	}
	tenants(w, c, p)
	fmt.Fprintln(w, "events:")
	from, to := p.BoundAt().Add(-before), p.Ended.At.Add(after)
	for _, e := range ordered(c.Events) {
		if e.At.Before(from) || e.At.After(to) {
			continue
		}
		mark := " "
		if e.Pod == p.Name {
			mark = ">"
		}
		fmt.Fprintln(w, mark, e.String())
	}
	fmt.Fprintln(w)
}

// room is what was free when the pod was bound, by what was acknowledged.
func room(w io.Writer, c *journal.Case, p *journal.Pod, pub *journal.Publication) {
	q := newInquiry(c, p)
	var sure []tenant
	for _, t := range q.known {
		if t.held != nil {
			sure = append(sure, t)
		}
	}
	n, err := compile(pub, sure)
	if err != nil {
		fmt.Fprintf(w, "room: %v\n", err)
		return
	}
	fmt.Fprintf(w, "room when it was bound, with all that was acknowledged and not ended:\n%s", n)
}

func tenants(w io.Writer, c *journal.Case, p *journal.Pod) {
	fmt.Fprintln(w, "pods on the node between binding and refusal:")
	for i := range c.Pods {
		o := &c.Pods[i]
		if o.UID == p.UID || !o.Bound.Before(p.Ended) || o.Left().Before(journal.Moment{At: p.BoundAt().Add(-2 * time.Second)}) {
			continue
		}
		held := "nothing acknowledged"
		if n := len(o.Acks); n > 0 && o.Acks[n-1].Allocation != nil {
			held = "holds " + journal.Holds(o.Acks[n-1].Allocation)
		} else if !allocator.NewRequest(o.Spec).Exclusive() {
			held = "holds nothing exclusive"
		}
		kind := ""
		if o.Foreign {
			kind = "foreign "
		}
		fmt.Fprintf(w, "  %s%s: bound %s, acknowledged %s, admitted %s, deleting %s, ended %s, gone %s; asks %s; %s\n", kind, o.Name,
			moment(o.Bound), moment(o.Acknowledged()), moment(o.Admitted), moment(o.Deleting), moment(o.Ended), moment(o.Gone), journal.Asks(o.Spec), held)
	}
}

func moment(m journal.Moment) string {
	if m.IsZero() {
		return "-"
	}
	return clock(m.At)
}

// ordered are the events by the API's order, those of no version by the clock in between.
func ordered(events []journal.Event) []journal.Event {
	all := slices.Clone(events)
	slices.SortStableFunc(all, func(a, b journal.Event) int { return a.At.Compare(b.At) })
	return all
}

func compile(pub *journal.Publication, ts []tenant) (*allocator.Node, error) {
	held, bound := sums(ts)
	return Compile(pub, held, bound)
}
