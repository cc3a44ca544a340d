// Package protection keeps what is in use from going: a finalizer is on it from the
// beginning, and comes off once it is being deleted and no longer used.
package protection

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
)

// Needed reports whether Apply may have something to do.
func Needed(o client.Object, finalizer string) bool {
	return (o.GetDeletionTimestamp() != nil) == controllerutil.ContainsFinalizer(o, finalizer)
}

// Apply puts the finalizer on o, which is as the cache has it, or takes it off.
func Apply(ctx context.Context, c client.Client, o client.Object, finalizer string, inUse func() (bool, error)) error {
	switch {
	case !Needed(o, finalizer):
		return nil
	case o.GetDeletionTimestamp() == nil:
		controllerutil.AddFinalizer(o, finalizer)
	default:
		used, err := inUse()
		if err != nil || used {
			return err
		}
		controllerutil.RemoveFinalizer(o, finalizer)
	}
	err := c.Update(ctx, o)
	if apierrors.IsConflict(err) {
		return err // as it is, so that it is recognized
	}
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("updating the finalizers of %s: %w", o.GetName(), err)
	}
	return nil
}
