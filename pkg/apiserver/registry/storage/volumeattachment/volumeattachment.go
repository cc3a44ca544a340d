// Package volumeattachment serves storage.k8s.io/v1 VolumeAttachment.
package volumeattachment

import (
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/api/storage"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// Storage returns the storage of volumeattachments and volumeattachments/status.
func Storage(o generic.Options) (generic.Storage, error) {
	return generic.NewStorage(resource, o)
}

var (
	specDoc   = storagev1.VolumeAttachmentSpec{}.SwaggerDoc()
	sourceDoc = storagev1.VolumeAttachmentSource{}.SwaggerDoc()
	statusDoc = storagev1.VolumeAttachmentStatus{}.SwaggerDoc()
)

var resource = generic.Resource[*storagev1.VolumeAttachment]{
	GroupVersion:  storagev1.SchemeGroupVersion,
	Name:          "volumeattachments",
	Singular:      "volumeattachment",
	ClusterScoped: true,
	New:           func() *storagev1.VolumeAttachment { return &storagev1.VolumeAttachment{} },
	NewList:       func() runtime.Object { return &storagev1.VolumeAttachmentList{} },

	Status: &generic.Update[*storagev1.VolumeAttachment]{
		KeepsMetadata: true,
		Validate:      generic.CheckUpdate(storage.ValidateVolumeAttachmentStatusUpdate),
	},

	RequireResourceVersion: true,
	ReturnDeleted:          true,
	Validate:               generic.Check(storage.ValidateVolumeAttachment),
	ValidateUpdate:         generic.CheckUpdate(storage.ValidateVolumeAttachmentUpdate),

	Columns: []metav1.TableColumnDefinition{
		generic.NameColumn,
		{Name: "Attacher", Type: "string", Format: "name", Description: specDoc["attacher"]},
		generic.Column("PV", "string", sourceDoc["persistentVolumeName"]),
		generic.Column("Node", "string", specDoc["nodeName"]),
		generic.Column("Attached", "boolean", statusDoc["attached"]),
		generic.AgeColumn,
	},
	Cells: func(a *storagev1.VolumeAttachment) []any {
		return []any{
			a.Name, a.Spec.Attacher, ptr.Deref(a.Spec.Source.PersistentVolumeName, ""), a.Spec.NodeName, a.Status.Attached,
			generic.Age(a.CreationTimestamp),
		}
	},
}
