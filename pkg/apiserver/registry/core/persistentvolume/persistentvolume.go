// Package persistentvolume serves v1 PersistentVolume.
package persistentvolume

import (
	"context"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/component-helpers/storage/volume"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/api/core"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// stampPhase records when the phase changed, unless the client says so itself.
func stampPhase(status, old *corev1.PersistentVolumeStatus) {
	t := status.LastPhaseTransitionTime
	switch {
	case status.Phase == old.Phase && t == nil:
		status.LastPhaseTransitionTime = old.LastPhaseTransitionTime
	case status.Phase != old.Phase && (t == nil || t.Equal(old.LastPhaseTransitionTime)):
		status.LastPhaseTransitionTime = ptr.To(metav1.Now())
	}
}

var specDoc = corev1.PersistentVolumeSpec{}.SwaggerDoc()

// Storage returns the storage of persistentvolumes and persistentvolumes/status.
var Storage = generic.StorageOf(generic.Resource[*corev1.PersistentVolume]{
	GroupVersion:  corev1.SchemeGroupVersion,
	Name:          "persistentvolumes",
	ShortNames:    []string{"pv"},
	ClusterScoped: true,

	Status: &generic.Update[*corev1.PersistentVolume]{
		Prepare:  func(_ context.Context, obj, old *corev1.PersistentVolume) { stampPhase(&obj.Status, &old.Status) },
		Validate: generic.CheckUpdate(core.ValidatePersistentVolumeStatusUpdate),
	},

	PrepareForCreate: func(_ context.Context, obj *corev1.PersistentVolume) {
		obj.Status.Phase = corev1.VolumePending
		obj.Status.LastPhaseTransitionTime = ptr.To(metav1.Now())
	},
	Validate:       generic.Check(core.ValidatePersistentVolume),
	ValidateUpdate: generic.CheckUpdate(core.ValidatePersistentVolumeUpdate),
	Warnings:       generic.Warn(core.WarningsPersistentVolume),
	ReturnDeleted:  true,

	// A bare "name" is what the first version offered.
	Fields: func(pv *corev1.PersistentVolume) fields.Set { return fields.Set{"name": pv.Name} },
	Columns: []metav1.TableColumnDefinition{
		generic.NameColumn,
		generic.Column("Capacity", "string", specDoc["capacity"]),
		generic.Column("Access Modes", "string", specDoc["accessModes"]),
		generic.Column("Reclaim Policy", "string", specDoc["persistentVolumeReclaimPolicy"]),
		generic.Column("Status", "string", corev1.PersistentVolumeStatus{}.SwaggerDoc()["phase"]),
		generic.Column("Claim", "string", specDoc["claimRef"]),
		generic.Column("StorageClass", "string", "StorageClass of the pv"),
		generic.Column("VolumeAttributesClass", "string", "VolumeAttributesClass of the pv"),
		generic.Column("Reason", "string", corev1.PersistentVolumeStatus{}.SwaggerDoc()["reason"]),
		generic.AgeColumn,
		generic.WideColumn("VolumeMode", "string", specDoc["volumeMode"]),
	},
	Cells: func(pv *corev1.PersistentVolume) []any {
		phase := string(pv.Status.Phase)
		if pv.DeletionTimestamp != nil {
			phase = "Terminating"
		}
		claim := ""
		if ref := pv.Spec.ClaimRef; ref != nil {
			claim = ref.Namespace + "/" + ref.Name
		}
		return []any{
			pv.Name, pv.Spec.Capacity.Storage().String(), AccessModes(pv.Spec.AccessModes),
			string(pv.Spec.PersistentVolumeReclaimPolicy), phase, claim, volume.GetPersistentVolumeClass(pv),
			ptr.Deref(pv.Spec.VolumeAttributesClassName, "<unset>"), pv.Status.Reason, generic.Age(pv.CreationTimestamp),
			string(ptr.Deref(pv.Spec.VolumeMode, "<unset>")),
		}
	},
})

// AccessModes prints access modes in short: "RWO,RWX".
func AccessModes(modes []corev1.PersistentVolumeAccessMode) string {
	var short []string
	for _, m := range []struct {
		mode corev1.PersistentVolumeAccessMode
		name string
	}{
		{corev1.ReadWriteOnce, "RWO"},
		{corev1.ReadOnlyMany, "ROX"},
		{corev1.ReadWriteMany, "RWX"},
		{corev1.ReadWriteOncePod, "RWOP"},
	} {
		if slices.Contains(modes, m.mode) {
			short = append(short, m.name)
		}
	}
	return strings.Join(short, ",")
}
