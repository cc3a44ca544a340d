// Package volumeattachment serves storage.k8s.io/v1 VolumeAttachment.
package volumeattachment

import (
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/api/storage"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

var (
	specDoc   = storagev1.VolumeAttachmentSpec{}.SwaggerDoc()
	sourceDoc = storagev1.VolumeAttachmentSource{}.SwaggerDoc()
	statusDoc = storagev1.VolumeAttachmentStatus{}.SwaggerDoc()
)

// Storage returns the storage of volumeattachments and volumeattachments/status.
var Storage = generic.StorageOf(generic.Resource[*storagev1.VolumeAttachment]{
	GroupVersion:  storagev1.SchemeGroupVersion,
	Name:          "volumeattachments",
	ClusterScoped: true,

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
})
