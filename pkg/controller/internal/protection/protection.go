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
	if o.GetDeletionTimestamp() != nil {
		return Release(ctx, c, o, finalizer, inUse)
	}
	if !controllerutil.AddFinalizer(o, finalizer) {
		return nil
	}
	return update(ctx, c, o)
}

// Release takes the finalizer off o, which is as the cache has it, once it is being deleted and no longer used.
func Release(ctx context.Context, c client.Client, o client.Object, finalizer string, inUse func() (bool, error)) error {
	if o.GetDeletionTimestamp() == nil || !controllerutil.ContainsFinalizer(o, finalizer) {
		return nil
	}
	if used, err := inUse(); err != nil || used {
		return err
	}
	controllerutil.RemoveFinalizer(o, finalizer)
	return update(ctx, c, o)
}

func update(ctx context.Context, c client.Client, o client.Object) error {
	err := c.Update(ctx, o)
	if apierrors.IsConflict(err) {
		return err // as it is, so that it is recognized
	}
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("updating the finalizers of %s: %w", o.GetName(), err)
	}
	return nil
}
