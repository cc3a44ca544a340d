// Package podgroup serves scheduling.k8s.io/v1beta1 PodGroup.
package podgroup

import (
	"context"

	schedulingv1alpha3 "k8s.io/api/scheduling/v1alpha3"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/leme-k8s/leme/pkg/api/scheduling"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// Storage returns the storage of podgroups and podgroups/status.
func Storage(o generic.Options) (generic.Storage, error) {
	return generic.NewStorage(groups(o.Features), o)
}

func groups(features scheduling.Features) generic.Resource[*schedulingv1alpha3.PodGroup] {
	return generic.Resource[*schedulingv1alpha3.PodGroup]{
		GroupVersion: schedulingv1alpha3.SchemeGroupVersion,
		Name:         "podgroups",

		Status: &generic.Update[*schedulingv1alpha3.PodGroup]{
			KeepsMetadata: true,
			NoTable:       true,
			Prepare: func(_ context.Context, g, _ *schedulingv1alpha3.PodGroup) {
				features.DropDisabledPodGroupStatusFields(g)
			},
			Validate: generic.CheckUpdate(features.ValidatePodGroupStatusUpdate),
		},

		RequireResourceVersion: true,
		DropDisabled:           features.DropDisabledPodGroupFields,
		Validate:               generic.Check(features.ValidatePodGroup),
		ValidateUpdate:         generic.CheckUpdate(features.ValidatePodGroupUpdate),

		Columns: []metav1.TableColumnDefinition{
			generic.NameColumn,
			generic.Column("Policy", "string", schedulingv1beta1.PodGroupSpec{}.SwaggerDoc()["schedulingPolicy"]),
			generic.Column("Workload", "string", "Name of the referenced Workload object"),
			generic.Column("Status", "string", "Status of the PodGroup"),
			generic.AgeColumn,
		},
		Cells: func(g *schedulingv1alpha3.PodGroup) []any {
			policy, workload := "Basic", "<none>"
			if g.Spec.SchedulingPolicy.Gang != nil {
				policy = "Gang"
			}
			if ref := g.Spec.WorkloadRef; ref != nil {
				workload = ref.WorkloadName
			}
			return []any{g.Name, policy, workload, state(g.Status.Conditions), generic.Age(g.CreationTimestamp)}
		},
	}
}

// state is the status of a group in one word.
func state(conditions []metav1.Condition) string {
	if c := meta.FindStatusCondition(conditions, schedulingv1alpha3.DisruptionTarget); c != nil {
		return c.Reason
	}
	switch c := meta.FindStatusCondition(conditions, schedulingv1alpha3.PodGroupInitiallyScheduled); {
	case c == nil:
		return "Pending"
	case c.Status == metav1.ConditionTrue:
		return "Scheduled"
	}
	return "Unschedulable"
}
