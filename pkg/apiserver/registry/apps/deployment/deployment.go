// Package deployment serves apps/v1 Deployment.
package deployment

import (
	"context"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/leme-k8s/leme/pkg/api/apps"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// Storage returns the storage of deployments, deployments/status and deployments/scale.
var Storage = generic.StorageOf(generic.Resource[*appsv1.Deployment]{
	GroupVersion: appsv1.SchemeGroupVersion,
	Name:         "deployments",
	ShortNames:   []string{"deploy"},
	Categories:   []string{"all"},

	Status: &status,
	Scale: &generic.Scaler[*appsv1.Deployment]{
		Replicas: func(d *appsv1.Deployment) *int32 { return d.Spec.Replicas },
		Observed: func(d *appsv1.Deployment) int32 { return d.Status.Replicas },
		Selector: func(d *appsv1.Deployment) (string, error) { return generic.Selector(d.Spec.Selector) },
	},
	// Annotations count too: a rollout may read them.
	Generation: func(obj, old *appsv1.Deployment) bool {
		return generic.SpecChanged(obj, old) || !equality.Semantic.DeepEqual(obj.Annotations, old.Annotations)
	},
	Validate:       generic.Check(apps.ValidateDeployment),
	ValidateUpdate: generic.CheckUpdate(apps.ValidateDeploymentUpdate),
	PodSpec: func(d *appsv1.Deployment) (*corev1.PodSpec, *field.Path) {
		return &d.Spec.Template.Spec, field.NewPath("spec", "template", "spec")
	},
	Warnings: generic.Warn(apps.WarningsDeployment),

	Columns: []metav1.TableColumnDefinition{
		generic.NameColumn,
		generic.Column("Ready", "string", "Number of the pod with ready state"),
		generic.Column("Up-to-date", "string", appsv1.DeploymentStatus{}.SwaggerDoc()["updatedReplicas"]),
		generic.Column("Available", "string", appsv1.DeploymentStatus{}.SwaggerDoc()["availableReplicas"]),
		generic.AgeColumn,
		generic.WideColumn("Containers", "string", "Names of each container in the template."),
		generic.WideColumn("Images", "string", "Images referenced by each container in the template."),
		generic.WideColumn("Selector", "string", appsv1.DeploymentSpec{}.SwaggerDoc()["selector"]),
	},
	Cells: func(d *appsv1.Deployment) []any {
		names, images := generic.ContainerNames(d.Spec.Template.Spec.Containers)
		return []any{
			d.Name,
			generic.Fraction(d.Status.ReadyReplicas, *d.Spec.Replicas),
			int64(d.Status.UpdatedReplicas),
			int64(d.Status.AvailableReplicas),
			generic.Age(d.CreationTimestamp),
			strings.Join(names, ","),
			strings.Join(images, ","),
			metav1.FormatLabelSelector(d.Spec.Selector),
		}
	},
})

var status = generic.Update[*appsv1.Deployment]{
	Prepare:     func(_ context.Context, obj, old *appsv1.Deployment) { obj.Labels = old.Labels },
	ResetFields: []string{"metadata.labels"},
	Validate:    generic.CheckUpdate(apps.ValidateDeploymentStatusUpdate),
}
