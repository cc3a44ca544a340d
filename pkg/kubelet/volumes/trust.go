package volumes

import (
	"bytes"
	"context"
	"encoding/pem"
	"slices"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
)

// ClusterTrustBundles reads trust bundles from the API server when a volume is
// written. Few pods use them, and a change of one is taken over when the pod's
// volumes are next written.
type ClusterTrustBundles struct{ Client kubernetes.Interface }

// TrustBundle implements [TrustBundles].
func (c ClusterTrustBundles) TrustBundle(ctx context.Context, p *corev1.ClusterTrustBundleProjection) ([]byte, error) {
	bundles := c.Client.CertificatesV1().ClusterTrustBundles()
	if p.Name != nil {
		b, err := bundles.Get(ctx, *p.Name, metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		return mergePEM([]certificatesv1.ClusterTrustBundle{*b}), nil
	}
	// No selector selects nothing, an empty one everything.
	selector, err := metav1.LabelSelectorAsSelector(p.LabelSelector)
	if err != nil {
		return nil, err
	}
	signer := ""
	if p.SignerName != nil {
		signer = *p.SignerName
	}
	list, err := bundles.List(ctx, metav1.ListOptions{LabelSelector: selector.String(),
		FieldSelector: fields.OneTermEqualSelector("spec.signerName", signer).String()})
	if err != nil {
		return nil, err
	}
	items := slices.DeleteFunc(list.Items, func(b certificatesv1.ClusterTrustBundle) bool { return b.Spec.SignerName != signer })
	if p.LabelSelector == nil || len(items) == 0 {
		return nil, apierrors.NewNotFound(certificatesv1.Resource("clustertrustbundles"), signer)
	}
	return mergePEM(items), nil
}

// mergePEM joins the certificates of bundles, each once, in an order that does not
// depend on that of the bundles.
func mergePEM(bundles []certificatesv1.ClusterTrustBundle) []byte {
	var certs [][]byte
	for i := range bundles {
		rest := []byte(bundles[i].Spec.TrustBundle)
		for {
			var block *pem.Block
			if block, rest = pem.Decode(rest); block == nil {
				break
			}
			certs = append(certs, pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes}))
		}
	}
	slices.SortFunc(certs, bytes.Compare)
	return bytes.Join(slices.CompactFunc(certs, bytes.Equal), nil)
}
