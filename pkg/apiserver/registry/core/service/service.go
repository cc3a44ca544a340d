// Package service serves v1 Service. Beside storing it, it gives each Service the
// cluster IPs and node ports that it asks for:
//
//	families.go   which IP families a Service is to have
//	allocate.go   what it gets on create and update, and gives back
//	clusterip.go  cluster IPs, one IPAddress object each
//	nodeport.go   node ports, bits of one stored bitmap
//	repair.go     brings both back in line with the Services
package service

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/util/dryrun"

	"github.com/leme-k8s/leme/pkg/api/core"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// Store is the store of services.
type Store = generic.Store[*corev1.Service]

// New returns the store of services, which takes what they need from a.
func New(o generic.Options, a *Allocator) (*Store, error) {
	s, err := generic.NewStore(resource, o)
	if err != nil {
		return nil, err
	}
	s.BeginCreate = func(ctx context.Context, obj runtime.Object, options *metav1.CreateOptions) (registry.FinishFunc, error) {
		svc := obj.(*corev1.Service)
		core.SyncClusterIPs(svc, nil)
		return a.begin(ctx, svc, nil, dryrun.IsDryRun(options.DryRun))
	}
	s.BeginUpdate = func(ctx context.Context, obj, old runtime.Object, options *metav1.UpdateOptions) (registry.FinishFunc, error) {
		svc, was := obj.(*corev1.Service), old.(*corev1.Service)
		core.KeepAllocated(svc, was)
		core.SyncClusterIPs(svc, was)
		return a.begin(ctx, svc, was, dryrun.IsDryRun(options.DryRun))
	}
	s.AfterDelete = func(obj runtime.Object, options *metav1.DeleteOptions) {
		if !dryrun.IsDryRun(options.DryRun) {
			a.releaseAll(context.Background(), obj.(*corev1.Service))
		}
	}
	return s, nil
}

var doc = corev1.ServiceSpec{}.SwaggerDoc()

var resource = generic.Resource[*corev1.Service]{
	GroupVersion: corev1.SchemeGroupVersion,
	Name:         "services",
	ShortNames:   []string{"svc"},
	Categories:   []string{"all"},

	Status: &generic.Update[*corev1.Service]{Validate: generic.CheckUpdate(core.ValidateServiceStatusUpdate)},

	CreateOnUpdate:   true,
	Validate:         generic.Check(core.ValidateService),
	PrepareForCreate: func(_ context.Context, obj *corev1.Service) { core.DropMeaningless(obj, nil) },
	PrepareForUpdate: func(_ context.Context, obj, old *corev1.Service) { core.DropMeaningless(obj, old) },
	ValidateUpdate:   generic.CheckUpdate(core.ValidateServiceUpdate),
	Warnings:         generic.Warn(core.WarningsService),
	ReturnDeleted:    true,

	Fields: func(s *corev1.Service) fields.Set {
		return fields.Set{"spec.clusterIP": s.Spec.ClusterIP, "spec.type": string(s.Spec.Type)}
	},
	Columns: []metav1.TableColumnDefinition{
		generic.NameColumn,
		generic.Column("Type", "string", doc["type"]),
		generic.Column("Cluster-IP", "string", doc["clusterIP"]),
		generic.Column("External-IP", "string", doc["externalIPs"]),
		generic.Column("Port(s)", "string", doc["ports"]),
		generic.AgeColumn,
		generic.WideColumn("Selector", "string", doc["selector"]),
	},
	Cells: func(s *corev1.Service) []any {
		clusterIP := "<none>"
		if len(s.Spec.ClusterIPs) > 0 {
			clusterIP = s.Spec.ClusterIPs[0]
		}
		return []any{
			s.Name, string(s.Spec.Type), clusterIP, external(s), ports(s.Spec.Ports), generic.Age(s.CreationTimestamp),
			labels.FormatLabels(s.Spec.Selector),
		}
	},
}

// external is where the Service is reached from outside.
func external(s *corev1.Service) string {
	var all []string
	switch s.Spec.Type {
	case corev1.ServiceTypeExternalName:
		return s.Spec.ExternalName
	case corev1.ServiceTypeLoadBalancer:
		for _, ingress := range s.Status.LoadBalancer.Ingress {
			if ingress.IP != "" {
				all = append(all, ingress.IP)
			} else if ingress.Hostname != "" {
				all = append(all, ingress.Hostname)
			}
		}
		if len(all)+len(s.Spec.ExternalIPs) == 0 {
			return "<pending>"
		}
	}
	if all = append(all, s.Spec.ExternalIPs...); len(all) == 0 {
		return "<none>"
	}
	return strings.Join(all, ",")
}

func ports(list []corev1.ServicePort) string {
	if len(list) == 0 {
		return "<none>"
	}
	var all []string
	for _, p := range list {
		if p.NodePort > 0 {
			all = append(all, fmt.Sprintf("%d:%d/%s", p.Port, p.NodePort, p.Protocol))
		} else {
			all = append(all, fmt.Sprintf("%d/%s", p.Port, p.Protocol))
		}
	}
	return strings.Join(all, ",")
}
