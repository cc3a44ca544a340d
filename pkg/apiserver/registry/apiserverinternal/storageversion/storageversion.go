// Package storageversion serves internal.apiserver.k8s.io/v1alpha1 StorageVersion.
package storageversion

import (
	"fmt"
	"strings"

	internalv1alpha1 "k8s.io/api/apiserverinternal/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/api/apiserverinternal"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

var statusDoc = internalv1alpha1.StorageVersionStatus{}.SwaggerDoc()

// Storage returns the storage of storageversions and storageversions/status.
var Storage = generic.StorageOf(generic.Resource[*internalv1alpha1.StorageVersion]{
	GroupVersion:  internalv1alpha1.SchemeGroupVersion,
	Name:          "storageversions",
	ClusterScoped: true,

	Status: &generic.Update[*internalv1alpha1.StorageVersion]{
		KeepsMetadata: true,
		Validate:      generic.CheckUpdate(apiserverinternal.ValidateStorageVersionStatusUpdate),
	},

	RequireResourceVersion: true,
	Validate:               generic.Check(apiserverinternal.ValidateStorageVersion),

	Columns: []metav1.TableColumnDefinition{
		generic.NameColumn,
		generic.Column("CommonEncodingVersion", "string", statusDoc["commonEncodingVersion"]),
		generic.Column("StorageVersions", "string", statusDoc["storageVersions"]),
		generic.AgeColumn,
	},
	Cells: func(v *internalv1alpha1.StorageVersion) []any {
		return []any{v.Name, ptr.Deref(v.Status.CommonEncodingVersion, "<unset>"), servers(v.Status.StorageVersions), generic.Age(v.CreationTimestamp)}
	},
})

// servers prints what the first three servers write: "a=v1,b=v1,c=v2 + 1 more...".
func servers(versions []internalv1alpha1.ServerStorageVersion) string {
	if len(versions) == 0 {
		return "<unset>"
	}
	const most = 3
	var first []string
	for _, v := range versions[:min(len(versions), most)] {
		first = append(first, v.APIServerID+"="+v.EncodingVersion)
	}
	text := strings.Join(first, ",")
	if more := len(versions) - most; more > 0 {
		text += fmt.Sprintf(" + %d more...", more)
	}
	return text
}
