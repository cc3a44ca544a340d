// Package ipaddress serves networking.k8s.io/v1 IPAddress.
package ipaddress

import (
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/leme-k8s/leme/pkg/api/networking"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// Storage returns the storage of ipaddresses.
func Storage(o generic.Options) (generic.Storage, error) {
	return generic.NewStorage(resource, o)
}

var resource = generic.Resource[*networkingv1.IPAddress]{
	GroupVersion:  networkingv1.SchemeGroupVersion,
	Name:          "ipaddresses",
	Singular:      "ipaddress",
	ShortNames:    []string{"ip"},
	ClusterScoped: true,
	New:           func() *networkingv1.IPAddress { return &networkingv1.IPAddress{} },
	NewList:       func() runtime.Object { return &networkingv1.IPAddressList{} },

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
}

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
