package lead

import (
	"context"
	"fmt"
	"time"

	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// fence is a lock that tells a Term what becomes of it. client-go's elector
// tells it too, but not from when on a renewal counts, and a lease that it gives
// up (ReleaseOnCancel) it gives up at once.
type fence struct {
	resourcelock.Interface
	term     *Term
	duration time.Duration
}

// Get implements resourcelock.Interface.
func (f *fence) Get(ctx context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	record, raw, err := f.Interface.Get(ctx)
	switch {
	case err != nil:
		f.failed("get", err)
	case record.HolderIdentity != f.Identity():
		f.term.end(fmt.Errorf("the lease %s is held by %q", f.Describe(), record.HolderIdentity))
	}
	return record, raw, err
}

// Create implements resourcelock.Interface.
func (f *fence) Create(ctx context.Context, r resourcelock.LeaderElectionRecord) error {
	return f.write(ctx, "create", r, f.Interface.Create)
}

// Update implements resourcelock.Interface.
func (f *fence) Update(ctx context.Context, r resourcelock.LeaderElectionRecord) error {
	return f.write(ctx, "update", r, f.Interface.Update)
}

func (f *fence) write(ctx context.Context, verb string, r resourcelock.LeaderElectionRecord, write func(context.Context, resourcelock.LeaderElectionRecord) error) error {
	if r.HolderIdentity != f.Identity() {
		if err := f.term.drain(ctx); err != nil {
			return fmt.Errorf("keep the lease %s until it expires: %w", f.Describe(), err)
		}
		return write(ctx, r)
	}
	began := time.Now() // nobody saw the renewal before
	if err := write(ctx, r); err != nil {
		f.failed(verb, err)
		return err
	}
	name := fmt.Sprintf("%d of %s, acquired %d", r.LeaderTransitions, r.HolderIdentity, r.AcquireTime.Unix())
	f.term.hold(name, began.Add(usable(f.duration)), 0)
	return nil
}

// failed says what is wrong, unless the term goes on nevertheless.
func (f *fence) failed(verb string, err error) {
	if !f.term.live() {
		f.term.end(fmt.Errorf("%s lease %s: %w", verb, f.Describe(), err))
	}
}
