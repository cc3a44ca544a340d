// Package csistoragecapacity serves storage.k8s.io/v1 CSIStorageCapacity.
package csistoragecapacity

import (
	storagev1 "k8s.io/api/storage/v1"

	"github.com/leme-k8s/leme/pkg/api/storage"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// Storage returns the storage of csistoragecapacities.
var Storage = generic.StorageOf(generic.Resource[*storagev1.CSIStorageCapacity]{
	GroupVersion: storagev1.SchemeGroupVersion,
	Name:         "csistoragecapacities",

	RequireResourceVersion: true,
	Validate:               generic.Check(storage.ValidateCSIStorageCapacity),
	ValidateUpdate:         generic.CheckUpdate(storage.ValidateCSIStorageCapacityUpdate),
	Warnings:               generic.Warn(storage.WarningsCSIStorageCapacity),
})
