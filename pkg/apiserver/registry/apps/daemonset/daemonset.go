// Package daemonset serves apps/v1 DaemonSet.
package daemonset

import (
	"context"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/leme-k8s/leme/pkg/api/apps"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

var (
	podSpecDoc = corev1.PodSpec{}.SwaggerDoc()
	specDoc    = appsv1.DaemonSetSpec{}.SwaggerDoc()
	statusDoc  = appsv1.DaemonSetStatus{}.SwaggerDoc()
)

// Storage returns the storage of daemonsets and daemonsets/status.
var Storage = generic.StorageOf(resource)

var resource = generic.Resource[*appsv1.DaemonSet]{
	GroupVersion: appsv1.SchemeGroupVersion,
	Name:         "daemonsets",
	ShortNames:   []string{"ds"},
	Categories:   []string{"all"},

	Status: &generic.Update[*appsv1.DaemonSet]{
		Prepare:  func(_ context.Context, d, old *appsv1.DaemonSet) { setTemplateGeneration(d, templateGeneration(old)) },
		Validate: generic.CheckUpdate(apps.ValidateDaemonSetStatusUpdate),
	},

	Generation: generic.SpecChanged[*appsv1.DaemonSet],
	PrepareForCreate: func(_ context.Context, d *appsv1.DaemonSet) {
		setTemplateGeneration(d, max(templateGeneration(d), 1))
	},
	PrepareForUpdate: func(_ context.Context, d, old *appsv1.DaemonSet) {
		generation := templateGeneration(old)
		if !equality.Semantic.DeepEqual(d.Spec.Template, old.Spec.Template) {
			generation++
		}
		setTemplateGeneration(d, generation)
	},
	Validate:       generic.Check(apps.ValidateDaemonSet),
	ValidateUpdate: generic.CheckUpdate(apps.ValidateDaemonSetUpdate),
	PodSpec: func(d *appsv1.DaemonSet) (*corev1.PodSpec, *field.Path) {
		return &d.Spec.Template.Spec, field.NewPath("spec", "template", "spec")
	},
	Warnings: generic.Warn(apps.WarningsDaemonSet),

	Columns: []metav1.TableColumnDefinition{
		generic.NameColumn,
		generic.Column("Desired", "integer", statusDoc["desiredNumberScheduled"]),
		generic.Column("Current", "integer", statusDoc["currentNumberScheduled"]),
		generic.Column("Ready", "integer", statusDoc["numberReady"]),
		generic.Column("Up-to-date", "integer", statusDoc["updatedNumberScheduled"]),
		generic.Column("Available", "integer", statusDoc["numberAvailable"]),
		generic.Column("Node Selector", "string", podSpecDoc["nodeSelector"]),
		generic.AgeColumn,
		generic.WideColumn("Containers", "string", "Names of each container in the template."),
		generic.WideColumn("Images", "string", "Images referenced by each container in the template."),
		generic.WideColumn("Selector", "string", specDoc["selector"]),
	},
	Cells: func(d *appsv1.DaemonSet) []any {
		names, images := generic.ContainerNames(d.Spec.Template.Spec.Containers)
		s := &d.Status
		return []any{
			d.Name, int64(s.DesiredNumberScheduled), int64(s.CurrentNumberScheduled), int64(s.NumberReady),
			int64(s.UpdatedNumberScheduled), int64(s.NumberAvailable),
			labels.FormatLabels(d.Spec.Template.Spec.NodeSelector), generic.Age(d.CreationTimestamp),
			strings.Join(names, ","), strings.Join(images, ","), metav1.FormatLabelSelector(d.Spec.Selector),
		}
	},
}

// templateGeneration counts the changes of the template, as early clients expect,
// in an annotation.
func templateGeneration(d *appsv1.DaemonSet) int64 {
	generation, _ := strconv.ParseInt(d.Annotations[appsv1.DeprecatedTemplateGeneration], 10, 64)
	return generation
}

func setTemplateGeneration(d *appsv1.DaemonSet, generation int64) {
	annotations := make(map[string]string, len(d.Annotations)+1)
	for key, value := range d.Annotations {
		annotations[key] = value
	}
	annotations[appsv1.DeprecatedTemplateGeneration] = strconv.FormatInt(generation, 10)
	d.Annotations = annotations
}
