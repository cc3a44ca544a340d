package volumes

import (
	"encoding/pem"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

func TestTrustBundle(t *testing.T) {
	cert := func(s string) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte(s)}))
	}
	bundle := func(name, signer, pem string) *certificatesv1.ClusterTrustBundle {
		return &certificatesv1.ClusterTrustBundle{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"live": "yes"}},
			Spec: certificatesv1.ClusterTrustBundleSpec{SignerName: signer, TrustBundle: pem}}
	}
	c := ClusterTrustBundles{Client: fake.NewClientset(bundle("a", "x/y", cert("1")+cert("2")), bundle("b", "x/y", cert("2")), bundle("c", "", cert("3")))}
	all := &metav1.LabelSelector{}
	for _, tc := range []struct {
		name string
		p    corev1.ClusterTrustBundleProjection
		want string
	}{
		{"by name", corev1.ClusterTrustBundleProjection{Name: ptr("c")}, cert("3")},
		{"missing", corev1.ClusterTrustBundleProjection{Name: ptr("none")}, ""},
		{"by signer", corev1.ClusterTrustBundleProjection{SignerName: ptr("x/y"), LabelSelector: all}, cert("1") + cert("2")},
		{"no selector", corev1.ClusterTrustBundleProjection{SignerName: ptr("x/y")}, ""},
		{"other signer", corev1.ClusterTrustBundleProjection{SignerName: ptr("x/z"), LabelSelector: all}, ""},
	} {
		got, err := c.TrustBundle(t.Context(), &tc.p)
		if (tc.want == "") != apierrors.IsNotFound(err) || string(got) != tc.want {
			t.Errorf("%s: %q, %v", tc.name, got, err)
		}
	}
}
