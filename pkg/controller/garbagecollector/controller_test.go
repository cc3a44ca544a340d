package garbagecollector

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/metadata/fake"
	"k8s.io/client-go/tools/record"
	"k8s.io/component-base/metrics"
	"k8s.io/utils/ptr"
)

// An owner that waits for the end of dependents that do not block it stops waiting at once. If somebody else holds it, it is still there when
// they are looked at: they go all the same.
func TestOwnerThatHasWaited(t *testing.T) {
	kind := corev1.SchemeGroupVersion.WithKind("ConfigMap")
	described := func(name string, change func(*metav1.PartialObjectMetadata)) *metav1.PartialObjectMetadata {
		m := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID("u-" + name)}}
		m.SetGroupVersionKind(kind)
		change(m)
		return m
	}
	owner := func(finalizers ...string) *metav1.PartialObjectMetadata {
		return described("owner", func(m *metav1.PartialObjectMetadata) {
			m.Finalizers = append(finalizers, "example.com/hold")
			m.DeletionTimestamp = ptr.To(metav1.Now())
		})
	}
	child := described("child", func(m *metav1.PartialObjectMetadata) {
		m.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: "owner", UID: "u-owner"}}
	})
	for name, c := range map[string]struct {
		seen *metav1.PartialObjectMetadata // of the owner, before
		goes bool
	}{
		"that has waited":     {owner(metav1.FinalizerDeleteDependents), true},
		"that has not waited": {owner(), false},
	} {
		scheme := runtime.NewScheme()
		if err := metav1.AddMetaToScheme(scheme); err != nil {
			t.Fatal(err)
		}
		api := fake.NewSimpleMetadataClient(scheme, owner(), child)
		mapper := meta.NewDefaultRESTMapper(nil)
		mapper.Add(kind, meta.RESTScopeNamespace)
		gc := New(mapper, silent{}, api, record.NewFakeRecorder(1), metrics.NewKubeRegistry())
		for _, m := range []*metav1.PartialObjectMetadata{c.seen, child, owner()} {
			gc.graph.observe(fromMetadata(kind, m))
		}
		if _, err := gc.Reconcile(t.Context(), child.UID); err != nil {
			t.Fatal(err)
		}
		deleted := false
		for _, a := range api.Actions() {
			deleted = deleted || a.GetVerb() == "delete"
		}
		if deleted != c.goes {
			t.Errorf("an owner %s: deleted %t", name, deleted)
		}
	}
}
