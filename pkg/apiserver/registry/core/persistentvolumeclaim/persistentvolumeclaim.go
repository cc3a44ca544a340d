// Package persistentvolumeclaim serves v1 PersistentVolumeClaim.
package persistentvolumeclaim

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/component-helpers/storage/volume"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/api/core"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/core/persistentvolume"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

var (
	specDoc   = corev1.PersistentVolumeClaimSpec{}.SwaggerDoc()
	statusDoc = corev1.PersistentVolumeClaimStatus{}.SwaggerDoc()
)

// Storage returns the storage of persistentvolumeclaims and persistentvolumeclaims/status.
var Storage = generic.StorageOf(generic.Resource[*corev1.PersistentVolumeClaim]{
	GroupVersion: corev1.SchemeGroupVersion,
	Name:         "persistentvolumeclaims",
	ShortNames:   []string{"pvc"},

	Status: &generic.Update[*corev1.PersistentVolumeClaim]{
		Prepare: func(_ context.Context, obj, old *corev1.PersistentVolumeClaim) {
			core.DropDisabledClaimStatusFields(&obj.Status, &old.Status)
		},
		Validate: generic.CheckUpdate(core.ValidatePersistentVolumeClaimStatusUpdate),
	},

	PrepareForCreate: func(_ context.Context, obj *corev1.PersistentVolumeClaim) {
		obj.Status.Phase = corev1.ClaimPending
		core.SettleClaim(&obj.Spec, nil)
	},
	Validate: generic.Check(core.ValidatePersistentVolumeClaim),
	PrepareForUpdate: func(_ context.Context, obj, old *corev1.PersistentVolumeClaim) {
		core.SettleClaim(&obj.Spec, &old.Spec)
	},
	ValidateUpdate: generic.CheckUpdate(core.ValidatePersistentVolumeClaimUpdate),
	Warnings:       generic.Warn(core.WarningsPersistentVolumeClaim),
	ReturnDeleted:  true,

	// A bare "name" is what the first version offered.
	Fields: func(pvc *corev1.PersistentVolumeClaim) fields.Set { return fields.Set{"name": pvc.Name} },
	Columns: []metav1.TableColumnDefinition{
		generic.NameColumn,
		generic.Column("Status", "string", statusDoc["phase"]),
		generic.Column("Volume", "string", specDoc["volumeName"]),
		generic.Column("Capacity", "string", statusDoc["capacity"]),
		generic.Column("Access Modes", "string", statusDoc["accessModes"]),
		generic.Column("StorageClass", "string", "StorageClass of the pvc"),
		generic.Column("VolumeAttributesClass", "string", "VolumeAttributesClass of the pvc"),
		generic.AgeColumn,
		generic.WideColumn("VolumeMode", "string", specDoc["volumeMode"]),
	},
	Cells: func(pvc *corev1.PersistentVolumeClaim) []any {
		phase := string(pvc.Status.Phase)
		if pvc.DeletionTimestamp != nil {
			phase = "Terminating"
		}
		capacity, modes := "", ""
		if pvc.Spec.VolumeName != "" {
			capacity = pvc.Status.Capacity.Storage().String()
			modes = persistentvolume.AccessModes(pvc.Status.AccessModes)
		}
		return []any{
			pvc.Name, phase, pvc.Spec.VolumeName, capacity, modes, volume.GetPersistentVolumeClaimClass(pvc),
			ptr.Deref(pvc.Spec.VolumeAttributesClassName, "<unset>"), generic.Age(pvc.CreationTimestamp),
			string(ptr.Deref(pvc.Spec.VolumeMode, "<unset>")),
		}
	},
})
