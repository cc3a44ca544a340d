// Package resourceslice serves resource.k8s.io/v1 ResourceSlice.
package resourceslice

import (
	"context"

	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/api/resource"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

var (
	specDoc = resourcev1.ResourceSliceSpec{}.SwaggerDoc()
	poolDoc = resourcev1.ResourcePool{}.SwaggerDoc()
)

// Storage returns the storage of resourceslices.
var Storage = generic.StorageOf(generic.Resource[*resourcev1.ResourceSlice]{
	GroupVersion:  resourcev1.SchemeGroupVersion,
	Name:          "resourceslices",
	ClusterScoped: true,

	ReturnDeleted:    true,
	PrepareForCreate: func(_ context.Context, s *resourcev1.ResourceSlice) { prepareForCreate(s) },
	PrepareForUpdate: func(_ context.Context, s, old *resourcev1.ResourceSlice) { prepareForUpdate(s, old) },
	Validate:         generic.Check(resource.ValidateResourceSlice),
	ValidateUpdate:   generic.CheckUpdate(resource.ValidateResourceSliceUpdate),
	NameFields:       resource.NameFields,
	Warnings:         generic.Warn(resource.WarningsResourceSlice),

	Fields: func(s *resourcev1.ResourceSlice) fields.Set {
		return fields.Set{
			resourcev1.ResourceSliceSelectorNodeName: ptr.Deref(s.Spec.NodeName, ""),
			resourcev1.ResourceSliceSelectorDriver:   s.Spec.Driver,
			resourcev1.ResourceSliceSelectorPoolName: s.Spec.Pool.Name,
		}
	},
	TriggerFields: []string{resourcev1.ResourceSliceSelectorNodeName},

	Columns: []metav1.TableColumnDefinition{
		generic.NameColumn,
		generic.Column("Node", "string", specDoc["nodeName"]),
		generic.Column("Driver", "string", specDoc["driver"]),
		generic.Column("Pool", "string", poolDoc["name"]),
		generic.AgeColumn,
	},
	Cells: func(s *resourcev1.ResourceSlice) []any {
		return []any{s.Name, ptr.Deref(s.Spec.NodeName, ""), s.Spec.Driver, s.Spec.Pool.Name, generic.Age(s.CreationTimestamp)}
	},
})

func prepareForCreate(s *resourcev1.ResourceSlice) {
	s.Generation = 1
	resource.DropDisabledSliceFields(&s.Spec, nil)
}

// prepareForUpdate counts what was asked for as a change of the spec, even where it is
// then dropped; a Generation of the resource would see only what is left.
func prepareForUpdate(s, old *resourcev1.ResourceSlice) {
	s.Generation = old.Generation
	if generic.SpecChanged(s, old) {
		s.Generation++
	}
	resource.DropDisabledSliceFields(&s.Spec, &old.Spec)
}
