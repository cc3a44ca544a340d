// Package clustertrustbundle serves certificates.k8s.io/v1 ClusterTrustBundle.
package clustertrustbundle

import (
	"cmp"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"github.com/leme-k8s/leme/pkg/api/certificates"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// Storage returns the storage of clustertrustbundles.
var Storage = generic.StorageOf(generic.Resource[*certificatesv1.ClusterTrustBundle]{
	GroupVersion:  certificatesv1.SchemeGroupVersion,
	Name:          "clustertrustbundles",
	ClusterScoped: true,

	RequireResourceVersion: true,
	Validate:               generic.Check(certificates.ValidateClusterTrustBundle),
	ValidateUpdate:         generic.CheckUpdate(certificates.ValidateClusterTrustBundleUpdate),

	Fields: func(b *certificatesv1.ClusterTrustBundle) fields.Set {
		return fields.Set{"spec.signerName": b.Spec.SignerName}
	},
	Columns: []metav1.TableColumnDefinition{
		generic.NameColumn,
		generic.Column("SignerName", "string", certificatesv1.ClusterTrustBundleSpec{}.SwaggerDoc()["signerName"]),
	},
	Cells: func(b *certificatesv1.ClusterTrustBundle) []any {
		return []any{b.Name, cmp.Or(b.Spec.SignerName, "<none>")}
	},
})
