// Package networkpolicy serves networking.k8s.io/v1 NetworkPolicy.
package networkpolicy

import (
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/leme-k8s/leme/pkg/api/networking"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// Storage returns the storage of networkpolicies.
func Storage(o generic.Options) (generic.Storage, error) {
	return generic.NewStorage(resource, o)
}

var resource = generic.Resource[*networkingv1.NetworkPolicy]{
	GroupVersion: networkingv1.SchemeGroupVersion,
	Name:         "networkpolicies",
	Singular:     "networkpolicy",
	ShortNames:   []string{"netpol"},
	New:          func() *networkingv1.NetworkPolicy { return &networkingv1.NetworkPolicy{} },
	NewList:      func() runtime.Object { return &networkingv1.NetworkPolicyList{} },

	Generation:     generic.SpecChanged[*networkingv1.NetworkPolicy],
	Validate:       generic.Check(networking.ValidateNetworkPolicy),
	ValidateUpdate: generic.CheckUpdate(networking.ValidateNetworkPolicyUpdate),
	Warnings:       generic.Warn(networking.WarningsNetworkPolicy),

	Columns: []metav1.TableColumnDefinition{
		generic.NameColumn,
		generic.Column("Pod-Selector", "string", networkingv1.NetworkPolicySpec{}.SwaggerDoc()["podSelector"]),
		generic.AgeColumn,
	},
	Cells: func(n *networkingv1.NetworkPolicy) []any {
		return []any{n.Name, metav1.FormatLabelSelector(&n.Spec.PodSelector), generic.Age(n.CreationTimestamp)}
	},
}
