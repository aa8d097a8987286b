package judge

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// short is what a kubelet says that finds too little of something in all
// (lifecycle, InsufficientResourceError): CPUs in thousandths.
var short = regexp.MustCompile(`requested: (\d+), used: (\d+), capacity: (\d+)`)

// behind tells that the kubelet counted by a Node that was no longer so: its
// general predicates ask its own watch of its Node, which begins anew when the
// API was away, later than that of its pods. From the binding on the API had
// enough of what it found too little of.
func (q *inquiry) behind() string {
	name, found := strings.CutPrefix(q.pod.Reason, "OutOf")
	said := short.FindStringSubmatch(q.pod.Message)
	if !found || said == nil {
		return ""
	}
	var sums [3]int64
	for i := range sums {
		n, err := strconv.ParseInt(said[i+1], 10, 64)
		if err != nil {
			return ""
		}
		sums[i] = n
	}
	requested, used, capacity := sums[0], sums[1], sums[2]
	least := int64(-1)
	for i := range q.c.Node.Published {
		p := &q.c.Node.Published[i]
		if p.Before(q.pub.Moment) || p.At.After(q.pod.DecidedAt()) {
			continue
		}
		has := p.Allocatable[corev1.ResourceName(name)]
		n := has.Value()
		if name == string(corev1.ResourceCPU) {
			n = has.MilliValue()
		}
		if least < 0 || n < least {
			least = n
		}
	}
	if least < requested+used || least <= capacity {
		return ""
	}
	return fmt.Sprintf("its kubelet counted by a Node with %d of %s, and the API has had one with %d since before the binding", capacity, name, least)
}
