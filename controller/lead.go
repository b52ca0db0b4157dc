package controller

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordination "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// LeaseName is the Lease that the leader holds.
const LeaseName = "horkos-controller"

// ErrLost is the end of a leader that could not renew its Lease.
var ErrLost = errors.New("the lease could not be renewed: another replica may lead now")

// Election makes one of several replicas the leader.
type Election struct {
	elector *leaderelection.LeaderElector
	leads   chan context.Context // of a leadership
	health  *leaderelection.HealthzAdaptor
}

// NewElection prepares an election by the Lease in the namespace. No two replicas may have the
// same identity. A leader that went silent is replaced after the duration. The requests share
// no rate limit with any other client: a Lease is renewed however much there is to write.
func NewElection(config *rest.Config, namespace, identity string, duration time.Duration) (*Election, error) {
	own := rest.CopyConfig(config)
	own.RateLimiter = nil
	client, err := coordination.NewForConfig(own)
	if err != nil {
		return nil, fmt.Errorf("prepare to elect a leader: %w", err)
	}
	e := &Election{leads: make(chan context.Context), health: leaderelection.NewLeaderHealthzAdaptor(duration)}
	e.elector, err = leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Name: LeaseName,
		Lock: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: namespace, Name: LeaseName},
			Client:     client,
			LockConfig: resourcelock.ResourceLockConfig{Identity: identity},
		},
		// As Kubernetes has them: 15 s, 10 s, 2 s.
		LeaseDuration:   duration,
		RenewDeadline:   duration * 2 / 3,
		RetryPeriod:     duration * 2 / 15,
		ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(ctx context.Context) {
				select {
				case e.leads <- ctx:
				case <-ctx.Done():
				}
			},
			OnStoppedLeading: func() {},
		},
	})
	if err != nil {
		return nil, fmt.Errorf("prepare to elect a leader: %w", err)
	}
	e.health.SetLeaderElection(e.elector)
	return e, nil
}

// Run waits to be the leader and works until the context ends, or until the Lease is lost,
// which is ErrLost: the program is to end then. The Lease is given back when the work has
// ended, and not before.
func (e *Election) Run(ctx context.Context, work func(context.Context)) error {
	electing, stop := context.WithCancel(context.WithoutCancel(ctx))
	over := make(chan struct{})
	go func() {
		defer close(over)
		e.elector.Run(electing)
	}()
	defer func() {
		stop()
		<-over
	}()
	select {
	case <-ctx.Done():
		return nil
	case leading := <-e.leads:
		working, cancel := context.WithCancel(leading)
		defer cancel()
		defer context.AfterFunc(ctx, cancel)()
		work(working)
	}
	if ctx.Err() == nil {
		return ErrLost
	}
	return nil
}

// Leader is the identity of the leader as far as it is known; empty before.
func (e *Election) Leader() string { return e.elector.GetLeader() }

// Healthy fails when this replica leads and has long not renewed its Lease.
func (e *Election) Healthy(r *http.Request) error { return e.health.Check(r) }
