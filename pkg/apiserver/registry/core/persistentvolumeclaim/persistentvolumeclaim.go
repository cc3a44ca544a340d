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
		dropForeignSource(&obj.Spec)
		dropUnknownSource(&obj.Spec)
		mirrorSources(&obj.Spec)
	},
	Validate: generic.Check(core.ValidatePersistentVolumeClaim),
	PrepareForUpdate: func(_ context.Context, obj, old *corev1.PersistentVolumeClaim) {
		if old.Spec.DataSourceRef == nil {
			dropForeignSource(&obj.Spec)
		}
		if old.Spec.DataSource == nil && old.Spec.DataSourceRef == nil {
			dropUnknownSource(&obj.Spec)
		}
		// A client that knows only one of the fields must not seem to change the other.
		mirrorSources(&obj.Spec)
		mirrorSources(&old.Spec)
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

// dropForeignSource drops a source in another namespace, which is a feature that is off.
func dropForeignSource(spec *corev1.PersistentVolumeClaimSpec) {
	if ref := spec.DataSourceRef; ref != nil && ptr.Deref(ref.Namespace, "") != "" {
		spec.DataSourceRef = nil
	}
}

// dropUnknownSource ignores, as the first version did, a data source that is
// neither a claim nor a snapshot. The newer field refuses what it does not know.
func dropUnknownSource(spec *corev1.PersistentVolumeClaimSpec) {
	s := spec.DataSource
	if s == nil || spec.DataSourceRef != nil {
		return
	}
	claim := s.Kind == "PersistentVolumeClaim" && ptr.Deref(s.APIGroup, "") == ""
	snapshot := s.Kind == "VolumeSnapshot" && ptr.Deref(s.APIGroup, "") == "snapshot.storage.k8s.io"
	if !claim && !snapshot {
		spec.DataSource = nil
	}
}

// mirrorSources fills in the data source field that is missing from the other.
func mirrorSources(spec *corev1.PersistentVolumeClaimSpec) {
	switch source, ref := spec.DataSource, spec.DataSourceRef; {
	case source != nil && ref == nil:
		spec.DataSourceRef = &corev1.TypedObjectReference{APIGroup: source.APIGroup, Kind: source.Kind, Name: source.Name}
	case source == nil && ref != nil && ptr.Deref(ref.Namespace, "") == "":
		spec.DataSource = &corev1.TypedLocalObjectReference{APIGroup: ref.APIGroup, Kind: ref.Kind, Name: ref.Name}
	}
}
