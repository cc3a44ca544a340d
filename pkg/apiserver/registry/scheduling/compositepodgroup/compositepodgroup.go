// Package compositepodgroup serves scheduling.k8s.io/v1alpha3 CompositePodGroup.
package compositepodgroup

import (
	schedulingv1alpha3 "k8s.io/api/scheduling/v1alpha3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/leme-k8s/leme/pkg/api/scheduling"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// Storage returns the storage of compositepodgroups and compositepodgroups/status.
func Storage(o generic.Options) (generic.Storage, error) {
	return generic.NewStorage(groups(o.Features), o)
}

func groups(features scheduling.Features) generic.Resource[*schedulingv1alpha3.CompositePodGroup] {
	return generic.Resource[*schedulingv1alpha3.CompositePodGroup]{
		GroupVersion: schedulingv1alpha3.SchemeGroupVersion,
		Name:         "compositepodgroups",

		Status: &generic.Update[*schedulingv1alpha3.CompositePodGroup]{
			KeepsMetadata: true,
			NoTable:       true,
			Validate:      generic.CheckUpdate(features.ValidateCompositePodGroupStatusUpdate),
		},

		RequireResourceVersion: true,
		DropDisabled:           features.DropDisabledCompositePodGroupFields,
		Validate:               generic.Check(features.ValidateCompositePodGroup),
		ValidateUpdate:         generic.CheckUpdate(features.ValidateCompositePodGroupUpdate),

		Columns: []metav1.TableColumnDefinition{
			generic.NameColumn,
			generic.Column("Policy", "string", schedulingv1alpha3.CompositePodGroupSpec{}.SwaggerDoc()["schedulingPolicy"]),
			generic.Column("Workload", "string", "Name of the referenced Workload object"),
			generic.AgeColumn,
		},
		Cells: func(g *schedulingv1alpha3.CompositePodGroup) []any {
			policy, workload := "Basic", "<none>"
			if g.Spec.SchedulingPolicy.Gang != nil {
				policy = "Gang"
			}
			if ref := g.Spec.WorkloadRef; ref != nil {
				workload = ref.WorkloadName
			}
			return []any{g.Name, policy, workload, generic.Age(g.CreationTimestamp)}
		},
	}
}
