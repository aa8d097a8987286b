package lead

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/klog/v2"
)

// Elected leads while it holds a lease of the extenders' own.
type Elected struct {
	*Term
	Leases   coordinationclient.LeasesGetter
	Lease    types.NamespacedName
	Identity string        // of this process, unlike any other
	Duration time.Duration // after which a lease that is not renewed may be taken
}

// Run stands for election until ctx ends. A lease that was lost is stood for
// again: what the process knows of the cluster stays true meanwhile, and what
// others have bound is caught up with.
func (e *Elected) Run(ctx context.Context) error {
	defer e.close()
	lock := &fence{term: e.Term, duration: e.Duration, Interface: &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Namespace: e.Lease.Namespace, Name: e.Lease.Name},
		Client:     e.Leases,
		LockConfig: resourcelock.ResourceLockConfig{Identity: e.Identity},
	}}
	for ctx.Err() == nil {
		// The terms begin and end in fence; the callbacks are late for both.
		elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
			Lock: lock, Name: e.Lease.String(),
			LeaseDuration: e.Duration, RenewDeadline: usable(e.Duration), RetryPeriod: e.Duration * 2 / 15,
			ReleaseOnCancel: true,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: func(context.Context) {},
				OnStoppedLeading: func() {},
			},
		})
		if err != nil {
			return fmt.Errorf("elect a leader by lease %s: %w", e.Lease, err)
		}
		elector.Run(klog.NewContext(ctx, klog.Logger{})) // what it has to say, fence says once
		if ctx.Err() == nil {
			e.end(fmt.Errorf("the lease %s could not be renewed", e.Lease))
		}
	}
	return nil
}
