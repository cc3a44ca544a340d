// Package servicecidr serves networking.k8s.io/v1 ServiceCIDR.
package servicecidr

import (
	"context"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/leme-k8s/leme/pkg/api/networking"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// Storage returns the storage of servicecidrs and servicecidrs/status.
func Storage(o generic.Options) (generic.Storage, error) {
	s, err := generic.NewStore(resource, o)
	if err != nil {
		return nil, err
	}
	return generic.Storage{
		"servicecidrs": s,
		"servicecidrs/status": s.Status(generic.Update[*networkingv1.ServiceCIDR]{
			Prepare: func(_ context.Context, s, old *networkingv1.ServiceCIDR) {
				metav1.ResetObjectMetaForStatus(&s.ObjectMeta, &old.ObjectMeta)
			},
			ResetFields: []string{"metadata"},
			Validate:    generic.CheckUpdate(networking.ValidateServiceCIDRStatusUpdate),
		}),
	}, nil
}

var resource = generic.Resource[*networkingv1.ServiceCIDR]{
	GroupVersion:  networkingv1.SchemeGroupVersion,
	Name:          "servicecidrs",
	Singular:      "servicecidr",
	ClusterScoped: true,
	New:           func() *networkingv1.ServiceCIDR { return &networkingv1.ServiceCIDR{} },
	NewList:       func() runtime.Object { return &networkingv1.ServiceCIDRList{} },

	HasStatus:      true,
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
}
