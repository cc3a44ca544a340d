// Package ipaddress serves networking.k8s.io/v1 IPAddress.
package ipaddress

import (
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/leme-k8s/leme/pkg/api/networking"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// Storage returns the storage of ipaddresses.
var Storage = generic.StorageOf(generic.Resource[*networkingv1.IPAddress]{
	GroupVersion:  networkingv1.SchemeGroupVersion,
	Name:          "ipaddresses",
	ShortNames:    []string{"ip"},
	ClusterScoped: true,

	Validate:       generic.Check(networking.ValidateIPAddress),
	ValidateUpdate: generic.CheckUpdate(networking.ValidateIPAddressUpdate),

	// The age has a cell, though no column of its own.
	Columns: []metav1.TableColumnDefinition{
		generic.NameColumn,
		generic.Column("ParentRef", "string", networkingv1.IPAddressSpec{}.SwaggerDoc()["parentRef"]),
	},
	Cells: func(a *networkingv1.IPAddress) []any {
		return []any{a.Name, parent(a.Spec.ParentRef), generic.Age(a.CreationTimestamp)}
	},
})

// parent prints a reference as "resource.group/namespace/name".
func parent(r *networkingv1.ParentReference) string {
	if r == nil {
		return "<none>"
	}
	resource := r.Resource
	if r.Group != "" {
		resource += "." + r.Group
	}
	parts := []string{resource}
	if r.Namespace != "" {
		parts = append(parts, r.Namespace)
	}
	return strings.Join(append(parts, r.Name), "/")
}
