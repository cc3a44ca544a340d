// Package resourceclaimtemplate serves resource.k8s.io/v1 ResourceClaimTemplate.
package resourceclaimtemplate

import (
	"context"

	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/leme-k8s/leme/pkg/api/resource"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/resource/access"
)

// Storage returns the storage of resourceclaimtemplates, of which the guard lets only
// some ask for administrators' access.
func Storage(o generic.Options, guard *access.Guard) (generic.Storage, error) {
	return generic.NewStorage(generic.Resource[*resourcev1.ResourceClaimTemplate]{
		GroupVersion: resourcev1.SchemeGroupVersion,
		Name:         "resourceclaimtemplates",

		ReturnDeleted: true,
		DropDisabled:  resource.DropDisabledTemplateFields,
		Validate: func(ctx context.Context, t *resourcev1.ResourceClaimTemplate) field.ErrorList {
			errs := guard.Requests(ctx, t.Namespace, t.Spec.Spec.Devices.Requests)
			return append(errs, resource.ValidateResourceClaimTemplate(t)...)
		},
		ValidateUpdate: generic.CheckUpdate(resource.ValidateResourceClaimTemplateUpdate),
		NameFields:     resource.NameFields,

		Columns: []metav1.TableColumnDefinition{generic.NameColumn, generic.AgeColumn},
		Cells: func(t *resourcev1.ResourceClaimTemplate) []any {
			return []any{t.Name, generic.Age(t.CreationTimestamp)}
		},
	}, o)
}
