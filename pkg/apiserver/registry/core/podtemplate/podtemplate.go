// Package podtemplate serves v1 PodTemplate.
package podtemplate

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/leme-k8s/leme/pkg/api/core"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// Storage returns the storage of podtemplates.
var Storage = generic.StorageOf(generic.Resource[*corev1.PodTemplate]{
	GroupVersion: corev1.SchemeGroupVersion,
	Name:         "podtemplates",

	Generation: func(obj, old *corev1.PodTemplate) bool {
		return !equality.Semantic.DeepEqual(obj.Template, old.Template)
	},
	Validate:       generic.Check(core.ValidatePodTemplate),
	ValidateUpdate: generic.CheckUpdate(core.ValidatePodTemplateUpdate),
	PodSpec: func(t *corev1.PodTemplate) (*corev1.PodSpec, *field.Path) {
		return &t.Template.Spec, field.NewPath("template", "spec")
	},
	Warnings:      generic.Warn(core.WarningsPodTemplate),
	ReturnDeleted: true,

	Columns: []metav1.TableColumnDefinition{
		generic.NameColumn,
		generic.Column("Containers", "string", "Names of each container in the template."),
		generic.Column("Images", "string", "Images referenced by each container in the template."),
		generic.Column("Pod Labels", "string", "The labels for the pod template."),
	},
	Cells: func(t *corev1.PodTemplate) []any {
		names, images := generic.ContainerNames(t.Template.Spec.Containers)
		return []any{t.Name, strings.Join(names, ","), strings.Join(images, ","), labels.FormatLabels(t.Template.Labels)}
	},
})
