// Package servicecidr serves networking.k8s.io/v1 ServiceCIDR.
package servicecidr

import (
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/leme-k8s/leme/pkg/api/networking"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// Storage returns the storage of servicecidrs and servicecidrs/status.
var Storage = generic.StorageOf(generic.Resource[*networkingv1.ServiceCIDR]{
	GroupVersion:  networkingv1.SchemeGroupVersion,
	Name:          "servicecidrs",
	ClusterScoped: true,

	Status: &generic.Update[*networkingv1.ServiceCIDR]{
		KeepsMetadata: true,
		Validate:      generic.CheckUpdate(networking.ValidateServiceCIDRStatusUpdate),
	},

	Validate:       generic.Check(networking.ValidateServiceCIDR),
	ValidateUpdate: generic.CheckUpdate(networking.ValidateServiceCIDRUpdate),

	Columns: []metav1.TableColumnDefinition{
		generic.NameColumn,
		generic.Column("CIDRs", "string", networkingv1.ServiceCIDRSpec{}.SwaggerDoc()["cidrs"]),
		generic.AgeColumn,
	},
	Cells: func(s *networkingv1.ServiceCIDR) []any {
		return []any{s.Name, strings.Join(s.Spec.CIDRs, ","), generic.Age(s.CreationTimestamp)}
	},
})
