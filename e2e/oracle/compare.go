package oracle

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"

	"github.com/numalane/numalane/e2e/kubelets/wire"
	"github.com/numalane/numalane/pkg/allocator"
	"github.com/numalane/numalane/pkg/topology"
)

const (
	// maxOutcomes is how many of the things are compared that a kubelet which
	// picks at random may do.
	maxOutcomes = 4096
	// promised is the number of outcomes up to which Admit looks at all of them.
	promised = 16
)

// foretold is what the allocator says of a pod.
type foretold struct {
	verdict  allocator.Verdict
	outcomes []allocator.Outcome
	complete bool
	node     *allocator.Node
}

// foretell asks the allocator.
func foretell(before *topology.NodeState, p *v1.Pod) (foretold, error) {
	node, err := allocator.Compile(before)
	if err != nil {
		return foretold{}, err
	}
	r := allocator.NewRequest(p)
	f := foretold{verdict: node.Admit(r), node: node}
	f.outcomes, f.complete = node.Outcomes(r, maxOutcomes)
	return f, nil
}

// difference is how a case was not foretold. The zero one is none.
type difference struct {
	Kind kind   `json:"kind"`
	Text string `json:"text"`
}

// kind is in which respect.
type kind string

const (
	isFault         kind = "fault"         // the scenario could not go on
	isUncompiled    kind = "uncompiled"    // the state contradicts itself
	isContradiction kind = "contradiction" // Admit and Outcomes disagree
	isVerdict       kind = "verdict"
	isLanding       kind = "landing" // a container holds something else
	isAfter         kind = "after"   // the node has something else left
	isOther         kind = "other"   // of another pod
)

// contradiction tells how Admit's one verdict and the outcomes do not agree.
func (f *foretold) contradiction() string {
	all := true
	for _, o := range f.outcomes {
		all = all && o.Verdict.OK()
	}
	all = all && f.complete
	ok := f.verdict.OK()
	bounded := f.verdict.Reason == allocator.Undetermined && len(f.outcomes) > promised
	if ok == all || all && bounded {
		return ""
	}
	return fmt.Sprintf("Admit says %s, and of %d outcomes all are admissions: %t", f.verdict.Reason.Code(), len(f.outcomes), all)
}

// happened is what the kubelet did with a pod, and how its node then is.
type happened struct {
	admission wire.Admission
	pod       *v1.Pod
	before    *observed
	after     *observed
}

// compare is zero when the kubelet did one of the things foretold, else it
// says how the nearest differs.
func compare(f *foretold, h *happened) difference {
	if text := f.contradiction(); text != "" {
		return difference{isContradiction, text}
	}
	after, err := allocator.Compile(h.after.NodeState)
	if err != nil {
		return difference{isUncompiled, fmt.Sprintf("the state after it cannot be compiled: %v", err)}
	}
	if text := othersChanged(h); text != "" {
		return difference{isOther, text}
	}
	got := landed(h.after.NodeState, string(h.pod.UID))
	var verdicts []string
	var nearest difference
	for i := range f.outcomes {
		o := &f.outcomes[i]
		if o.Verdict.OK() != h.admission.Admit || o.Verdict.KubeletReason() != h.admission.Reason {
			verdicts = append(verdicts, answer(o.Verdict.OK(), o.Verdict.KubeletReason())+" ("+o.Verdict.Reason.Code()+")")
			continue
		}
		var d difference
		if h.admission.Admit {
			if text := cmp.Diff(holders(o.Containers), got); text != "" {
				d = difference{isLanding, "it landed elsewhere (-foretold +got):\n" + text}
			}
		}
		if d.Kind == "" {
			if o.After.Equal(after) || !h.admission.Admit && accountsChanged(h) {
				return difference{}
			}
			d = difference{isAfter, "the node after it differs (-foretold +got):\n" + cmp.Diff(lines(o.After.String()), lines(after.String()))}
		}
		if nearest.Kind == "" || len(d.Text) < len(nearest.Text) {
			nearest = d
		}
	}
	if !f.complete {
		return difference{} // it may have been one that was not listed
	}
	if nearest.Kind == "" {
		slices.Sort(verdicts)
		nearest = difference{isVerdict, fmt.Sprintf("foretold %s, got %s: %s", strings.Join(slices.Compact(verdicts), " or "),
			answer(h.admission.Admit, h.admission.Reason), h.admission.Message)}
	}
	if len(f.outcomes) > 1 {
		nearest.Text = fmt.Sprintf("none of %d outcomes; the nearest: %s", len(f.outcomes), nearest.Text)
	}
	return nearest
}

func lines(s string) []string { return strings.Split(strings.TrimSpace(s), "\n") }

func answer(admit bool, reason string) string {
	if admit {
		return "admitted"
	}
	return reason
}

// othersChanged tells of another pod that holds something else than before.
func othersChanged(h *happened) string {
	before, after := othersOf(h.before, string(h.pod.UID)), othersOf(h.after, string(h.pod.UID))
	if reflect.DeepEqual(before, after) {
		return ""
	}
	return "another pod's allocation changed (-before +after):\n" + cmp.Diff(before, after)
}

// others are what pods hold. Of two that the API does not have and that hold the
// like, nobody can tell which one the kubelet still counts.
type others struct {
	Held    map[string]string // by UID
	Unowned []string
}

func othersOf(o *observed, except string) others {
	all := others{Held: map[string]string{}}
	for _, a := range o.Held {
		if a.UID != except {
			all.Held[a.UID] = o.held[a.UID]
		}
	}
	for _, a := range o.Pools.Unowned {
		if a.UID != except {
			all.Unowned = append(all.Unowned, strings.ReplaceAll(o.held[a.UID], a.UID, ""))
		}
	}
	slices.Sort(all.Unowned)
	return all
}

// accountsChanged tells that the kubelet's accounts are not what its pods hold
// in another way than before. A refusal may come to that where machines are
// uneven, or with pod-level resources: what the pod had got before it was refused, the kubelet takes back
// from others as well (memorymanager releaseMemory, cpumanager releaseCPUs).
// Nobody has to foretell it, for the node says it.
func accountsChanged(h *happened) bool {
	before, after := h.before.Pools, h.after.Pools
	return !before.Contended.Equal(after.Contended) || !before.Leaked.Equal(after.Leaked) || !reflect.DeepEqual(before.Memory, after.Memory) ||
		!reflect.DeepEqual(before.MemoryElse, after.MemoryElse)
}

// landed is what the containers of a pod hold, by name.
func landed(s *topology.NodeState, uid string) map[string]allocator.Landing {
	m := map[string]allocator.Landing{}
	for _, a := range slices.Concat(s.Held, s.Pools.Unowned) {
		if a.UID != uid {
			continue
		}
		for _, l := range allocator.LandingsOf(&a) {
			m[l.Container] = canonical(l)
		}
	}
	return m
}

// holders are the landings of those containers that hold anything.
func holders(all []allocator.Landing) map[string]allocator.Landing {
	m := map[string]allocator.Landing{}
	for _, l := range all {
		if !l.CPUs.IsEmpty() || len(l.Memory) > 0 || len(l.Devices) > 0 {
			m[l.Container] = canonical(l)
		}
	}
	return m
}

// canonical puts a landing's lists in order, so that equal ones look alike.
func canonical(l allocator.Landing) allocator.Landing {
	l.Memory = slices.Clone(l.Memory)
	slices.SortFunc(l.Memory, func(a, b topology.MemoryAllocation) int {
		if c := strings.Compare(a.Type, b.Type); c != 0 {
			return c
		}
		if c := slices.Compare(a.NUMANodes, b.NUMANodes); c != 0 {
			return c
		}
		return int(int64(a.Size) - int64(b.Size))
	})
	l.Devices = slices.Clone(l.Devices)
	slices.SortFunc(l.Devices, func(a, b allocator.DeviceCount) int {
		if c := strings.Compare(a.Resource, b.Resource); c != 0 {
			return c
		}
		if c := slices.Compare(a.NUMANodes, b.NUMANodes); c != 0 {
			return c
		}
		return strings.Compare(a.PF, b.PF)
	})
	for i := range l.Memory {
		l.Memory[i].NUMANodes = emptyAsNil(l.Memory[i].NUMANodes)
	}
	for i := range l.Devices {
		l.Devices[i].NUMANodes = emptyAsNil(l.Devices[i].NUMANodes)
	}
	if len(l.Memory) == 0 {
		l.Memory = nil
	}
	if len(l.Devices) == 0 {
		l.Devices = nil
	}
	return l
}

func emptyAsNil(ids []int) []int {
	if len(ids) == 0 {
		return nil
	}
	return ids
}
