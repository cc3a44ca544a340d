// Package replicaset serves apps/v1 ReplicaSet.
package replicaset

import (
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/leme-k8s/leme/pkg/api/apps"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

var (
	specDoc   = appsv1.ReplicaSetSpec{}.SwaggerDoc()
	statusDoc = appsv1.ReplicaSetStatus{}.SwaggerDoc()
)

// Storage returns the storage of replicasets, replicasets/status and replicasets/scale.
var Storage = generic.StorageOf(generic.Resource[*appsv1.ReplicaSet]{
	GroupVersion: appsv1.SchemeGroupVersion,
	Name:         "replicasets",
	ShortNames:   []string{"rs"},
	Categories:   []string{"all"},

	Status: &generic.Update[*appsv1.ReplicaSet]{
		Validate: generic.CheckUpdate(apps.ValidateReplicaSetStatusUpdate),
	},
	Scale: &generic.Scaler[*appsv1.ReplicaSet]{
		Replicas: func(r *appsv1.ReplicaSet) *int32 { return r.Spec.Replicas },
		Observed: func(r *appsv1.ReplicaSet) int32 { return r.Status.Replicas },
		Selector: func(r *appsv1.ReplicaSet) (string, error) { return generic.Selector(r.Spec.Selector) },
	},

	Generation:     generic.SpecChanged[*appsv1.ReplicaSet],
	Validate:       generic.Check(apps.ValidateReplicaSet),
	ValidateUpdate: generic.CheckUpdate(apps.ValidateReplicaSetUpdate),
	PodSpec: func(r *appsv1.ReplicaSet) (*corev1.PodSpec, *field.Path) {
		return &r.Spec.Template.Spec, field.NewPath("spec", "template", "spec")
	},
	Warnings: generic.Warn(apps.WarningsReplicaSet),

	Columns: []metav1.TableColumnDefinition{
		generic.NameColumn,
		generic.Column("Desired", "integer", specDoc["replicas"]),
		generic.Column("Current", "integer", statusDoc["replicas"]),
		generic.Column("Ready", "integer", statusDoc["readyReplicas"]),
		generic.AgeColumn,
		generic.WideColumn("Containers", "string", "Names of each container in the template."),
		generic.WideColumn("Images", "string", "Images referenced by each container in the template."),
		generic.WideColumn("Selector", "string", specDoc["selector"]),
	},
	Cells: func(r *appsv1.ReplicaSet) []any {
		names, images := generic.ContainerNames(r.Spec.Template.Spec.Containers)
		return []any{
			r.Name, int64(*r.Spec.Replicas), int64(r.Status.Replicas), int64(r.Status.ReadyReplicas),
			generic.Age(r.CreationTimestamp),
			strings.Join(names, ","), strings.Join(images, ","), metav1.FormatLabelSelector(r.Spec.Selector),
		}
	},
})
