// Package storageclass serves storage.k8s.io/v1 StorageClass.
package storageclass

import (
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/api/storage"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

var doc = storagev1.StorageClass{}.SwaggerDoc()

// Storage returns the storage of storageclasses.
var Storage = generic.StorageOf(generic.Resource[*storagev1.StorageClass]{
	GroupVersion:  storagev1.SchemeGroupVersion,
	Name:          "storageclasses",
	ShortNames:    []string{"sc"},
	ClusterScoped: true,

	ReturnDeleted:  true,
	Validate:       generic.Check(storage.ValidateStorageClass),
	ValidateUpdate: generic.CheckUpdate(storage.ValidateStorageClassUpdate),
	Warnings:       generic.Warn(storage.WarningsStorageClass),

	Columns: []metav1.TableColumnDefinition{
		generic.NameColumn,
		generic.Column("Provisioner", "string", doc["provisioner"]),
		generic.Column("ReclaimPolicy", "string", doc["reclaimPolicy"]),
		generic.Column("VolumeBindingMode", "string", doc["volumeBindingMode"]),
		generic.Column("AllowVolumeExpansion", "string", doc["allowVolumeExpansion"]),
		generic.AgeColumn,
	},
	Cells: func(c *storagev1.StorageClass) []any {
		name := c.Name
		if isDefault(c) {
			name += " (default)"
		}
		return []any{
			name, c.Provisioner,
			string(ptr.Deref(c.ReclaimPolicy, corev1.PersistentVolumeReclaimDelete)),
			string(ptr.Deref(c.VolumeBindingMode, storagev1.VolumeBindingImmediate)),
			ptr.Deref(c.AllowVolumeExpansion, false), generic.Age(c.CreationTimestamp),
		}
	},
})

// isDefault reports whether the class is that of claims that name none.
func isDefault(c *storagev1.StorageClass) bool {
	return c.Annotations["storageclass.kubernetes.io/is-default-class"] == "true" ||
		c.Annotations["storageclass.beta.kubernetes.io/is-default-class"] == "true"
}
