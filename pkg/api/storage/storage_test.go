package storage

import (
	"testing"

	storagev1 "k8s.io/api/storage/v1"

	"github.com/leme-k8s/leme/pkg/api/apitest"
)

func TestStorageClass(t *testing.T) {
	apitest.Run(t, "testdata/storageclass.txtar", apitest.Kind[storagev1.StorageClass, *storagev1.StorageClass]{
		Path:        "/apis/storage.k8s.io/v1/storageclasses",
		AddDefaults: AddDefaults,
		Create:      ValidateStorageClass,
		Update:      ValidateStorageClassUpdate,
	})
}

func TestCSINode(t *testing.T) {
	apitest.Run(t, "testdata/csinode.txtar", apitest.Kind[storagev1.CSINode, *storagev1.CSINode]{
		Path:        "/apis/storage.k8s.io/v1/csinodes",
		AddDefaults: AddDefaults,
		Create:      ValidateCSINode,
		Update:      ValidateCSINodeUpdate,
	})
}

func TestCSIDriver(t *testing.T) {
	apitest.Run(t, "testdata/csidriver.txtar", apitest.Kind[storagev1.CSIDriver, *storagev1.CSIDriver]{
		Path:        "/apis/storage.k8s.io/v1/csidrivers",
		AddDefaults: AddDefaults,
		Create:      ValidateCSIDriver,
		Update:      ValidateCSIDriverUpdate,
	})
}

func TestVolumeAttachment(t *testing.T) {
	apitest.Run(t, "testdata/volumeattachment.txtar", apitest.Kind[storagev1.VolumeAttachment, *storagev1.VolumeAttachment]{
		Path:        "/apis/storage.k8s.io/v1/volumeattachments",
		AddDefaults: AddDefaults,
		Create:      ValidateVolumeAttachment,
		Update:      ValidateVolumeAttachmentUpdate,
		Status:      ValidateVolumeAttachmentStatusUpdate,
	})
}

func TestCSIStorageCapacity(t *testing.T) {
	apitest.Run(t, "testdata/csistoragecapacity.txtar", apitest.Kind[storagev1.CSIStorageCapacity, *storagev1.CSIStorageCapacity]{
		Path:        "/apis/storage.k8s.io/v1/namespaces/default/csistoragecapacities",
		AddDefaults: AddDefaults,
		Create:      ValidateCSIStorageCapacity,
		Update:      ValidateCSIStorageCapacityUpdate,
	})
}

func TestVolumeAttributesClass(t *testing.T) {
	apitest.Run(t, "testdata/volumeattributesclass.txtar", apitest.Kind[storagev1.VolumeAttributesClass, *storagev1.VolumeAttributesClass]{
		Path:        "/apis/storage.k8s.io/v1/volumeattributesclasses",
		AddDefaults: AddDefaults,
		Create:      ValidateVolumeAttributesClass,
		Update:      ValidateVolumeAttributesClassUpdate,
	})
}
