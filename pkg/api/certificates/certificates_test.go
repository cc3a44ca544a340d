package certificates

import (
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"

	"github.com/leme-k8s/leme/pkg/api/apitest"
)

func TestCertificateSigningRequest(t *testing.T) {
	for _, file := range []string{"certificatesigningrequest", "approval"} {
		t.Run(file, func(t *testing.T) {
			apitest.Run(t, "testdata/"+file+".txtar", apitest.Kind[certificatesv1.CertificateSigningRequest, *certificatesv1.CertificateSigningRequest]{
				Path:        "/apis/certificates.k8s.io/v1/certificatesigningrequests",
				AddDefaults: AddDefaults,
				Create:      ValidateCertificateSigningRequest,
				Update:      ValidateCertificateSigningRequestUpdate,
				Status:      ValidateCertificateSigningRequestStatusUpdate,
				Approval:    ValidateCertificateSigningRequestApprovalUpdate,
			})
		})
	}
}

func TestClusterTrustBundle(t *testing.T) {
	apitest.Run(t, "testdata/clustertrustbundle.txtar", apitest.Kind[certificatesv1.ClusterTrustBundle, *certificatesv1.ClusterTrustBundle]{
		Path:        "/apis/certificates.k8s.io/v1/clustertrustbundles",
		AddDefaults: AddDefaults,
		Create:      ValidateClusterTrustBundle,
		Update:      ValidateClusterTrustBundleUpdate,
	})
}
