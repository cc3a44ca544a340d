// Package poddisruptionbudget serves policy/v1 PodDisruptionBudget.
package poddisruptionbudget

import (
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/leme-k8s/leme/pkg/api/policy"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// Storage returns the storage of poddisruptionbudgets and poddisruptionbudgets/status.
var Storage = generic.StorageOf(generic.Resource[*policyv1.PodDisruptionBudget]{
	GroupVersion: policyv1.SchemeGroupVersion,
	Name:         "poddisruptionbudgets",
	ShortNames:   []string{"pdb"},

	Status: &generic.Update[*policyv1.PodDisruptionBudget]{
		Validate: generic.CheckUpdate(policy.ValidatePodDisruptionBudgetStatusUpdate),
	},

	Generation:             generic.SpecChanged[*policyv1.PodDisruptionBudget],
	RequireResourceVersion: true,
	Validate:               generic.Check(policy.ValidatePodDisruptionBudget),
	ValidateUpdate:         generic.CheckUpdate(policy.ValidatePodDisruptionBudgetUpdate),

	Columns: []metav1.TableColumnDefinition{
		generic.NameColumn,
		generic.Column("Min Available", "string", "The minimum number of pods that must be available."),
		generic.Column("Max Unavailable", "string", "The maximum number of pods that may be unavailable."),
		generic.Column("Allowed Disruptions", "integer", "Calculated number of pods that may be disrupted at this time."),
		generic.AgeColumn,
	},
	Cells: func(b *policyv1.PodDisruptionBudget) []any {
		return []any{
			b.Name, printLimit(b.Spec.MinAvailable), printLimit(b.Spec.MaxUnavailable),
			int64(b.Status.DisruptionsAllowed), generic.Age(b.CreationTimestamp),
		}
	},
})

func printLimit(v *intstr.IntOrString) string {
	if v == nil {
		return "N/A"
	}
	return v.String()
}
