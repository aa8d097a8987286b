package demo

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// Outcome is what became of one pod, as the API and its node's PodResources
// tell it.
type Outcome struct {
	Pod    string
	Shape  string
	Node   string // empty while unscheduled
	Phase  string // Running, Failed, Pending
	Reason string // why it failed or is pending
	Held   []Held // one a container
}

// Held is what one container holds.
type Held struct {
	CPUs     string // list form
	CPUNodes []int  // NUMA nodes of its exclusive CPUs
	VFs      []string
	VFNodes  []int // NUMA nodes of its VFs
}

// Refused tells whether the kubelet ended the pod instead of running it.
func (o *Outcome) Refused() bool { return o.Phase == "Failed" }

// Aligned tells whether the pod runs and every container holds CPUs and VFs, all of one
// NUMA node.
func (o *Outcome) Aligned() bool {
	if o.Phase != "Running" || len(o.Held) == 0 {
		return false
	}
	for _, h := range o.Held {
		if len(h.CPUNodes) != 1 || len(h.VFNodes) != 1 || h.CPUNodes[0] != h.VFNodes[0] {
			return false
		}
	}
	return true
}

// Tally counts outcomes.
type Tally struct{ Pods, Refused, Aligned, Pending int }

// Count adds outcomes up.
func Count(os []Outcome) Tally {
	t := Tally{Pods: len(os)}
	for i := range os {
		switch o := &os[i]; {
		case o.Refused():
			t.Refused++
		case o.Aligned():
			t.Aligned++
		case o.Phase == "Pending":
			t.Pending++
		}
	}
	return t
}

// WriteLanes prints what the machines have to give.
func WriteLanes(w io.Writer, lanes []Lane) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "  NODE\tNUMA\tCPUs TO GIVE\tVFs")
	node := ""
	for _, l := range lanes {
		name := l.Node
		if name == node {
			name = ""
		}
		node = l.Node
		fmt.Fprintf(tw, "  %s\t%d\t%s %d\t%s %d\n", name, l.NUMA, strings.Repeat("▪", l.CPUs), l.CPUs, strings.Repeat("◆", l.VFs), l.VFs)
	}
	return tw.Flush()
}

// WriteOutcomes prints where each pod landed, node by node, and then those
// that run nowhere.
func WriteOutcomes(w io.Writer, os []Outcome) error {
	sorted := slices.Clone(os)
	slices.SortStableFunc(sorted, func(a, b Outcome) int {
		return strings.Compare(a.Node+"\x00"+a.Pod, b.Node+"\x00"+b.Pod)
	})
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "  NODE\tPOD\tCPUs\tNUMA\tVFs\tNUMA\t")
	node := ""
	for i := range sorted {
		o := &sorted[i]
		if o.Phase != "Running" {
			continue
		}
		name := o.Node
		if name == node {
			name = ""
		}
		node = o.Node
		for j, h := range o.Held {
			pod, mark := o.Pod, "✔ aligned"
			if j > 0 {
				name, pod = "", ""
			}
			if !o.Aligned() {
				mark = "✘ crosses NUMA nodes"
			}
			fmt.Fprintf(tw, "  %s\t%s\t%s\t%s\t%s\t%s\t%s\n", name, pod, h.CPUs, ints(h.CPUNodes), strings.Join(h.VFs, " "), ints(h.VFNodes), mark)
		}
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	tw = tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for i := range sorted {
		switch o := &sorted[i]; {
		case o.Refused():
			fmt.Fprintf(tw, "  %s\t%s\t✘ refused by the kubelet\t%s\n", o.Node, o.Pod, o.Reason)
		case o.Phase != "Running":
			fmt.Fprintf(tw, "  -\t%s\t… waits\t%s\n", o.Pod, o.Reason)
		}
	}
	return tw.Flush()
}

// LastLine is the demo's result.
func LastLine(plain, numalane Tally) string {
	return fmt.Sprintf("demo: plain kube-scheduler: %d of %d refused by the kubelet; numalane: %d of %d refused, %d of %d aligned",
		plain.Refused, plain.Pods, numalane.Refused, numalane.Pods, numalane.Aligned, numalane.Pods)
}

func ints(ns []int) string {
	s := make([]string, len(ns))
	for i, n := range ns {
		s[i] = fmt.Sprint(n)
	}
	return strings.Join(s, ",")
}
