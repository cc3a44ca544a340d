// Package election lets one of several instances of a component lead, with the leases of
// client-go. Beyond that, an instance that stops gives the lead away when its work is
// over and not before, and those that stand by notice at once.
package election

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	componentconfig "k8s.io/component-base/config"
	_ "k8s.io/component-base/metrics/prometheus/clientgo/leaderelection" // leader_election_*
)

// ErrLost says that another instance leads now.
var ErrLost = errors.New("lost the leader election")

// looks is how often an instance that stands by looks for a lease that was given away, in
// the time between two of its attempts.
const looks = 4

// unhealthyAfter is how long a leader may go on without having renewed its lease, beyond
// the lease's end, until its health check fails.
const unhealthyAfter = 20 * time.Second

// NewConfig returns what Run needs for the component called name, from what its flags or its
// file say. Its watchdog is the component's health check, which is called leaderElection.
func NewConfig(name string, l componentconfig.LeaderElectionConfiguration, kubeConfig *rest.Config) (*leaderelection.LeaderElectionConfig, error) {
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	lock, err := resourcelock.NewFromKubeconfig(l.ResourceLock, l.ResourceNamespace, l.ResourceName,
		resourcelock.ResourceLockConfig{Identity: host + "_" + string(uuid.NewUUID())}, kubeConfig, l.RenewDeadline.Duration)
	if err != nil {
		return nil, fmt.Errorf("leader election: %w", err)
	}
	return &leaderelection.LeaderElectionConfig{
		Lock:          lock,
		LeaseDuration: l.LeaseDuration.Duration,
		RenewDeadline: l.RenewDeadline.Duration,
		RetryPeriod:   l.RetryPeriod.Duration,
		WatchDog:      leaderelection.NewLeaderHealthzAdaptor(unhealthyAfter),
		Name:          name,
	}, nil
}

// Run waits for the lead, calls lead, and returns what it returns: until ctx ends, or until
// another instance leads, which is ErrLost. The lock must be a lease. Callbacks and
// ReleaseOnCancel of config are not used.
func Run(ctx context.Context, config leaderelection.LeaderElectionConfig, lead func(context.Context) error) error {
	lock, ok := config.Lock.(*resourcelock.LeaseLock)
	if !ok {
		return fmt.Errorf("the lock is a %T, only leases are supported", config.Lock)
	}
	for ctx.Err() == nil {
		t := &term{config: config, lead: lead}
		t.lease = &resourcelock.LeaseLock{LeaseMeta: lock.LeaseMeta, Client: lock.Client, LockConfig: lock.LockConfig}
		t.config.Lock = observed{lock, &t.held}
		if err := t.run(ctx); err != nil || t.led {
			return err
		}
	}
	return nil
}

// term is one attempt to lead: it ends with the lead, or when the lease was seen to be
// free. Then the next begins, which takes it at once.
type term struct {
	config leaderelection.LeaderElectionConfig
	lead   func(context.Context) error
	lease  *resourcelock.LeaseLock // the elector's is not safe for concurrent use
	held   atomic.Bool             // by somebody, when it was last seen by the elector or after that

	mu   sync.Mutex
	led  bool
	over bool
	work sync.WaitGroup
	err  error
}

func (t *term) run(ctx context.Context) error {
	// The lease is kept while the work is being ended.
	held, release := context.WithCancel(context.WithoutCancel(ctx))
	defer release()
	working, stop := context.WithCancel(ctx)
	defer stop()

	config := t.config
	config.ReleaseOnCancel = true
	config.Callbacks = leaderelection.LeaderCallbacks{
		OnStartedLeading: func(context.Context) { t.begin(working, release) },
		OnStoppedLeading: stop,
	}
	elector, err := leaderelection.NewLeaderElector(config)
	if err != nil {
		return err
	}
	if config.WatchDog != nil {
		config.WatchDog.SetLeaderElection(elector)
	}
	defer context.AfterFunc(working, func() { t.end(release) })()

	var looking sync.WaitGroup
	looking.Go(func() { t.lookForRelease(working, release) })
	elector.Run(held)
	stop()
	looking.Wait()
	t.end(release)
	t.work.Wait()
	if t.led && t.err == nil && ctx.Err() == nil {
		return ErrLost
	}
	return t.err
}

// begin leads, unless the term is over. The lease is free when that ends.
func (t *term) begin(ctx context.Context, release func()) {
	t.mu.Lock()
	if t.over {
		t.mu.Unlock()
		return
	}
	t.led = true
	t.work.Add(1)
	t.mu.Unlock()
	defer t.work.Done()
	defer release()
	t.err = t.lead(ctx)
}

// end makes sure that a term that has not begun never does.
func (t *term) end(release func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.led {
		return false
	}
	t.over = true
	release()
	return true
}

// observed is the elector's lock, and tells whether the lease was held when the elector looked.
type observed struct {
	resourcelock.Interface
	held *atomic.Bool
}

// Get implements resourcelock.Interface.
func (o observed) Get(ctx context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	record, raw, err := o.Interface.Get(ctx)
	o.held.Store(err == nil && record.HolderIdentity != "")
	return record, raw, err
}

// lookForRelease ends a term that has not begun when the lease is free that was held when the elector
// looked: client-go would try again only some seconds later.
func (t *term) lookForRelease(ctx context.Context, release func()) {
	every := max(t.config.RetryPeriod/looks, time.Millisecond)
	// The error is that ctx has ended.
	_ = wait.PollUntilContextCancel(ctx, every, false, func(ctx context.Context) (bool, error) {
		record, _, err := t.lease.Get(ctx)
		if err != nil {
			return false, nil // the elector tells of errors
		}
		if record.HolderIdentity != "" {
			t.held.Store(true)
			return record.HolderIdentity == t.lease.Identity(), nil
		}
		return t.held.Load() && t.end(release), nil
	})
}
