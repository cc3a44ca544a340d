// Package leasecandidate serves coordination.k8s.io/v1beta1 LeaseCandidate, which is also
// served as v1alpha2.
package leasecandidate

import (
	coordinationv1alpha2 "k8s.io/api/coordination/v1alpha2"
	coordinationv1beta1 "k8s.io/api/coordination/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"github.com/leme-k8s/leme/pkg/api/coordination"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// Storage returns the storage of leasecandidates.
var Storage = generic.StorageOf(generic.Resource[*coordinationv1beta1.LeaseCandidate]{
	GroupVersion: coordinationv1beta1.SchemeGroupVersion,
	Name:         "leasecandidates",

	CreateOnUpdate:         true,
	RequireResourceVersion: true,
	Validate:               generic.Check(coordination.ValidateLeaseCandidate),
	ValidateUpdate:         generic.CheckUpdate(coordination.ValidateLeaseCandidateUpdate),

	Fields: func(c *coordinationv1beta1.LeaseCandidate) fields.Set {
		return fields.Set{"spec.leaseName": c.Spec.LeaseName}
	},
	Columns: []metav1.TableColumnDefinition{
		generic.NameColumn,
		generic.Column("LeaseName", "string", coordinationv1alpha2.LeaseCandidateSpec{}.SwaggerDoc()["leaseName"]),
		generic.Column("BinaryVersion", "string", ""),
		generic.Column("EmulationVersion", "string", ""),
		generic.AgeColumn,
	},
	Cells: func(c *coordinationv1beta1.LeaseCandidate) []any {
		return []any{c.Name, c.Spec.LeaseName, c.Spec.BinaryVersion, c.Spec.EmulationVersion, generic.Age(c.CreationTimestamp)}
	},
})
