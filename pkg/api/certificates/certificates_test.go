package certificates

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	certificatesv1beta1 "k8s.io/api/certificates/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

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

func TestPodCertificateRequest(t *testing.T) {
	apitest.Run(t, "testdata/podcertificaterequest.txtar", apitest.Kind[certificatesv1beta1.PodCertificateRequest, *certificatesv1beta1.PodCertificateRequest]{
		Path:        "/apis/certificates.k8s.io/v1/namespaces/default/podcertificaterequests",
		AddDefaults: AddDefaults,
		Create:      ValidatePodCertificateRequest,
		Update:      ValidatePodCertificateRequestUpdate,
		Status: func(r, old *certificatesv1beta1.PodCertificateRequest) field.ErrorList {
			return ValidatePodCertificateRequestStatusUpdate(r, old, time.Now())
		},
	})
}

// TestPodCertificateRequestProof has what v1 lacks.
func TestPodCertificateRequestProof(t *testing.T) {
	apitest.Run(t, "testdata/podcertificaterequest_v1beta1.txtar", apitest.Kind[certificatesv1beta1.PodCertificateRequest, *certificatesv1beta1.PodCertificateRequest]{
		Path:        "/apis/certificates.k8s.io/v1beta1/namespaces/default/podcertificaterequests",
		AddDefaults: AddDefaults,
		Create:      ValidatePodCertificateRequest,
		Update:      ValidatePodCertificateRequestUpdate,
	})
}

// TestIssuedPodCertificate checks what depends on the time at which a certificate is issued.
func TestIssuedPodCertificate(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	_, other, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	stub, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	issue := func(from, to time.Time, of ed25519.PrivateKey, names ...string) string {
		template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: from, NotAfter: to, DNSNames: names}
		der, err := x509.CreateCertificate(rand.Reader, template, template, of.Public(), other)
		if err != nil {
			t.Fatal(err)
		}
		return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	day := now.Add(24 * time.Hour)
	good := issue(now, day, key)
	for name, tc := range map[string]struct {
		chain                 string
		from, to, refresh     time.Time
		wantField, wantPhrase string
	}{
		"good":              {good, now, day, now.Add(12 * time.Hour), "", ""},
		"good chain":        {good + good, now, day, now.Add(12 * time.Hour), "", ""},
		"key in chain":      {good + "-----BEGIN X-----\nYWJj\n-----END X-----\n", now, day, now.Add(time.Hour), "status.certificateChain", "entirely"},
		"garbage in chain":  {good + "-----BEGIN CERTIFICATE-----\nYWJj\n-----END CERTIFICATE-----\n", now, day, now.Add(time.Hour), "status.certificateChain", "intermediate"},
		"other key":         {issue(now, day, other), now, day, now.Add(time.Hour), "status.certificateChain", "requested public key"},
		"bad DNS name":      {issue(now, day, key, ".a"), now, day, now.Add(time.Hour), "status.certificateChain", "start or end"},
		"no times":          {good, time.Time{}, time.Time{}, time.Time{}, "status.notBefore", "must be present"},
		"other notBefore":   {good, now.Add(time.Second), day, now.Add(time.Hour), "status.notBefore", "encoded"},
		"other notAfter":    {good, now, now.Add(time.Hour), now.Add(time.Hour), "status.notAfter", "encoded"},
		"of the past":       {issue(now.Add(-time.Hour), day, key), now.Add(-time.Hour), day, now.Add(time.Hour), "status.notBefore", "within 5 minutes"},
		"too short":         {issue(now, now.Add(time.Minute), key), now, now.Add(time.Minute), now, "status.certificateChain", ">= 1 hour"},
		"too long":          {issue(now, day.Add(time.Hour), key), now, day.Add(time.Hour), now.Add(time.Hour), "status.certificateChain", "maxExpirationSeconds (86400)"},
		"refreshed at once": {good, now, day, now, "status.beginRefreshAt", "after"},
		"refreshed late":    {good, now, day, day, "status.beginRefreshAt", "before"},
	} {
		t.Run(name, func(t *testing.T) {
			old := &certificatesv1beta1.PodCertificateRequest{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "default", ResourceVersion: "1"}}
			old.Spec = certificatesv1beta1.PodCertificateRequestSpec{SignerName: "example.com/s", StubPKCS10Request: stub}
			setPodCertificateRequest(old)
			r := old.DeepCopy()
			r.Status.Conditions = []metav1.Condition{{Type: "Issued", Status: "True", Reason: "R", LastTransitionTime: metav1.NewTime(now)}}
			r.Status.CertificateChain = tc.chain
			if !tc.from.IsZero() {
				r.Status.NotBefore, r.Status.NotAfter, r.Status.BeginRefreshAt = new(metav1.NewTime(tc.from)), new(metav1.NewTime(tc.to)), new(metav1.NewTime(tc.refresh))
			}
			errs := ValidatePodCertificateRequestStatusUpdate(r, old, now)
			if tc.wantField == "" {
				if len(errs) > 0 {
					t.Fatal(errs)
				}
				r.Status.CertificateChain = "b"
				if len(ValidatePodCertificateRequestStatusUpdate(r, r, now)) > 0 || len(ValidatePodCertificateRequestStatusUpdate(old, r, now)) == 0 {
					t.Error("an issued certificate is not final")
				}
				return
			}
			if len(errs) == 0 || errs[0].Field != tc.wantField || !strings.Contains(errs[0].Detail, tc.wantPhrase) {
				t.Errorf("got %v, want %s: %s", errs, tc.wantField, tc.wantPhrase)
			}
		})
	}
}
