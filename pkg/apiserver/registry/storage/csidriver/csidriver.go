// Package csidriver serves storage.k8s.io/v1 CSIDriver.
package csidriver

import (
	"context"
	"strings"

	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/api/storage"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

var doc = storagev1.CSIDriverSpec{}.SwaggerDoc()

// Storage returns the storage of csidrivers.
var Storage = generic.StorageOf(generic.Resource[*storagev1.CSIDriver]{
	GroupVersion:  storagev1.SchemeGroupVersion,
	Name:          "csidrivers",
	ClusterScoped: true,

	RequireResourceVersion: true,
	ReturnDeleted:          true,
	// Generations count from 0 here.
	PrepareForUpdate: func(_ context.Context, d, old *storagev1.CSIDriver) {
		d.Generation = old.Generation
		if generic.SpecChanged(d, old) {
			d.Generation++
		}
	},
	Validate:       generic.Check(storage.ValidateCSIDriver),
	ValidateUpdate: generic.CheckUpdate(storage.ValidateCSIDriverUpdate),
	Warnings:       generic.Warn(storage.WarningsCSIDriver),

	Columns: []metav1.TableColumnDefinition{
		generic.NameColumn,
		generic.Column("AttachRequired", "boolean", doc["attachRequired"]),
		generic.Column("PodInfoOnMount", "boolean", doc["podInfoOnMount"]),
		generic.Column("StorageCapacity", "boolean", doc["storageCapacity"]),
		generic.Column("TokenRequests", "string", doc["tokenRequests"]),
		generic.Column("RequiresRepublish", "boolean", doc["requiresRepublish"]),
		generic.Column("Modes", "string", doc["volumeLifecycleModes"]),
		generic.AgeColumn,
	},
	Cells: func(d *storagev1.CSIDriver) []any {
		return []any{
			d.Name, ptr.Deref(d.Spec.AttachRequired, true), ptr.Deref(d.Spec.PodInfoOnMount, false), ptr.Deref(d.Spec.StorageCapacity, false),
			tokens(d.Spec.TokenRequests), ptr.Deref(d.Spec.RequiresRepublish, false), modes(d.Spec.VolumeLifecycleModes),
			generic.Age(d.CreationTimestamp),
		}
	},
})

func tokens(requests []storagev1.TokenRequest) string {
	if len(requests) == 0 {
		return "<unset>"
	}
	var audiences []string
	for _, r := range requests {
		audiences = append(audiences, r.Audience)
	}
	return strings.Join(audiences, ",")
}

func modes(modes []storagev1.VolumeLifecycleMode) string {
	if len(modes) == 0 {
		return "<none>"
	}
	var list []string
	for _, m := range modes {
		list = append(list, string(m))
	}
	return strings.Join(list, ",")
}
