// Package ingressclass serves networking.k8s.io/v1 IngressClass.
package ingressclass

import (
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/leme-k8s/leme/pkg/api/networking"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// Storage returns the storage of ingressclasses.
var Storage = generic.StorageOf(generic.Resource[*networkingv1.IngressClass]{
	GroupVersion:  networkingv1.SchemeGroupVersion,
	Name:          "ingressclasses",
	ClusterScoped: true,

	Generation:     generic.SpecChanged[*networkingv1.IngressClass],
	Validate:       generic.Check(networking.ValidateIngressClass),
	ValidateUpdate: generic.CheckUpdate(networking.ValidateIngressClassUpdate),

	Columns: []metav1.TableColumnDefinition{
		generic.NameColumn,
		generic.Column("Controller", "string", "Controller that is responsible for handling this class"),
		generic.Column("Parameters", "string", "A reference to a resource with additional parameters"),
		generic.AgeColumn,
	},
	Cells: func(c *networkingv1.IngressClass) []any {
		return []any{c.Name, c.Spec.Controller, parameters(c.Spec.Parameters), generic.Age(c.CreationTimestamp)}
	},
})

// parameters prints a reference as "Kind.group/name".
func parameters(r *networkingv1.IngressClassParametersReference) string {
	if r == nil {
		return "<none>"
	}
	kind := r.Kind
	if r.APIGroup != nil {
		kind = strings.Join([]string{kind, *r.APIGroup}, ".")
	}
	return kind + "/" + r.Name
}
