// Package clustertrustbundleattest lets only those publish a signer's trust bundle
// who may attest for that signer.
package clustertrustbundleattest

import (
	"context"
	"fmt"

	certificatesv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/admission"

	"github.com/leme-k8s/leme/pkg/apiserver/internal/signers"
)

// PluginName is the plugin's name in flags.
const PluginName = "ClusterTrustBundleAttest"

// Plugin asks the authorizer.
type Plugin struct{ signers.Handler }

var _ admission.ValidationInterface = &Plugin{}

// New returns the plugin.
func New() *Plugin {
	return &Plugin{signers.NewHandler(admission.Create, admission.Update)}
}

// Validate checks bundles that name a signer, unless the bundle stays as it was.
func (p *Plugin) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if a.GetResource().GroupResource() != certificatesv1.Resource("clustertrustbundles") {
		return nil
	}
	bundle, ok := a.GetObject().(*certificatesv1.ClusterTrustBundle)
	if !ok {
		return apierrors.NewBadRequest(fmt.Sprintf("expected *v1.ClusterTrustBundle but got %T", a.GetObject()))
	}
	if bundle.Spec.SignerName == "" {
		return nil
	}
	if old, ok := a.GetOldObject().(*certificatesv1.ClusterTrustBundle); ok && a.GetOperation() == admission.Update && old.Spec == bundle.Spec {
		return nil
	}
	if !p.Allowed(ctx, a, "attest", bundle.Spec.SignerName) {
		return admission.NewForbidden(a, fmt.Errorf("user not permitted to attest for signerName %q", bundle.Spec.SignerName))
	}
	return nil
}
