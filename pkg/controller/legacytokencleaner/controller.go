// Package legacytokencleaner removes tokens that were once made for every service
// account and that nobody uses: marked as invalid first, deleted after as long again.
package legacytokencleaner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/leme-k8s/leme/pkg/api/core/podrefs"
)

const (
	interval          = 24 * time.Hour
	dateFormat        = "2006-01-02"
	lastUsedLabel     = "kubernetes.io/legacy-token-last-used"
	invalidSinceLabel = "kubernetes.io/legacy-token-invalid-since"
	// tracking is the ConfigMap in which the API server says since when it notes the use of tokens.
	tracking = "kube-apiserver-legacy-service-account-token-tracking"
)

// Controller looks at all tokens once a day; a request has no name.
type Controller struct {
	client client.Client
	live   client.Reader
	clock  clock.PassiveClock
	period time.Duration
}

// New returns the controller. A token has period to be used again.
func New(c client.Client, live client.Reader, period time.Duration) *Controller {
	return &Controller{client: c, live: live, clock: clock.RealClock{}, period: period}
}

// Register adds the controller to mgr.
func (c *Controller) Register(mgr manager.Manager, o controller.Options) error {
	return builder.ControllerManagedBy(mgr).Named("legacy-serviceaccount-token-cleaner-controller").WithOptions(o).
		WatchesRawSource(source.Func(func(_ context.Context, q workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
			q.Add(reconcile.Request{})
			return nil
		})).Complete(c)
}

// Reconcile marks and deletes what has not been used.
func (c *Controller) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	now := c.clock.Now().UTC()
	since, err := c.trackedSince(ctx)
	if err != nil {
		return reconcile.Result{}, err
	}
	// The day on which tracking has begun is not a whole one.
	if now.Before(since.AddDate(0, 0, 1).Add(c.period)) {
		return reconcile.Result{RequeueAfter: interval}, nil
	}
	var (
		secrets  corev1.SecretList
		accounts corev1.ServiceAccountList
		pods     corev1.PodList
	)
	if err := errors.Join(c.client.List(ctx, &secrets), c.client.List(ctx, &accounts, client.UnsafeDisableDeepCopy), c.client.List(ctx, &pods, client.UnsafeDisableDeepCopy)); err != nil {
		return reconcile.Result{}, fmt.Errorf("listing Secrets, service accounts and pods: %w", err)
	}
	log := klog.FromContext(ctx)
	var errs []error
	for i := range secrets.Items {
		s := &secrets.Items[i]
		switch decide(s, accounts.Items, pods.Items, c.period, now) {
		case invalidate:
			log.Info("Marking an unused token as invalid", "secret", klog.KObj(s))
			before := s.DeepCopy()
			metav1.SetMetaDataLabel(&s.ObjectMeta, invalidSinceLabel, now.Format(dateFormat))
			if err := c.client.Patch(ctx, s, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})); client.IgnoreNotFound(err) != nil && !apierrors.IsConflict(err) {
				errs = append(errs, fmt.Errorf("marking Secret %s/%s: %w", s.Namespace, s.Name, err))
			}
		case remove:
			log.Info("Deleting an unused token", "secret", klog.KObj(s))
			err := c.client.Delete(ctx, s, client.Preconditions{UID: &s.UID, ResourceVersion: &s.ResourceVersion})
			if client.IgnoreNotFound(err) != nil && !apierrors.IsConflict(err) {
				errs = append(errs, fmt.Errorf("deleting Secret %s/%s: %w", s.Namespace, s.Name, err))
			}
		}
	}
	return reconcile.Result{RequeueAfter: interval}, errors.Join(errs...)
}

func (c *Controller) trackedSince(ctx context.Context) (time.Time, error) {
	cm := &corev1.ConfigMap{}
	if err := c.live.Get(ctx, client.ObjectKey{Namespace: metav1.NamespaceSystem, Name: tracking}, cm); err != nil {
		return time.Time{}, fmt.Errorf("getting since when the use of tokens is noted: %w", err)
	}
	since, err := time.Parse(dateFormat, cm.Data["since"])
	if err != nil {
		return time.Time{}, fmt.Errorf("ConfigMap %s: data.since: %w", tracking, err)
	}
	return since, nil
}

type action int

const (
	keep action = iota
	invalidate
	remove
)

// decide says what to do with a Secret. Only what the token controller of old has made, and listed in the
// account, is touched.
func decide(s *corev1.Secret, accounts []corev1.ServiceAccount, pods []corev1.Pod, period time.Duration, now time.Time) action {
	bound := now.Add(-period)
	day := bound.Format(dateFormat)
	if s.Type != corev1.SecretTypeServiceAccountToken || s.DeletionTimestamp != nil || !s.CreationTimestamp.Time.Before(bound) {
		return keep
	}
	if used, ok := s.Labels[lastUsedLabel]; ok {
		if _, err := time.Parse(dateFormat, used); err != nil || used >= day {
			return keep
		}
	}
	name, uid := s.Annotations[corev1.ServiceAccountNameKey], s.Annotations[corev1.ServiceAccountUIDKey]
	if !slices.ContainsFunc(accounts, func(sa corev1.ServiceAccount) bool {
		return sa.Namespace == s.Namespace && sa.Name == name && (uid == "" || uid == string(sa.UID)) &&
			slices.ContainsFunc(sa.Secrets, func(r corev1.ObjectReference) bool { return r.Name == s.Name })
	}) {
		return keep
	}
	for i := range pods {
		if pods[i].Namespace == s.Namespace && slices.Contains(podrefs.Secrets(&pods[i].Spec), s.Name) {
			return keep
		}
	}
	since := s.Labels[invalidSinceLabel]
	if _, err := time.Parse(dateFormat, since); err != nil {
		return invalidate
	}
	if since >= day {
		return keep
	}
	return remove
}
