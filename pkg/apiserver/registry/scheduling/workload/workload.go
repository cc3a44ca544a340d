// Package workload serves scheduling.k8s.io/v1beta1 Workload.
package workload

import (
	"context"

	schedulingv1alpha3 "k8s.io/api/scheduling/v1alpha3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/leme-k8s/leme/pkg/api/scheduling"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// Storage returns the storage of workloads.
func Storage(o generic.Options) (generic.Storage, error) {
	return generic.NewStorage(workloads(o.Features), o)
}

func workloads(features map[string]bool) generic.Resource[*schedulingv1alpha3.Workload] {
	return generic.Resource[*schedulingv1alpha3.Workload]{
		GroupVersion: schedulingv1alpha3.SchemeGroupVersion,
		Name:         "workloads",

		RequireResourceVersion: true,
		PrepareForCreate: func(_ context.Context, w *schedulingv1alpha3.Workload) {
			scheduling.DropDisabledWorkloadFields(&w.Spec, nil, features)
		},
		PrepareForUpdate: func(_ context.Context, w, old *schedulingv1alpha3.Workload) {
			scheduling.DropDisabledWorkloadFields(&w.Spec, &old.Spec, features)
		},
		Validate: func(_ context.Context, w *schedulingv1alpha3.Workload) field.ErrorList {
			return scheduling.ValidateWorkload(w, features)
		},
		ValidateUpdate: func(_ context.Context, w, old *schedulingv1alpha3.Workload) field.ErrorList {
			return scheduling.ValidateWorkloadUpdate(w, old, features)
		},

		Columns: []metav1.TableColumnDefinition{generic.NameColumn, generic.AgeColumn},
		Cells: func(w *schedulingv1alpha3.Workload) []any {
			return []any{w.Name, generic.Age(w.CreationTimestamp)}
		},
	}
}
