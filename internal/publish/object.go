package publish

import (
	"encoding/json"
	"maps"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
)

// meta are the annotations and labels of an object that are ours.
type meta struct{ annotations, labels map[string]string }

func (m meta) equal(o meta) bool {
	return maps.Equal(m.annotations, o.annotations) && maps.Equal(m.labels, o.labels)
}

// version is an object at one moment.
type version struct {
	meta
	uid      types.UID
	resource string // its resourceVersion
}

// olderThan is false where the two cannot be compared.
func (v *version) olderThan(o *version) bool {
	c, err := resourceversion.CompareResourceVersion(v.resource, o.resource)
	return err == nil && c < 0
}

// object is how it stands with the writes of one object.
type object struct {
	// answered is the newest version that a call of ours returned. It stands in
	// for the watched one until the watch has caught up.
	answered version
	// agreed is what the object had when it was last as it shall be; nil: never
	// yet. tried is what was last sent, whose answer may be lost.
	agreed, tried *meta
	writing       bool
	missed        bool // it differed while a write was under way
	gone          bool // there is no such object any more: the watch will tell
	retry         retry
	damper        damper
}

// newest is the version to decide by.
func (o *object) newest(watched version) version {
	if o.answered.resource != "" && watched.olderThan(&o.answered) {
		return o.answered
	}
	return watched
}

// alien tells that somebody else wrote what is there.
func (o *object) alien(live meta) bool {
	return o.agreed != nil && !live.equal(*o.agreed) && (o.tried == nil || !live.equal(*o.tried))
}

// left is how long to wait yet before a write.
func (o *object) left(corrects bool) time.Duration {
	if corrects {
		return max(o.retry.left(), o.damper.left())
	}
	return o.retry.left()
}

// begin notes that a write is under way.
func (o *object) begin(j *job) {
	o.writing, o.missed, o.tried = true, false, &j.want
	if j.corrects {
		o.damper.corrected()
	}
}

// finish notes what came of it, and tells whether to look again at once.
func (o *object) finish(out *outcome) (again bool) {
	o.writing = false
	if out.seen != nil && out.seen.uid == out.uid {
		o.answered = *out.seen
	} else if out.seen != nil {
		out.result = gone // another one has its name
	}
	switch out.result {
	case written:
		o.settle(out.want)
		return o.missed
	case conflict:
		// The kubelet writes to the same objects all the time. It is read
		// again before the next try, so that an older state never wins.
		return true
	case gone:
		o.gone = true
	case unreachable: // all writes wait for the API
	default:
		o.retry.failed(lastRetry)
	}
	return o.missed
}

// settle notes that an object is as it shall be.
func (o *object) settle(m meta) {
	o.agreed = &m
	o.retry = retry{}
}

// patch is the JSON merge patch that turns our keys of a version into those of
// want. The API server refuses it for any other version (409): what is written
// was read after that version was seen, so whoever wrote in between, another
// instance of the plugin or a request of ours that was given up and arrived
// after all, may know better. A merge patch without a resourceVersion is
// applied to whatever is there (apiserver, patchResource).
func patch(live version, want meta) ([]byte, error) {
	m := map[string]any{"uid": live.uid, "resourceVersion": live.resource}
	if d := difference(live.annotations, want.annotations); len(d) > 0 {
		m["annotations"] = d
	}
	if d := difference(live.labels, want.labels); len(d) > 0 {
		m["labels"] = d
	}
	return json.Marshal(map[string]any{"metadata": m})
}

func difference(live, want map[string]string) map[string]any {
	d := map[string]any{}
	for k, v := range want {
		if old, ok := live[k]; !ok || old != v {
			d[k] = v
		}
	}
	for k := range live {
		if _, ok := want[k]; !ok {
			d[k] = nil
		}
	}
	return d
}

func versionOf(o metav1.Object, m meta) version {
	return version{meta: m, uid: o.GetUID(), resource: o.GetResourceVersion()}
}
