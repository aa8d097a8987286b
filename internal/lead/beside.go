package lead

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"
)

const (
	// lookEvery is how often the lease is read, and lookFor how long one read
	// may take.
	lookEvery = 500 * time.Millisecond
	lookFor   = 2 * time.Second
	// settleFor is longer than another extender takes to see that its
	// kube-scheduler gave the lease up (ReleaseOnCancel, when it is stopped).
	settleFor = time.Second
)

// Beside leads while the kube-scheduler of the same pod does.
//
// It reads the lease itself, again and again, and not from a watch: how old
// what a watch tells is, nobody knows. A read is answered with what holds when
// it is answered; so what one read does not show yet was written after that
// read began.
type Beside struct {
	*Term
	Leases coordinationclient.LeasesGetter
	Lease  types.NamespacedName // that kube-scheduler elects its leader by
	// Host is the host name that the kube-scheduler sees. Its identity is that,
	// "_" and a UUID (cmd/kube-scheduler/app/options, makeLeaderElectionConfig).
	Host string

	last sighting
}

// sighting is what was last seen of the lease.
type sighting struct {
	asked   time.Time // when the read began
	version string    // all that makes a renewal one; empty for no lease
	since   time.Time // version was not there yet at that moment; zero if that is not known
}

// Run watches over the lease until ctx ends.
func (b *Beside) Run(ctx context.Context) error {
	defer b.close()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		b.look(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (b *Beside) look(ctx context.Context) {
	asked := time.Now()
	try, cancel := context.WithTimeout(ctx, lookFor)
	defer cancel()
	lease, err := b.Leases.Leases(b.Lease.Namespace).Get(try, b.Lease.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		b.saw(asked, "")
		b.end(fmt.Errorf("there is no lease %s: kube-scheduler must elect a leader (leaderElect: true) by that lease", b.Lease))
	case err != nil:
		// What was known stays true, until it lapses.
		if !b.live() {
			b.end(fmt.Errorf("get lease %s: %w", b.Lease, err))
		}
	default:
		version, err := json.Marshal(lease.Spec)
		if err != nil {
			b.end(fmt.Errorf("read lease %s: %w", b.Lease, err))
			return
		}
		b.saw(asked, string(version))
		b.judge(&lease.Spec)
	}
}

func (b *Beside) saw(asked time.Time, version string) {
	if b.last.asked.IsZero() {
		b.last.version = version
	} else if version != b.last.version {
		b.last.version, b.last.since = version, b.last.asked
	}
	b.last.asked = asked
}

func (b *Beside) judge(s *coordinationv1.LeaseSpec) {
	holder, seconds, terms := value(s.HolderIdentity), value(s.LeaseDurationSeconds), value(s.LeaseTransitions)
	until := b.last.since.Add(usable(time.Duration(seconds) * time.Second))
	switch {
	case holder == "":
		b.end(fmt.Errorf("nobody holds the lease %s", b.Lease))
	case !b.isOurs(holder):
		b.end(fmt.Errorf("the lease %s is held by %s, and not by the kube-scheduler of host %s beside this extender", b.Lease, holder, b.Host))
	case b.last.since.IsZero():
		b.end(fmt.Errorf("the lease %s has not been renewed before our eyes yet", b.Lease))
	case !time.Now().Before(until):
		b.end(fmt.Errorf("the lease %s is no longer renewed by %s", b.Lease, holder))
	default:
		b.hold(fmt.Sprintf("%d of %s", terms, holder), until, settleFor)
	}
}

func (b *Beside) isOurs(holder string) bool {
	if i := strings.LastIndexByte(holder, '_'); i >= 0 && holder[:i] == b.Host {
		return true
	}
	return holder == b.Host
}

func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}
