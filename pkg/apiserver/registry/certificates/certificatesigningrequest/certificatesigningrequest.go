// Package certificatesigningrequest serves certificates.k8s.io/v1 CertificateSigningRequest.
package certificatesigningrequest

import (
	"context"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	certificatesv1beta1 "k8s.io/api/certificates/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/leme-k8s/leme/pkg/api/certificates"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// Storage returns the storage of certificatesigningrequests, …/status, where signers
// put certificates, and …/approval, where approvers decide.
func Storage(o generic.Options) (generic.Storage, error) {
	s, err := generic.NewStore(resource, o)
	if err != nil {
		return nil, err
	}
	paths := s.Paths()
	paths["certificatesigningrequests/approval"] = s.Part(generic.Update[*certificatesv1.CertificateSigningRequest]{
		Prepare: func(_ context.Context, c, old *certificatesv1.CertificateSigningRequest) {
			c.Spec = old.Spec
			c.Status.Certificate = old.Status.Certificate
			stampConditions(c, old, metav1.Now())
		},
		ResetFields: []string{"spec", "status.certificate"},
		Validate:    generic.CheckUpdate(certificates.ValidateCertificateSigningRequestApprovalUpdate),
	})
	return paths, nil
}

// Two columns speak in the words of the beta version.
var (
	specDoc       = certificatesv1.CertificateSigningRequestSpec{}.SwaggerDoc()
	betaSpecDoc   = certificatesv1beta1.CertificateSigningRequestSpec{}.SwaggerDoc()
	betaStatusDoc = certificatesv1beta1.CertificateSigningRequestStatus{}.SwaggerDoc()
)

var resource = generic.Resource[*certificatesv1.CertificateSigningRequest]{
	GroupVersion:  certificatesv1.SchemeGroupVersion,
	Name:          "certificatesigningrequests",
	ShortNames:    []string{"csr"},
	ClusterScoped: true,

	Status: &generic.Update[*certificatesv1.CertificateSigningRequest]{
		Prepare: func(_ context.Context, c, old *certificatesv1.CertificateSigningRequest) {
			stampConditions(c, old, metav1.Now())
		},
		ResetFields: []string{"status.conditions"},
		Validate:    generic.CheckUpdate(certificates.ValidateCertificateSigningRequestStatusUpdate),
	},

	ResetFields: []string{"spec"},
	PrepareForCreate: func(ctx context.Context, c *certificatesv1.CertificateSigningRequest) {
		setRequester(ctx, &c.Spec)
	},
	PrepareForUpdate: func(_ context.Context, c, old *certificatesv1.CertificateSigningRequest) { c.Spec = old.Spec },
	Validate:         generic.Check(certificates.ValidateCertificateSigningRequest),
	ValidateUpdate:   generic.CheckUpdate(certificates.ValidateCertificateSigningRequestUpdate),

	Fields: func(c *certificatesv1.CertificateSigningRequest) fields.Set {
		return fields.Set{"spec.signerName": c.Spec.SignerName}
	},
	Columns: []metav1.TableColumnDefinition{
		generic.NameColumn,
		generic.AgeColumn,
		generic.Column("SignerName", "string", betaSpecDoc["signerName"]),
		generic.Column("Requestor", "string", "Base64-encoded PKCS#10 CSR data"),
		generic.Column("RequestedDuration", "string", specDoc["expirationSeconds"]),
		generic.Column("Condition", "string", betaStatusDoc["conditions"]),
	},
	Cells: func(c *certificatesv1.CertificateSigningRequest) []any {
		requested := "<none>"
		if s := c.Spec.ExpirationSeconds; s != nil {
			requested = duration.HumanDuration(time.Duration(*s) * time.Second)
		}
		return []any{c.Name, generic.Age(c.CreationTimestamp), c.Spec.SignerName, c.Spec.Username, requested, state(c)}
	},
}

// setRequester writes who asks into the request, whatever it said.
func setRequester(ctx context.Context, spec *certificatesv1.CertificateSigningRequestSpec) {
	spec.Username, spec.UID, spec.Groups, spec.Extra = "", "", nil, nil
	u, ok := request.UserFrom(ctx)
	if !ok {
		return
	}
	spec.Username, spec.UID, spec.Groups = u.GetName(), u.GetUID(), u.GetGroups()
	if extra := u.GetExtra(); len(extra) > 0 {
		spec.Extra = map[string]certificatesv1.ExtraValue{}
		for key, value := range extra {
			spec.Extra[key] = value
		}
	}
}

// stampConditions fills in the times that a client left out of conditions.
func stampConditions(c, old *certificatesv1.CertificateSigningRequest, now metav1.Time) {
	for i := range c.Status.Conditions {
		condition := &c.Status.Conditions[i]
		if condition.LastUpdateTime.IsZero() {
			condition.LastUpdateTime = now
		}
		if !condition.LastTransitionTime.IsZero() {
			continue
		}
		condition.LastTransitionTime = now
		for _, was := range old.Status.Conditions {
			if was.Type == condition.Type && was.Status == condition.Status && !was.LastTransitionTime.IsZero() {
				condition.LastTransitionTime = was.LastTransitionTime
			}
		}
	}
}

// state prints what became of a request: "Approved,Issued".
func state(c *certificatesv1.CertificateSigningRequest) string {
	has := map[certificatesv1.RequestConditionType]bool{}
	for _, condition := range c.Status.Conditions {
		has[condition.Type] = true
	}
	text := "Pending"
	switch {
	case has[certificatesv1.CertificateDenied]:
		text = "Denied"
	case has[certificatesv1.CertificateApproved]:
		text = "Approved"
	}
	if has[certificatesv1.CertificateFailed] {
		text += ",Failed"
	}
	if len(c.Status.Certificate) > 0 {
		text += ",Issued"
	}
	return text
}
