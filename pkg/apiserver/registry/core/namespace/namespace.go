// Package namespace serves v1 Namespace.
package namespace

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/registry/generic/registry"

	"github.com/leme-k8s/leme/pkg/api/core"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// Storage returns the storage of namespaces, namespaces/status and namespaces/finalize.
func Storage(o generic.Options) (generic.Storage, error) {
	s, err := generic.NewStore(resource, o)
	if err != nil {
		return nil, err
	}
	// The namespace goes when the last of its finalizers, of either kind, is gone.
	s.ShouldDeleteDuringUpdate = func(ctx context.Context, key string, obj, existing runtime.Object) bool {
		return len(obj.(*corev1.Namespace).Spec.Finalizers) == 0 && registry.ShouldDeleteDuringUpdate(ctx, key, obj, existing)
	}
	finalize := s.Part(generic.Update[*corev1.Namespace]{
		Prepare:     func(_ context.Context, obj, old *corev1.Namespace) { obj.Status = old.Status },
		Validate:    generic.CheckUpdate(core.ValidateNamespaceFinalizeUpdate),
		ResetFields: []string{"status"},
	})
	paths := s.Paths()
	paths["namespaces"], paths["namespaces/finalize"] = newStorage(s), finalizeStorage{finalize}
	return paths, nil
}

var resource = generic.Resource[*corev1.Namespace]{
	GroupVersion:  corev1.SchemeGroupVersion,
	Name:          "namespaces",
	ShortNames:    []string{"ns"},
	ClusterScoped: true,

	Status: &generic.Update[*corev1.Namespace]{
		Validate: generic.CheckUpdate(core.ValidateNamespaceStatusUpdate),
	},

	PrepareForCreate: func(_ context.Context, obj *corev1.Namespace) {
		obj.Status.Phase = corev1.NamespaceActive
		// Without it, the namespace could go before what is in it.
		if !slices.Contains(obj.Spec.Finalizers, corev1.FinalizerKubernetes) {
			obj.Spec.Finalizers = append(obj.Spec.Finalizers, corev1.FinalizerKubernetes)
		}
	},
	Validate: generic.Check(core.ValidateNamespace),
	PrepareForUpdate: func(_ context.Context, obj, old *corev1.Namespace) {
		obj.Spec.Finalizers = old.Spec.Finalizers
	},
	ValidateUpdate: generic.CheckUpdate(core.ValidateNamespaceUpdate),
	// A generated name is known only now.
	Canonicalize: func(obj *corev1.Namespace) {
		if obj.Labels == nil {
			obj.Labels = map[string]string{}
		}
		obj.Labels[corev1.LabelMetadataName] = obj.Name
	},
	ReturnDeleted: true,

	Fields: func(ns *corev1.Namespace) fields.Set { return fields.Set{"status.phase": string(ns.Status.Phase)} },
	Columns: []metav1.TableColumnDefinition{
		generic.NameColumn,
		generic.Column("Status", "string", "The status of the namespace"),
		generic.AgeColumn,
	},
	Cells: func(ns *corev1.Namespace) []any {
		return []any{ns.Name, string(ns.Status.Phase), generic.Age(ns.CreationTimestamp)}
	},
}
