// Package conflict takes the noise out of optimistic concurrency.
package conflict

import (
	"context"
	"errors"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// patience is how long the change that a conflict tells of is waited for. It costs one more look at the cache.
const patience = time.Second

// Ignored returns r without its errors about conflicts. A conflict says that an
// object has changed since it was read; the watch that brings the change also brings the
// next reconciliation, so there is nothing to report. Should nothing come, it is tried again all the same: servers have
// been seen to answer so for no reason.
func Ignored(r reconcile.Reconciler) reconcile.Reconciler {
	return reconcile.Func(func(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
		res, err := r.Reconcile(ctx, req)
		if isConflict(err) {
			return reconcile.Result{RequeueAfter: patience}, nil
		}
		return res, err
	})
}

// isConflict reports whether an error is a conflict, or several that all are.
func isConflict(err error) bool {
	var all interface{ Unwrap() []error }
	if errors.As(err, &all) {
		return !slices.ContainsFunc(all.Unwrap(), func(err error) bool { return !isConflict(err) })
	}
	return apierrors.IsConflict(err)
}
