// Package evictionrequest serves lifecycle.k8s.io/v1alpha1 EvictionRequest.
package evictionrequest

import (
	lifecyclev1alpha1 "k8s.io/api/lifecycle/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/leme-k8s/leme/pkg/api/lifecycle"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/lifecycle/internal/cells"
)

// Storage returns the storage of evictionrequests and evictionrequests/status.
var Storage = generic.StorageOf(resource)

var specDoc = lifecyclev1alpha1.EvictionRequestSpec{}.SwaggerDoc()

var resource = generic.Resource[*lifecyclev1alpha1.EvictionRequest]{
	GroupVersion: lifecyclev1alpha1.SchemeGroupVersion,
	Name:         "evictionrequests",

	Status: &generic.Update[*lifecyclev1alpha1.EvictionRequest]{
		KeepsMetadata: true,
		Validate:      generic.CheckUpdate(lifecycle.ValidateEvictionRequestStatusUpdate),
	},
	RequireResourceVersion: true,
	Generation:             generic.SpecChanged[*lifecyclev1alpha1.EvictionRequest],
	Validate:               generic.Check(lifecycle.ValidateEvictionRequest),
	ValidateUpdate:         generic.CheckUpdate(lifecycle.ValidateEvictionRequestUpdate),

	Columns: []metav1.TableColumnDefinition{
		generic.NameColumn,
		generic.Column("Target", "string", specDoc["target"]),
		generic.Column("Target Type", "string", specDoc["target"]),
		generic.Column("Status", "string", lifecyclev1alpha1.EvictionRequestStatus{}.SwaggerDoc()["conditions"]),
		generic.Column("Requester", "string", specDoc["requester"]),
		generic.Column("Intent", "string", specDoc["intent"]),
		generic.AgeColumn,
	},
	Cells: func(r *lifecyclev1alpha1.EvictionRequest) []any {
		target, kind := cells.Target((*lifecyclev1alpha1.EvictionPodReference)(r.Spec.Target.Pod))
		state := cells.State(r.Status.ObservedGeneration, r.Status.Conditions)
		return []any{r.Name, target, kind, state, r.Spec.Requester, string(r.Spec.Intent), generic.Age(r.CreationTimestamp)}
	},
}
