// Package podcertificaterequest serves certificates.k8s.io/v1 PodCertificateRequest.
package podcertificaterequest

import (
	"context"
	"errors"
	"fmt"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	certificatesv1beta1 "k8s.io/api/certificates/v1beta1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/leme-k8s/leme/pkg/api/certificates"
	"github.com/leme-k8s/leme/pkg/apiserver/internal/signers"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// Storage returns the storage of podcertificaterequests and …/status, where only those
// put certificates whom the authorizer lets sign for the signer.
func Storage(o generic.Options, a authorizer.UnconditionalAuthorizer) (generic.Storage, error) {
	r := resource
	r.Status = &generic.Update[*certificatesv1beta1.PodCertificateRequest]{
		KeepsMetadata: true,
		Validate: func(ctx context.Context, r, old *certificatesv1beta1.PodCertificateRequest) field.ErrorList {
			if errs := certificates.ValidatePodCertificateRequestStatusUpdate(r, old, time.Now()); len(errs) > 0 {
				return errs
			}
			return validateSigner(ctx, a, r, old)
		},
	}
	return generic.NewStorage(r, o)
}

// validateSigner says why the user of ctx may not change the status.
func validateSigner(ctx context.Context, a authorizer.UnconditionalAuthorizer, r, old *certificatesv1beta1.PodCertificateRequest) field.ErrorList {
	if equality.Semantic.DeepEqual(r.Status, old.Status) {
		return nil
	}
	p, signer := field.NewPath("spec", "signerName"), old.Spec.SignerName
	u, ok := request.UserFrom(ctx)
	switch {
	case !ok:
		return field.ErrorList{field.InternalError(p, errors.New(`cannot determine calling user to perform "sign" check`))}
	case !signers.Allowed(ctx, a, u, "sign", signer):
		return field.ErrorList{field.Forbidden(p, fmt.Sprintf("User %q is not permitted to \"sign\" for signer %q", u.GetName(), signer))}
	}
	return nil
}

var specDoc = certificatesv1beta1.PodCertificateRequestSpec{}.SwaggerDoc()

var resource = generic.Resource[*certificatesv1beta1.PodCertificateRequest]{
	GroupVersion: certificatesv1.SchemeGroupVersion,
	Name:         "podcertificaterequests",

	RequireResourceVersion: true,
	Validate:               generic.Check(certificates.ValidatePodCertificateRequest),
	ValidateUpdate:         generic.CheckUpdate(certificates.ValidatePodCertificateRequestUpdate),

	Fields: func(r *certificatesv1beta1.PodCertificateRequest) fields.Set {
		return fields.Set{"spec.signerName": r.Spec.SignerName, "spec.podName": r.Spec.PodName, "spec.nodeName": string(r.Spec.NodeName)}
	},
	Columns: []metav1.TableColumnDefinition{
		generic.NameColumn,
		generic.Column("PodName", "string", specDoc["podName"]),
		generic.Column("ServiceAccountName", "string", specDoc["serviceAccountName"]),
		generic.Column("NodeName", "string", specDoc["nodeName"]),
		generic.Column("SignerName", "string", specDoc["signerName"]),
		generic.Column("State", "string", "Is the request Pending, Issued, Denied, or Failed?"),
		generic.Column("UnverifiedUserAnnotations", "string", specDoc["unverifiedUserAnnotations"]),
	},
	Cells: func(r *certificatesv1beta1.PodCertificateRequest) []any {
		state := "Pending"
		for _, c := range r.Status.Conditions {
			state = c.Type // there is no other than the outcome
		}
		return []any{
			r.Name, r.Spec.PodName, r.Spec.ServiceAccountName, string(r.Spec.NodeName), r.Spec.SignerName, state,
			labels.FormatLabels(r.Spec.UnverifiedUserAnnotations),
		}
	},
}
