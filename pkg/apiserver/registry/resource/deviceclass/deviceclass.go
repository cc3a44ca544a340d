// Package deviceclass serves resource.k8s.io/v1 DeviceClass.
package deviceclass

import (
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/leme-k8s/leme/pkg/api/resource"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// Storage returns the storage of deviceclasses.
var Storage = generic.StorageOf(generic.Resource[*resourcev1.DeviceClass]{
	GroupVersion:  resourcev1.SchemeGroupVersion,
	Name:          "deviceclasses",
	ClusterScoped: true,

	Generation:     generic.SpecChanged[*resourcev1.DeviceClass],
	ReturnDeleted:  true,
	Validate:       generic.Check(resource.ValidateDeviceClass),
	ValidateUpdate: generic.CheckUpdate(resource.ValidateDeviceClassUpdate),

	Columns: []metav1.TableColumnDefinition{generic.NameColumn, generic.AgeColumn},
	Cells: func(c *resourcev1.DeviceClass) []any {
		return []any{c.Name, generic.Age(c.CreationTimestamp)}
	},
})
