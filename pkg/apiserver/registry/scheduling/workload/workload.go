// Package workload serves scheduling.k8s.io/v1beta1 Workload.
package workload

import (
	schedulingv1alpha3 "k8s.io/api/scheduling/v1alpha3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/leme-k8s/leme/pkg/api/scheduling"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// Storage returns the storage of workloads.
func Storage(o generic.Options) (generic.Storage, error) {
	return generic.NewStorage(workloads(o.Features), o)
}

func workloads(features scheduling.Features) generic.Resource[*schedulingv1alpha3.Workload] {
	return generic.Resource[*schedulingv1alpha3.Workload]{
		GroupVersion: schedulingv1alpha3.SchemeGroupVersion,
		Name:         "workloads",

		RequireResourceVersion: true,
		DropDisabled:           features.DropDisabledWorkloadFields,
		Validate:               generic.Check(features.ValidateWorkload),
		ValidateUpdate:         generic.CheckUpdate(features.ValidateWorkloadUpdate),

		Columns: []metav1.TableColumnDefinition{generic.NameColumn, generic.AgeColumn},
		Cells: func(w *schedulingv1alpha3.Workload) []any {
			return []any{w.Name, generic.Age(w.CreationTimestamp)}
		},
	}
}
