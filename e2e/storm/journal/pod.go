package journal

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/numalane/numalane/pkg/topology"
)

// Scheduler is the schedulerName of pods that pass through the extender.
const Scheduler = "numalane"

// Pod is the life of one pod, by UID.
type Pod struct {
	UID  types.UID
	Name string
	// Foreign pods never pass through the extender.
	Foreign bool
	Spec    *corev1.Pod // as last seen, not to be changed
	Node    string

	Created  Moment
	Bound    Moment
	Admitted Moment // the kubelet's first word of it that is no refusal
	Deleting Moment // with a deletionTimestamp
	Ended    Moment // Succeeded or Failed
	Gone     Moment
	Forced   bool // gone without ever having had a deletionTimestamp to wait for

	Acks []Ack

	Reason, Message string // of a Failed pod
	Failed          bool
	// By the API server's and the kubelet's clock, of whole seconds.
	ScheduledAt, StartedAt time.Time
	Unschedulable          string // why kube-scheduler says that it has no place, the last time
}

// Ack is the annotation by which the node says what the pod holds.
type Ack struct {
	Moment
	Text       string
	Allocation *topology.Allocation // nil when it was taken away or cannot be read
}

func (p *Pod) clone() Pod {
	c := *p
	c.Acks = slices.Clone(p.Acks)
	return c
}

// Left is when the pod ended or went.
func (p *Pod) Left() Moment {
	if !p.Ended.IsZero() && p.Ended.Before(p.Gone) {
		return p.Ended
	}
	return p.Gone
}

// Acknowledged is when the node first said what the pod holds.
func (p *Pod) Acknowledged() Moment {
	if len(p.Acks) == 0 {
		return Moment{}
	}
	return p.Acks[0].Moment
}

// HeldAt is what the node had said by a moment that the pod holds; nil when nothing.
func (p *Pod) HeldAt(m Moment) *topology.Allocation {
	var last *topology.Allocation
	for i := range p.Acks {
		if p.Acks[i].By(m) {
			last = p.Acks[i].Allocation
		}
	}
	return last
}

// Refused tells that the pod's kubelet did not admit it: nothing of it ever ran.
func (p *Pod) Refused() bool {
	return p.Failed && p.Node != "" && p.Reason != "" && p.Admitted.IsZero()
}

// BoundAt is the latest time at which the pod can have been bound: the API
// server's clock tells whole seconds, the watch may tell late.
func (p *Pod) BoundAt() time.Time { return earlier(p.Bound.At, p.ScheduledAt) }

// DecidedAt is the latest time at which the kubelet can have refused the pod.
func (p *Pod) DecidedAt() time.Time {
	at := earlier(p.Ended.At, p.StartedAt)
	if b := p.BoundAt(); at.Before(b) {
		return b
	}
	return at
}

// earlier is seen, or the end of the second that was told, if that is earlier.
func earlier(seen, told time.Time) time.Time {
	if told.IsZero() {
		return seen
	}
	if end := told.Add(time.Second); end.Before(seen) {
		return end
	}
	return seen
}

// See takes in a pod as the API has it now.
func (j *Journal) See(obj *corev1.Pod) {
	j.mu.Lock()
	defer j.mu.Unlock()
	now := Moment{Version: version(obj), At: time.Now()}
	p := j.pods[obj.UID]
	if p == nil {
		p = &Pod{UID: obj.UID, Name: obj.Name, Foreign: obj.Spec.SchedulerName != Scheduler, Created: now}
		j.pods[obj.UID] = p
	}
	old := p.clone()
	p.Spec = obj
	p.Node = obj.Spec.NodeName
	for _, c := range obj.Status.Conditions {
		if c.Type != corev1.PodScheduled {
			continue
		}
		if c.Status == corev1.ConditionTrue {
			p.ScheduledAt, p.Unschedulable = c.LastTransitionTime.Time, ""
		} else if c.Reason == corev1.PodReasonUnschedulable {
			p.Unschedulable = c.Message
		}
	}
	if obj.Status.StartTime != nil {
		p.StartedAt = obj.Status.StartTime.Time
	}
	p.mark(obj, now)
	for _, text := range p.news(&old) {
		j.note(now, p.Node, p.Name, text)
	}
}

// mark sets the moments that have come.
func (p *Pod) mark(obj *corev1.Pod, now Moment) {
	once := func(m *Moment, come bool) {
		if come && m.IsZero() {
			*m = now
		}
	}
	failed := obj.Status.Phase == corev1.PodFailed
	once(&p.Bound, p.Node != "")
	once(&p.Admitted, p.Node != "" && (len(obj.Status.ContainerStatuses) > 0 || len(obj.Status.InitContainerStatuses) > 0) && !refusal(obj))
	once(&p.Deleting, obj.DeletionTimestamp != nil)
	if failed && !p.Failed {
		p.Failed, p.Reason, p.Message = true, obj.Status.Reason, obj.Status.Message
	}
	once(&p.Ended, failed || obj.Status.Phase == corev1.PodSucceeded)
	text := obj.Annotations[topology.AllocationAnnotation]
	last := ""
	if n := len(p.Acks); n > 0 {
		last = p.Acks[n-1].Text
	}
	if text == last {
		return
	}
	ack := Ack{Moment: now, Text: text}
	if a, err := topology.Decode[topology.Allocation](text); err == nil && a.UID == string(obj.UID) {
		ack.Allocation = &a
	}
	p.Acks = append(p.Acks, ack)
}

// refusal tells of a Failed pod that none of its containers ever was.
func refusal(obj *corev1.Pod) bool {
	if obj.Status.Phase != corev1.PodFailed || obj.Status.Reason == "" {
		return false
	}
	for _, list := range [][]corev1.ContainerStatus{obj.Status.InitContainerStatuses, obj.Status.ContainerStatuses} {
		for i := range list {
			if list[i].ContainerID != "" {
				return false
			}
		}
	}
	return true
}

// news tells what is new of the pod.
func (p *Pod) news(old *Pod) []string {
	var out []string
	add := func(is, was Moment, format string, args ...any) {
		if was.IsZero() && !is.IsZero() {
			out = append(out, fmt.Sprintf(format, args...))
		}
	}
	add(p.Bound, old.Bound, "is bound, asks %s", Asks(p.Spec))
	add(p.Admitted, old.Admitted, "is admitted")
	add(p.Deleting, old.Deleting, "has a deletionTimestamp, grace %d s", grace(p.Spec))
	if p.Failed {
		add(p.Ended, old.Ended, "has failed: %s: %s", p.Reason, p.Message)
	} else {
		add(p.Ended, old.Ended, "has succeeded")
	}
	for _, a := range p.Acks[len(old.Acks):] {
		if a.Allocation == nil {
			out = append(out, fmt.Sprintf("is told to hold what cannot be read: %q", a.Text))
			continue
		}
		out = append(out, "is acknowledged: "+Holds(a.Allocation))
	}
	return out
}

// Lose takes in that the API has a pod no more. obj is its last state, with the
// version of its removal.
func (j *Journal) Lose(obj *corev1.Pod) {
	j.mu.Lock()
	defer j.mu.Unlock()
	p := j.pods[obj.UID]
	if p == nil || !p.Gone.IsZero() {
		return
	}
	p.Gone = Moment{Version: version(obj), At: time.Now()}
	// A deletion that nobody has to wait for marks and removes in one.
	p.Forced = p.Deleting.IsZero()
	text := "is gone"
	if p.Forced {
		text = "is gone without notice"
	}
	j.note(p.Gone, p.Node, p.Name, text)
}

func grace(obj *corev1.Pod) int64 {
	if obj.DeletionGracePeriodSeconds == nil {
		return 0
	}
	return *obj.DeletionGracePeriodSeconds
}

func byName(a, b Pod) int { return strings.Compare(a.Name+string(a.UID), b.Name+string(b.UID)) }
