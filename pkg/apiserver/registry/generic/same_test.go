package generic

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	genericrequest "k8s.io/apiserver/pkg/endpoints/request"
	genericregistry "k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"k8s.io/apiserver/pkg/storage/storagebackend/factory"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"
)

// replaced is a storage in which somebody else replaces the one object there is between an update's look at it and its
// deletion.
type replaced struct {
	storage.Interface
	now, then *corev1.ConfigMap
	deleted   bool
}

func (r *replaced) GuaranteedUpdate(_ context.Context, _ string, _ runtime.Object, _ bool, _ *storage.Preconditions, try storage.UpdateFunc, _ runtime.Object) error {
	_, _, err := try(r.now.DeepCopy(), storage.ResponseMeta{})
	r.now = r.then
	return err
}

func (r *replaced) Delete(_ context.Context, key string, _ runtime.Object, p *storage.Preconditions, _ storage.ValidateObjectFunc, _ runtime.Object, _ storage.DeleteOptions) error {
	if err := p.Check(key, r.now); err != nil {
		return err
	}
	r.deleted = true
	return nil
}

func (r *replaced) ReadinessCheck() error { return nil }

func (r *replaced) Versioner() storage.Versioner { return storage.APIObjectVersioner{} }

// Two clients take the last finalizer off an object. What the slower one deletes must not be the object that has been
// created under the same name since the faster one deleted the old one.
func TestUpdateDeletesNoOther(t *testing.T) {
	object := func(uid types.UID) *corev1.ConfigMap {
		return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
			Name: "c", Namespace: "ns", UID: uid, ResourceVersion: "1", Finalizers: []string{"example.com/held"},
			DeletionTimestamp: ptr.To(metav1.Now()), DeletionGracePeriodSeconds: ptr.To[int64](0),
		}}
	}
	free := rest.DefaultUpdatedObjectInfo(nil, func(_ context.Context, _, old runtime.Object) (runtime.Object, error) {
		freed := old.DeepCopyObject().(*corev1.ConfigMap)
		freed.Finalizers = nil
		return freed, nil
	})
	ctx := genericrequest.WithRequestInfo(genericrequest.WithNamespace(t.Context(), "ns"), &genericrequest.RequestInfo{APIGroup: "", APIVersion: "v1", Resource: "configmaps"})
	for name, tc := range map[string]struct {
		then    types.UID
		part    bool
		deleted bool
	}{
		"the same":             {then: "old", deleted: true},
		"another":              {then: "new"},
		"through status":       {then: "old", part: true, deleted: true},
		"another, by a status": {then: "new", part: true},
	} {
		t.Run(name, func(t *testing.T) {
			fake := &replaced{now: object("old"), then: object(tc.then)}
			s := storeOn(t, fake)
			update := s.Update
			if tc.part {
				update = s.Part(Update[*corev1.ConfigMap]{}).Update
			}
			_, _, err := update(ctx, "c", free, rest.ValidateAllObjectFunc, rest.ValidateAllObjectUpdateFunc, false, &metav1.UpdateOptions{})
			if fake.deleted != tc.deleted || apierrors.IsConflict(err) == tc.deleted {
				t.Errorf("deleted: %v, error: %v", fake.deleted, err)
			}
		})
	}
}

// storeOn returns a store of ConfigMaps on a storage.
func storeOn(t testing.TB, s storage.Interface) *Store[*corev1.ConfigMap] {
	t.Helper()
	codec := scheme.Codecs.LegacyCodec(corev1.SchemeGroupVersion)
	store, err := NewStore(Resource[*corev1.ConfigMap]{
		GroupVersion: corev1.SchemeGroupVersion, Name: "configmaps",
	}, Options{Scheme: scheme.Scheme, RESTOptions: genericregistry.RESTOptions{
		StorageConfig: (&storagebackend.Config{Codec: codec}).ForResource(corev1.Resource("configmaps")), ResourcePrefix: "/configmaps",
		Decorator: func(*storagebackend.ConfigForResource, string, func(runtime.Object) (string, error), func() runtime.Object, func() runtime.Object,
			storage.AttrFunc, storage.IndexerFuncs, *cache.Indexers,
		) (storage.Interface, factory.DestroyFunc, error) {
			return s, func() {}, nil
		},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// BenchmarkUpdate is what an update costs besides the storage, and what of that is knowing what it has seen.
func BenchmarkUpdate(b *testing.B) {
	object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "c", Namespace: "ns", UID: "u", ResourceVersion: "1"}}
	s := storeOn(b, &replaced{now: object, then: object})
	changes := rest.DefaultUpdatedObjectInfo(nil, func(_ context.Context, _, old runtime.Object) (runtime.Object, error) {
		return old.DeepCopyObject(), nil
	})
	ctx := genericrequest.WithRequestInfo(genericrequest.WithNamespace(b.Context(), "ns"), &genericrequest.RequestInfo{APIVersion: "v1", Resource: "configmaps"})
	for name, update := range map[string]rest.Updater{"guarded": s, "not guarded": s.Store} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := update.Update(ctx, "c", changes, rest.ValidateAllObjectFunc, rest.ValidateAllObjectUpdateFunc, false, &metav1.UpdateOptions{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
