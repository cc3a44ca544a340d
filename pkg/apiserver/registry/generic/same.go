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

// seen is the key under which the context of an update has the UID of the object that the update was last applied to.
type seen struct{}

// noted returns the context and the changes of an update, so that the UID of what they change is known.
func noted(ctx context.Context, info rest.UpdatedObjectInfo) (context.Context, rest.UpdatedObjectInfo) {
	n := &notedInfo{UpdatedObjectInfo: info}
	return context.WithValue(ctx, seen{}, &n.uid), n
}

type notedInfo struct {
	rest.UpdatedObjectInfo
	uid types.UID
}

func (n *notedInfo) UpdatedObject(ctx context.Context, old runtime.Object) (runtime.Object, error) {
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
