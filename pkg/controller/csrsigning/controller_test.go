package csrsigning

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

func TestUsagesOfClients(t *testing.T) {
	for want, usages := range map[string][]certificatesv1.KeyUsage{
		"": {certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth},
		"invalid usage for client certificate: server auth":          {certificatesv1.UsageServerAuth},
		"missing required usage for client certificate: client auth": {certificatesv1.UsageKeyEncipherment},
	} {
		got := ""
		if err := validate(certificatesv1.KubeAPIServerClientSignerName, nil, usages); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%v: %q, want %q", usages, got, want)
		}
	}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// newAuthority returns the files of an authority, which lives for ten years.
func newAuthority(t *testing.T) Files {
	key := newKey(t)
	ca, err := cert.NewSelfSignedCACert(cert.Config{CommonName: "ca"}, key)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := keyutil.MarshalPrivateKeyToPEM(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	f := Files{filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key")}
	certificate, err := cert.EncodeCertificates(ca)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{f.Cert: certificate, f.Key: encoded} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func TestSigning(t *testing.T) {
	o := DefaultOptions()
	o.All, o.Duration = newAuthority(t), 24*time.Hour
	signers, err := Load(o)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().Truncate(time.Second)
	data, err := cert.MakeCSR(newKey(t), &pkix.Name{CommonName: "system:node:n", Organization: []string{"system:nodes"}}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	type request = certificatesv1.CertificateSigningRequest
	client509 := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	for name, tc := range map[string]struct {
		change func(*request)
		until  time.Time // if it is signed
		usages []x509.ExtKeyUsage
		failed string // the message of the condition
		fails  string
	}{
		"a kubelet's":    {until: now.Add(24*time.Hour - backdate), usages: client509},
		"for less":       {change: func(r *request) { r.Spec.ExpirationSeconds = ptr.To[int32](3600) }, until: now.Add(time.Hour), usages: client509},
		"for too little": {change: func(r *request) { r.Spec.ExpirationSeconds = ptr.To[int32](60) }, until: now.Add(10 * time.Minute), usages: client509},
		"for too much":   {change: func(r *request) { r.Spec.ExpirationSeconds = ptr.To[int32](90000) }, until: now.Add(24*time.Hour - backdate), usages: client509},
		"anything": {change: func(r *request) {
			r.Spec.SignerName, r.Spec.Usages = legacyUnknown, []certificatesv1.KeyUsage{certificatesv1.UsageCodeSigning}
		}, until: now.Add(24*time.Hour - backdate), usages: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}},
		"not approved": {change: func(r *request) { r.Status.Conditions = nil }},
		"failed already": {change: func(r *request) {
			r.Status.Conditions = append(r.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{Type: certificatesv1.CertificateFailed})
		}},
		"of another signer":           {change: func(r *request) { r.Spec.SignerName = "example.com/s" }},
		"what the signer gives to no": {change: func(r *request) { r.Spec.SignerName = certificatesv1.KubeletServingSignerName }, failed: "DNS or IP subjectAltName is required"},
		"not readable":                {change: func(r *request) { r.Spec.Request = []byte("x") }, fails: "not a PEM block"},
		"for a use that is not known": {change: func(r *request) {
			r.Spec.SignerName, r.Spec.Usages = legacyUnknown, []certificatesv1.KeyUsage{"juggling"}
		}, fails: `spec.usages: "juggling" is not known`},
	} {
		r := &request{ObjectMeta: metav1.ObjectMeta{Name: "r"}, Spec: certificatesv1.CertificateSigningRequestSpec{
			Request: data, SignerName: certificatesv1.KubeAPIServerClientKubeletSignerName, Usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth},
		}}
		r.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateApproved}}
		if tc.change != nil {
			tc.change(r)
		}
		c := fake.NewClientBuilder().WithScheme(scheme.Scheme).WithObjects(r).WithStatusSubresource(r).Build()
		_, err := (&Controller{client: c, signers: signers, clock: clocktesting.NewFakePassiveClock(now)}).Reconcile(t.Context(), reconcile.Request{NamespacedName: client.ObjectKeyFromObject(r)})
		if (err != nil) != (tc.fails != "") || err != nil && !strings.Contains(err.Error(), tc.fails) {
			t.Errorf("%s: %v", name, err)
		}
		if err := c.Get(t.Context(), client.ObjectKeyFromObject(r), r); err != nil {
			t.Fatal(err)
		}
		message := ""
		for _, cond := range r.Status.Conditions {
			if cond.Type == certificatesv1.CertificateFailed && cond.Reason == "SignerValidationFailure" {
				message = cond.Message
			}
		}
		if message != tc.failed || (len(r.Status.Certificate) > 0) != !tc.until.IsZero() {
			t.Errorf("%s: %+v", name, r.Status)
		}
		if len(r.Status.Certificate) == 0 {
			continue
		}
		certs, err := cert.ParseCertsPEM(r.Status.Certificate)
		if err != nil {
			t.Fatal(err)
		}
		if got := certs[0]; !got.NotAfter.Equal(tc.until) || !got.NotBefore.Equal(now.Add(-backdate)) || got.Subject.CommonName != "system:node:n" || !slices.Equal(got.ExtKeyUsage, tc.usages) || got.IsCA {
			t.Errorf("%s: until %v, for %v", name, got.NotAfter, got.ExtKeyUsage)
		}
	}
}

func TestLoad(t *testing.T) {
	one, other := newAuthority(t), newAuthority(t)
	for name, tc := range map[string]struct {
		change func(*Options)
		signs  int
		fails  string // on validation, or when files are read
	}{
		"nothing":             {change: func(*Options) {}},
		"all":                 {change: func(o *Options) { o.All = one }, signs: 4},
		"one":                 {change: func(o *Options) { o.KubeletServing = one }, signs: 1},
		"both":                {change: func(o *Options) { o.All, o.KubeletClient = one, other }, fails: "cannot be given together"},
		"no key":              {change: func(o *Options) { o.LegacyUnknown.Cert = one.Cert }, fails: "one is missing"},
		"no duration":         {change: func(o *Options) { o.Duration = 0 }, fails: "--cluster-signing-duration"},
		"another's key":       {change: func(o *Options) { o.All = Files{one.Cert, other.Key} }, fails: "does not belong to"},
		"a file that is none": {change: func(o *Options) { o.All = Files{one.Cert + "x", one.Key} }, fails: "reading the certificate"},
	} {
		o := DefaultOptions()
		tc.change(&o)
		err := o.Validate()
		var signers Signers
		if err == nil {
			signers, err = Load(o)
		}
		if (err != nil) != (tc.fails != "") || err != nil && !strings.Contains(err.Error(), tc.fails) || err == nil && (len(signers.files) != tc.signs || signers.Empty() != (tc.signs == 0)) {
			t.Errorf("%s: %d signers, %v", name, len(signers.files), err)
		}
	}
}
