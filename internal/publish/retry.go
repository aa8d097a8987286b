package publish

import (
	"math/rand/v2"
	"time"
)

const (
	firstRetry = 500 * time.Millisecond
	// lastRetry is for what an administrator has to put right, as missing rights.
	lastRetry = time.Minute
	// lastReach is for an API that does not answer. The watch tells when it
	// does, and ends the wait.
	lastReach = 10 * time.Second
)

// retry spaces the tries of something that fails.
type retry struct {
	next time.Time
	wait time.Duration
}

// left is how long to wait yet; 0: try.
func (r *retry) left() time.Duration { return max(0, time.Until(r.next)) }

func (r *retry) failed(most time.Duration) {
	r.wait = min(max(firstRetry, 2*r.wait), most)
	// A part of it is chance: the nodes of a cluster lose their API all at once.
	r.next = time.Now().Add(r.wait/2 + rand.N(r.wait/2))
}

// damper spaces the corrections of one object: the first is made at once. Two
// writers who each take the other's word for wrong, as two versions of the
// plugin that do not know of each other, would else write without end.
type damper struct {
	retry
	last time.Time
}

func (d *damper) corrected() {
	if time.Since(d.last) > 2*lastRetry {
		d.retry = retry{}
	}
	d.last = time.Now()
	d.failed(lastRetry)
}
