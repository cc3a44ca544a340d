// Package volumeattributesclass serves storage.k8s.io/v1 VolumeAttributesClass.
package volumeattributesclass

import (
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/leme-k8s/leme/pkg/api/storage"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// Storage returns the storage of volumeattributesclasses.
var Storage = generic.StorageOf(generic.Resource[*storagev1.VolumeAttributesClass]{
	GroupVersion:  storagev1.SchemeGroupVersion,
	Name:          "volumeattributesclasses",
	ShortNames:    []string{"vac"},
	ClusterScoped: true,

	ReturnDeleted:  true,
	Validate:       generic.Check(storage.ValidateVolumeAttributesClass),
	ValidateUpdate: generic.CheckUpdate(storage.ValidateVolumeAttributesClassUpdate),

	Columns: []metav1.TableColumnDefinition{
		generic.NameColumn,
		generic.Column("DriverName", "string", storagev1.VolumeAttributesClass{}.SwaggerDoc()["driverName"]),
		generic.AgeColumn,
	},
	Cells: func(c *storagev1.VolumeAttributesClass) []any {
		return []any{c.Name, c.DriverName, generic.Age(c.CreationTimestamp)}
	},
})
