package apiserverinternal

import (
	"testing"

	internalv1alpha1 "k8s.io/api/apiserverinternal/v1alpha1"

	"github.com/leme-k8s/leme/pkg/api/apitest"
)

func TestStorageVersion(t *testing.T) {
	apitest.Run(t, "testdata/storageversion.txtar", apitest.Kind[internalv1alpha1.StorageVersion, *internalv1alpha1.StorageVersion]{
		Path:    "/apis/internal.apiserver.k8s.io/v1alpha1/storageversions",
		Prepare: func(*internalv1alpha1.StorageVersion) {},
		Create:  ValidateStorageVersion,
		Status:  ValidateStorageVersionStatusUpdate,
	})
}
