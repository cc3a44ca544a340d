// Package ingress serves networking.k8s.io/v1 Ingress.
package ingress

import (
	"context"
	"fmt"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/leme-k8s/leme/pkg/api/networking"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// classAnnotation named the class before there was a field for it.
const classAnnotation = "kubernetes.io/ingress.class"

// Storage returns the storage of ingresses and ingresses/status.
var Storage = generic.StorageOf(generic.Resource[*networkingv1.Ingress]{
	GroupVersion: networkingv1.SchemeGroupVersion,
	Name:         "ingresses",
	ShortNames:   []string{"ing"},

	Status: &generic.Update[*networkingv1.Ingress]{
		Validate: generic.CheckUpdate(networking.ValidateIngressStatusUpdate),
	},

	Generation:     generic.SpecChanged[*networkingv1.Ingress],
	Validate:       generic.Check(networking.ValidateIngress),
	ValidateUpdate: generic.CheckUpdate(networking.ValidateIngressUpdate),
	Warnings: func(_ context.Context, i, old *networkingv1.Ingress) []string {
		if _, ok := i.Annotations[classAnnotation]; !ok || old != nil {
			return nil
		}
		return []string{`annotation "kubernetes.io/ingress.class" is deprecated, please use 'spec.ingressClassName' instead`}
	},

	Columns: []metav1.TableColumnDefinition{
		generic.NameColumn,
		generic.Column("Class", "string", "The name of the IngressClass resource that should be used for additional configuration"),
		generic.Column("Hosts", "string", "Hosts that incoming requests are matched against before the ingress rule"),
		generic.Column("Address", "string", "Address is a list containing ingress points for the load-balancer"),
		generic.Column("Ports", "string", "Ports of TLS configurations that open"),
		generic.AgeColumn,
	},
	Cells: func(i *networkingv1.Ingress) []any {
		class := "<none>"
		if i.Spec.IngressClassName != nil {
			class = *i.Spec.IngressClassName
		}
		ports := "80"
		if len(i.Spec.TLS) > 0 {
			ports = "80, 443"
		}
		return []any{i.Name, class, hosts(i.Spec.Rules), addresses(i.Status.LoadBalancer.Ingress), ports, generic.Age(i.CreationTimestamp)}
	},
})

// shownHosts is how many hosts a table lists.
const shownHosts = 3

func hosts(rules []networkingv1.IngressRule) string {
	var list []string
	for _, r := range rules {
		if r.Host != "" {
			list = append(list, r.Host)
		}
	}
	switch {
	case len(list) == 0:
		return "*"
	case len(list) > shownHosts:
		return fmt.Sprintf("%s + %d more...", strings.Join(list[:shownHosts], ","), len(list)-shownHosts)
	}
	return strings.Join(list, ",")
}

func addresses(ingress []networkingv1.IngressLoadBalancerIngress) string {
	var list []string
	for _, i := range ingress {
		switch {
		case i.IP != "":
			list = append(list, i.IP)
		case i.Hostname != "":
			list = append(list, i.Hostname)
		}
	}
	slices.Sort(list)
	return strings.Join(slices.Compact(list), ",")
}
