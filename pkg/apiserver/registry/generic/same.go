package generic

import (
	"context"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/storage"
)

// An update of an object that is being deleted deletes it when nothing keeps it any more, such as the last finalizer.
// registry.Store then deletes what has the object's name, which may be a new object if somebody else has deleted the old
// one meanwhile and created another. sameObject and noted make sure that it deletes only what the update has seen.

// seen is the key under which a noted update has the UID of what it was last applied to.
type seen struct{}

// noted is both the context of an update and its changes: the changes note what they are applied to, the context tells.
type noted struct {
	context.Context
	rest.UpdatedObjectInfo
	uid types.UID
}

// Value implements context.Context.
func (n *noted) Value(key any) any {
	if key == (seen{}) {
		return &n.uid
	}
	return n.Context.Value(key)
}

// UpdatedObject implements rest.UpdatedObjectInfo.
func (n *noted) UpdatedObject(ctx context.Context, old runtime.Object) (runtime.Object, error) {
	if m, err := meta.Accessor(old); err == nil {
		n.uid = m.GetUID()
	}
	return n.UpdatedObjectInfo.UpdatedObject(ctx, old)
}

// sameObject is a storage in which an update deletes nothing but the object that it has seen.
type sameObject struct{ storage.Interface }

func (s sameObject) Delete(ctx context.Context, key string, out runtime.Object, preconditions *storage.Preconditions,
	validate storage.ValidateObjectFunc, cached runtime.Object, opts storage.DeleteOptions,
) error {
	if uid, ok := ctx.Value(seen{}).(*types.UID); ok && preconditions.UID == nil {
		preconditions = &storage.Preconditions{UID: uid, ResourceVersion: preconditions.ResourceVersion}
	}
	return s.Interface.Delete(ctx, key, out, preconditions, validate, cached, opts)
}
