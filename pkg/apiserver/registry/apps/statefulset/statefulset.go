// Package statefulset serves apps/v1 StatefulSet.
package statefulset

import (
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/leme-k8s/leme/pkg/api/apps"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// Storage returns the storage of statefulsets, statefulsets/status and statefulsets/scale.
var Storage = generic.StorageOf(generic.Resource[*appsv1.StatefulSet]{
	GroupVersion: appsv1.SchemeGroupVersion,
	Name:         "statefulsets",
	ShortNames:   []string{"sts"},
	Categories:   []string{"all"},

	Status: &generic.Update[*appsv1.StatefulSet]{
		Validate: generic.CheckUpdate(apps.ValidateStatefulSetStatusUpdate),
	},
	Scale: &generic.Scaler[*appsv1.StatefulSet]{
		Replicas: func(s *appsv1.StatefulSet) *int32 { return s.Spec.Replicas },
		Observed: func(s *appsv1.StatefulSet) int32 { return s.Status.Replicas },
		Selector: func(s *appsv1.StatefulSet) (string, error) { return generic.Selector(s.Spec.Selector) },
	},

	Generation:     generic.SpecChanged[*appsv1.StatefulSet],
	Validate:       generic.Check(apps.ValidateStatefulSet),
	ValidateUpdate: generic.CheckUpdate(apps.ValidateStatefulSetUpdate),
	PodSpec: func(s *appsv1.StatefulSet) (*corev1.PodSpec, *field.Path) {
		return &s.Spec.Template.Spec, field.NewPath("spec", "template", "spec")
	},
	Warnings: generic.Warn(apps.WarningsStatefulSet),

	Columns: []metav1.TableColumnDefinition{
		generic.NameColumn,
		generic.Column("Ready", "string", "Number of the pod with ready state"),
		generic.AgeColumn,
		generic.WideColumn("Containers", "string", "Names of each container in the template."),
		generic.WideColumn("Images", "string", "Images referenced by each container in the template."),
	},
	Cells: func(s *appsv1.StatefulSet) []any {
		names, images := generic.ContainerNames(s.Spec.Template.Spec.Containers)
		return []any{
			s.Name, generic.Fraction(s.Status.ReadyReplicas, *s.Spec.Replicas), generic.Age(s.CreationTimestamp),
			strings.Join(names, ","), strings.Join(images, ","),
		}
	},
})
