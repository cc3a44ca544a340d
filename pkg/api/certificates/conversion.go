package certificates

import (
	certificatesv1 "k8s.io/api/certificates/v1"
	certificatesv1beta1 "k8s.io/api/certificates/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/conversion"
	"k8s.io/apimachinery/pkg/runtime"
)

// AddStored registers the kinds of certificates.k8s.io/v1beta1 in which objects are
// stored until every server that may read them knows v1.
func AddStored(s *runtime.Scheme) error {
	v1beta1 := certificatesv1beta1.SchemeGroupVersion
	s.AddKnownTypes(v1beta1, &certificatesv1beta1.ClusterTrustBundle{}, &certificatesv1beta1.ClusterTrustBundleList{})
	metav1.AddToGroupVersion(s, v1beta1)
	return nil
}

// AddConversions registers the conversions between v1beta1 and v1, whose fields are the same.
func AddConversions(s *runtime.Scheme) error {
	if err := convert(s, bundleFromBeta); err != nil {
		return err
	}
	return convert(s, bundleToBeta)
}

func convert[In, Out any](s *runtime.Scheme, f func(*In, *Out)) error {
	return s.AddConversionFunc((*In)(nil), (*Out)(nil), func(in, out any, _ conversion.Scope) error {
		f(in.(*In), out.(*Out))
		return nil
	})
}

func bundleFromBeta(in *certificatesv1beta1.ClusterTrustBundle, out *certificatesv1.ClusterTrustBundle) {
	*out = certificatesv1.ClusterTrustBundle{ObjectMeta: in.ObjectMeta, Spec: certificatesv1.ClusterTrustBundleSpec(in.Spec)}
}

func bundleToBeta(in *certificatesv1.ClusterTrustBundle, out *certificatesv1beta1.ClusterTrustBundle) {
	*out = certificatesv1beta1.ClusterTrustBundle{ObjectMeta: in.ObjectMeta, Spec: certificatesv1beta1.ClusterTrustBundleSpec(in.Spec)}
}
