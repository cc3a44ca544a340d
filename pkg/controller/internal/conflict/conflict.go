// Package conflict takes the noise out of optimistic concurrency.
package conflict

import (
	"context"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// Ignored returns r without its errors about conflicts. A conflict says that an
// object has changed since it was read; the watch that brings the change also brings the
// next reconciliation, so there is nothing to try again and nothing to report. It holds only
// for a controller that watches all that it updates.
func Ignored(r reconcile.Reconciler) reconcile.Reconciler {
	return reconcile.Func(func(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
		res, err := r.Reconcile(ctx, req)
		if apierrors.IsConflict(err) {
			return reconcile.Result{}, nil
		}
		return res, err
	})
}
