// Package volumeattributesclass serves storage.k8s.io/v1 VolumeAttributesClass.
package volumeattributesclass

import (
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/leme-k8s/leme/pkg/api/storage"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// Storage returns the storage of volumeattributesclasses.
func Storage(o generic.Options) (generic.Storage, error) {
	return generic.NewStorage(resource, o)
}

var resource = generic.Resource[*storagev1.VolumeAttributesClass]{
	GroupVersion:  storagev1.SchemeGroupVersion,
	Name:          "volumeattributesclasses",
	Singular:      "volumeattributesclass",
	ShortNames:    []string{"vac"},
	ClusterScoped: true,
	New:           func() *storagev1.VolumeAttributesClass { return &storagev1.VolumeAttributesClass{} },
	NewList:       func() runtime.Object { return &storagev1.VolumeAttributesClassList{} },

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
}
