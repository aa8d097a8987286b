package publish

import (
	"encoding/json"
	"maps"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
)

// apiTimeout bounds one write, so that an API server that hangs holds up
// nothing for long.
const apiTimeout = 10 * time.Second

// meta are the annotations and labels of an object that are ours.
type meta struct{ annotations, labels map[string]string }

func (m meta) equal(o meta) bool {
	return maps.Equal(m.annotations, o.annotations) && maps.Equal(m.labels, o.labels)
}

// patch is the JSON merge patch that turns the keys of live into those of
// want. A uid makes the API server refuse it for a later object of that name.
func patch(live, want meta, uid types.UID) ([]byte, error) {
	m := map[string]any{}
	if uid != "" {
		m["uid"] = uid
	}
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

// record is what our last write of an object left there. It stands in for the
// watched object until the watch has caught up.
type record struct {
	meta
	version string // resourceVersion; empty: never written
	retry   retry
}

func (r *record) set(m meta, written metav1.Object) {
	r.meta, r.version = m, written.GetResourceVersion()
	r.retry.succeeded()
}

// newerThan tells whether the watch is still behind our write.
func (r *record) newerThan(watched metav1.Object) bool {
	if r.version == "" {
		return false
	}
	c, err := resourceversion.CompareResourceVersion(watched.GetResourceVersion(), r.version)
	return err == nil && c < 0
}

// retry spaces the tries of one object.
type retry struct {
	next time.Time
	wait time.Duration
}

const (
	firstRetry = 500 * time.Millisecond
	lastRetry  = time.Minute
)

// left is how long to wait yet; 0: try.
func (r *retry) left() time.Duration { return max(0, time.Until(r.next)) }

func (r *retry) failed() {
	r.wait = min(max(firstRetry, 2*r.wait), lastRetry)
	r.next = time.Now().Add(r.wait)
}

func (r *retry) succeeded() { *r = retry{} }
