// Package coordinatedelection elects the leaders of components that stand for it as LeaseCandidates (KEP-4355), where
// the feature gate CoordinatedLeaderElection is on. Of the servers of a cluster, one does so; the others stand by.
//
//	step.go        who is to lead, and what must be asked before that can be said
//	controller.go  asks and writes it
package coordinatedelection

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	coordinationv1beta1 "k8s.io/api/coordination/v1beta1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	coordinationlisters "k8s.io/client-go/listers/coordination/v1"
	candidatelisters "k8s.io/client-go/listers/coordination/v1beta1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"

	"github.com/leme-k8s/leme/pkg/component/election"
)

const (
	// leaseName is of the lease of the server that elects.
	leaseName = "leader-election-controller"
	// again is how often a lease for which there are candidates is looked at, whatever happens.
	again = 5 * time.Second
	// removal is how often candidates are removed that do not stand any more.
	removal = 30 * time.Minute
)

// Timing is that of the lease of the server that elects.
type Timing struct {
	LeaseDuration, RenewDeadline, RetryPeriod time.Duration
}

// DefaultTiming returns the original's.
func DefaultTiming() Timing {
	return Timing{LeaseDuration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: 2 * time.Second}
}

// Validate says what is wrong with the timing, by the names of the flags.
func (t Timing) Validate() []error {
	var errs []error
	if t.LeaseDuration <= t.RenewDeadline {
		errs = append(errs, errors.New("--coordinated-leadership-lease-duration must be greater than --coordinated-leadership-renew-deadline"))
	}
	if t.RenewDeadline <= t.RetryPeriod {
		errs = append(errs, errors.New("--coordinated-leadership-renew-deadline must be greater than --coordinated-leadership-retry-period"))
	}
	return errs
}

// Controller elects leaders.
type Controller struct {
	client     kubernetes.Interface
	timing     Timing
	leases     coordinationlisters.LeaseLister
	candidates candidatelisters.LeaseCandidateLister
	watched    []cache.SharedIndexInformer
}

// New returns a Controller. The informers must not have started yet.
func New(client kubernetes.Interface, informers informers.SharedInformerFactory, timing Timing) *Controller {
	leases, candidates := informers.Coordination().V1().Leases(), informers.Coordination().V1beta1().LeaseCandidates()
	return &Controller{
		client: client, timing: timing, leases: leases.Lister(), candidates: candidates.Lister(),
		watched: []cache.SharedIndexInformer{leases.Informer(), candidates.Informer()},
	}
}

// Hook is a post-start hook that lets this server stand for electing, and elect while it is the one.
func (c *Controller) Hook(hc server.PostStartHookContext) error {
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("naming this server in the lease %s: %w", leaseName, err)
	}
	config := leaderelection.LeaderElectionConfig{
		Name: leaseName,
		Lock: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: leaseName},
			Client:     c.client.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: host + "_" + string(uuid.NewUUID())},
		},
		LeaseDuration: c.timing.LeaseDuration, RenewDeadline: c.timing.RenewDeadline, RetryPeriod: c.timing.RetryPeriod,
	}
	go wait.UntilWithContext(hc.Context, func(ctx context.Context) {
		if err := election.Run(ctx, config, c.elect); err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "Electing the leaders of components")
		}
	}, c.timing.RetryPeriod)
	return nil
}

// elect holds elections until ctx ends.
func (c *Controller) elect(ctx context.Context) error {
	queue := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[types.NamespacedName]())
	changed := func(obj any) {
		if lease, ok := leaseOf(obj); ok {
			queue.Add(lease)
		}
	}
	handler := cache.ResourceEventHandlerFuncs{AddFunc: changed, UpdateFunc: func(_, obj any) { changed(obj) }, DeleteFunc: changed}
	for _, informer := range c.watched {
		registration, err := informer.AddEventHandler(handler)
		if err != nil {
			return err
		}
		defer func() { _ = informer.RemoveEventHandler(registration) }()
		if !cache.WaitForCacheSync(ctx.Done(), registration.HasSynced) {
			return nil
		}
	}
	var work sync.WaitGroup
	defer work.Wait()
	defer queue.ShutDown()
	work.Go(func() { wait.UntilWithContext(ctx, c.removeOld, removal) })
	work.Go(func() {
		for c.one(ctx, queue) {
		}
	})
	<-ctx.Done()
	return nil
}

// leaseOf names the lease that an object is, or is a candidate for. A candidate that was asked and has not
// answered changes nothing.
func leaseOf(obj any) (types.NamespacedName, bool) {
	if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = gone.Obj
	}
	switch o := obj.(type) {
	case *coordinationv1.Lease:
		return types.NamespacedName{Namespace: o.Namespace, Name: o.Name}, true
	case *coordinationv1beta1.LeaseCandidate:
		return types.NamespacedName{Namespace: o.Namespace, Name: o.Spec.LeaseName}, o.Spec.PingTime == nil || !o.Spec.RenewTime.Before(o.Spec.PingTime)
	}
	return types.NamespacedName{}, false
}

// one brings one election forward, and is false when there will be no further one.
func (c *Controller) one(ctx context.Context, queue workqueue.TypedRateLimitingInterface[types.NamespacedName]) bool {
	key, over := queue.Get()
	if over {
		return false
	}
	defer queue.Done(key)
	goes, err := c.forward(ctx, key)
	switch {
	case err != nil && ctx.Err() == nil && !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err):
		klog.FromContext(ctx).Error(err, "Electing a leader", "lease", key)
		queue.AddRateLimited(key)
	case err != nil: // the caches will have seen what is new
		queue.AddRateLimited(key)
	case goes:
		queue.Forget(key)
		queue.AddAfter(key, again)
	}
	return true
}

// forward takes the next step for a lease, and tells whether there are candidates for it.
func (c *Controller) forward(ctx context.Context, key types.NamespacedName) (bool, error) {
	now := time.Now()
	all, err := c.candidates.LeaseCandidates(key.Namespace).List(labels.Everything())
	if err != nil {
		return false, err
	}
	var candidates []*coordinationv1beta1.LeaseCandidate
	for _, candidate := range all {
		if candidate.Spec.LeaseName == key.Name && !candidacyOver(candidate, now) {
			candidates = append(candidates, candidate)
		}
	}
	lease, err := c.leases.Leases(key.Namespace).Get(key.Name)
	if err != nil && !apierrors.IsNotFound(err) {
		return false, err
	} else if err != nil {
		lease = nil
	}
	s, err := next(lease, candidates, now)
	if err != nil {
		return false, err
	}
	return len(candidates) > 0, c.take(ctx, s, now)
}

// take does what a step says.
func (c *Controller) take(ctx context.Context, s step, now time.Time) error {
	for _, candidate := range s.ask {
		asked := candidate.DeepCopy()
		asked.Spec.PingTime = &metav1.MicroTime{Time: now}
		if _, err := c.client.CoordinationV1beta1().LeaseCandidates(asked.Namespace).Update(ctx, asked, metav1.UpdateOptions{}); err != nil {
			return err
		}
	}
	if s.write == nil {
		return nil
	}
	leases := c.client.CoordinationV1().Leases(s.write.Namespace)
	if s.write.ResourceVersion == "" {
		_, err := leases.Create(ctx, s.write, metav1.CreateOptions{})
		return err
	}
	_, err := leases.Update(ctx, s.write, metav1.UpdateOptions{})
	return err
}

// removeOld removes candidates that do not stand any more.
func (c *Controller) removeOld(ctx context.Context) {
	all, err := c.candidates.List(labels.Everything())
	for _, candidate := range all {
		if !candidacyOver(candidate, time.Now()) {
			continue
		}
		unchanged := metav1.DeleteOptions{Preconditions: &metav1.Preconditions{ResourceVersion: &candidate.ResourceVersion}}
		e := c.client.CoordinationV1beta1().LeaseCandidates(candidate.Namespace).Delete(ctx, candidate.Name, unchanged)
		if !apierrors.IsNotFound(e) && !apierrors.IsConflict(e) {
			err = errors.Join(err, e)
		}
	}
	if err != nil && ctx.Err() == nil {
		klog.FromContext(ctx).Error(err, "Removing candidates that do not stand any more")
	}
}
