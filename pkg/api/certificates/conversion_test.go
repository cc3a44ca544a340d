package certificates

import (
	"reflect"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	certificatesv1beta1 "k8s.io/api/certificates/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

func TestConversions(t *testing.T) {
	s := runtime.NewScheme()
	if err := AddConversions(s); err != nil {
		t.Fatal(err)
	}
	bundle := &certificatesv1.ClusterTrustBundle{
		ObjectMeta: metav1.ObjectMeta{Name: "a", Labels: map[string]string{"b": "c"}},
		Spec:       certificatesv1.ClusterTrustBundleSpec{SignerName: "example.com/s", TrustBundle: "t"},
	}
	beta, back := &certificatesv1beta1.ClusterTrustBundle{}, &certificatesv1.ClusterTrustBundle{}
	if err := s.Convert(bundle, beta, nil); err != nil {
		t.Fatal(err)
	}
	if beta.Spec.SignerName != bundle.Spec.SignerName || beta.Name != bundle.Name {
		t.Errorf("v1beta1 is %+v", beta)
	}
	if err := s.Convert(beta, back, nil); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(back, bundle) {
		t.Errorf("%+v comes back as %+v", bundle, back)
	}
}
