// Package networkpolicy serves networking.k8s.io/v1 NetworkPolicy.
package networkpolicy

import (
	"reflect"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/leme-k8s/leme/pkg/api/networking"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// Storage returns the storage of networkpolicies.
var Storage = generic.StorageOf(generic.Resource[*networkingv1.NetworkPolicy]{
	GroupVersion: networkingv1.SchemeGroupVersion,
	Name:         "networkpolicies",
	ShortNames:   []string{"netpol"},

	// An empty list in place of none counts as a change.
	Generation:     func(n, old *networkingv1.NetworkPolicy) bool { return !reflect.DeepEqual(n.Spec, old.Spec) },
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
})
