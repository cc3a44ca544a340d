// Package replicationcontroller serves v1 ReplicationController.
package replicationcontroller

import (
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/registry/rest"

	"github.com/leme-k8s/leme/pkg/api/core"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

var (
	specDoc   = corev1.ReplicationControllerSpec{}.SwaggerDoc()
	statusDoc = corev1.ReplicationControllerStatus{}.SwaggerDoc()
)

// Storage returns the storage of replicationcontrollers, …/status and …/scale.
var Storage = generic.StorageOf(generic.Resource[*corev1.ReplicationController]{
	GroupVersion: corev1.SchemeGroupVersion,
	Name:         "replicationcontrollers",
	ShortNames:   []string{"rc"},
	Categories:   []string{"all"},

	Status: &generic.Update[*corev1.ReplicationController]{
		Validate: generic.CheckUpdate(core.ValidateReplicationControllerStatusUpdate),
	},
	Scale: &generic.Scaler[*corev1.ReplicationController]{
		Replicas: func(rc *corev1.ReplicationController) *int32 { return rc.Spec.Replicas },
		Observed: func(rc *corev1.ReplicationController) int32 { return rc.Status.Replicas },
		Selector: func(rc *corev1.ReplicationController) (string, error) {
			return labels.Set(rc.Spec.Selector).AsSelector().String(), nil
		},
	},

	Generation:     generic.SpecChanged[*corev1.ReplicationController],
	Validate:       generic.Check(core.ValidateReplicationController),
	ValidateUpdate: generic.CheckUpdate(core.ValidateReplicationControllerUpdate),
	PodSpec: func(rc *corev1.ReplicationController) (*corev1.PodSpec, *field.Path) {
		if rc.Spec.Template == nil { // which is refused for itself
			return nil, nil
		}
		return &rc.Spec.Template.Spec, field.NewPath("spec", "template", "spec")
	},
	Warnings: generic.Warn(core.WarningsReplicationController),
	// The oldest of the workloads leaves its pods behind.
	GarbageCollection: rest.OrphanDependents,

	Fields: func(rc *corev1.ReplicationController) fields.Set {
		return fields.Set{"status.replicas": strconv.Itoa(int(rc.Status.Replicas))}
	},
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
	Cells: func(rc *corev1.ReplicationController) []any {
		names, images := generic.ContainerNames(rc.Spec.Template.Spec.Containers)
		return []any{
			rc.Name, int64(*rc.Spec.Replicas), int64(rc.Status.Replicas), int64(rc.Status.ReadyReplicas),
			generic.Age(rc.CreationTimestamp),
			strings.Join(names, ","), strings.Join(images, ","), labels.FormatLabels(rc.Spec.Selector),
		}
	},
})
