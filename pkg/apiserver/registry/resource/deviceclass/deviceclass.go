// Package deviceclass serves resource.k8s.io/v1 DeviceClass.
package deviceclass

import (
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/leme-k8s/leme/pkg/api/resource"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// Storage returns the storage of deviceclasses.
func Storage(o generic.Options) (generic.Storage, error) {
	return generic.NewStorage(generic.Resource[*resourcev1.DeviceClass]{
		GroupVersion:  resourcev1.SchemeGroupVersion,
		Name:          "deviceclasses",
		Singular:      "deviceclass",
		ClusterScoped: true,
		New:           func() *resourcev1.DeviceClass { return &resourcev1.DeviceClass{} },
		NewList:       func() runtime.Object { return &resourcev1.DeviceClassList{} },

		Generation:     generic.SpecChanged[*resourcev1.DeviceClass],
		ReturnDeleted:  true,
		Validate:       generic.Check(resource.ValidateDeviceClass),
		ValidateUpdate: generic.CheckUpdate(resource.ValidateDeviceClassUpdate),

		Columns: []metav1.TableColumnDefinition{generic.NameColumn, generic.AgeColumn},
		Cells: func(c *resourcev1.DeviceClass) []any {
			return []any{c.Name, generic.Age(c.CreationTimestamp)}
		},
	}, o)
}
